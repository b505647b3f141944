"""HTTP -> the model's input in canonical bytes, checked against its schema.

application/json       the input, as its schema says
image/jpeg, png, webp  the bytes of the image, for a model whose input is one image
multipart/form-data    one part a field: images as files, all else as JSON or text
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace import images
from headrace.errors import (
    BadRequest,
    Invalid,
    LengthRequired,
    NotAcceptable,
    Refusal,
    UnsupportedMediaType,
)
from headrace.gateway.multipart import Part, parts
from headrace.httpapi.body import JSON_TYPES, media_type_of, whole_body
from headrace.httpserver import Request
from headrace.schema import Reader, check_pairs

_REFUSED = re.compile(rb"(?:^|;)\s*q\s*=\s*0(?:\.0*)?\s*(?:;|$)")
_canonical = msgspec.msgpack.Encoder().encode


def check_bodiless(path: bytes) -> None:
    """What acts on a thing that is there needs no body. Raises LengthRequired for all else."""
    if not path.startswith((b"/jobs/", b"/webhooks/")):
        raise LengthRequired("a Content-Length or chunked encoding is needed")


def read_input(request: Request, reader: Reader, max_body: int) -> bytes:
    """The call's input. Raises Refusal."""
    content_type = request.headers.get(b"content-type", b"")
    body = whole_body(request, max_body)
    if content_type == b"application/json":  # by far the most common: no parsing of parameters
        return read_json(body, reader)
    media_type = media_type_of(content_type)
    if media_type in JSON_TYPES:
        return read_json(body, reader)
    if media_type.startswith(b"image/"):
        return read_image(body, media_type, reader)
    if media_type == b"multipart/form-data":
        return read_form(parts(body, content_type), reader)
    raise UnsupportedMediaType(
        "expected Content-Type application/json, multipart/form-data, or one of "
        + ", ".join(images.MEDIA_TYPES)
    )


def read_inputs(
    request: Request, reader: Reader, max_body: int, most: int
) -> list[bytes | Refusal]:
    """The inputs of a call of many, or the refusal of each. Raises Refusal for all of them."""
    if media_type_of(request.headers.get(b"content-type", b"")) not in JSON_TYPES:
        raise UnsupportedMediaType("expected Content-Type application/json")
    body = whole_body(request, max_body)
    if not body:
        raise BadRequest("the body is empty", code="empty-body")
    return reader.many(body, most)


def read_json(body: bytes, reader: Reader) -> bytes:
    if not body:
        raise BadRequest("the body is empty", code="empty-body")
    return reader.json(body)


def read_image(body: bytes, media_type: bytes, reader: Reader) -> bytes:
    if media_type.decode("latin-1") not in images.MEDIA_TYPES:
        raise UnsupportedMediaType(
            f"expected one of {', '.join(images.MEDIA_TYPES)}", code="image-type-not-allowed"
        )
    if not reader.is_image:
        raise UnsupportedMediaType("this model takes more than one image: send JSON or multipart")
    if not body:
        raise BadRequest("the body is empty", code="empty-body")
    images.inspect(body)
    return _canonical(body)


def read_form(fields: list[Part], reader: Reader) -> bytes:
    if reader.is_image:
        if len(fields) != 1:
            raise Invalid(f"expected one part with the image, got {len(fields)}")
        return read_image(fields[0].data, _image_type(fields[0]), reader)
    value: dict[str, Any] = {}
    for field in fields:
        if field.name not in reader.properties:
            known = ", ".join(reader.properties)
            raise Invalid(f"an unknown part; this model takes {known or 'JSON only'}")
        if field.name in value:
            raise Invalid(f"the part {field.name!r} comes twice")
        value[field.name] = _form_value(field, reader.properties[field.name])
    return reader.value(value)


def _image_type(field: Part) -> bytes:
    """Clients often send files without a type: then the header of the image alone decides."""
    declared = field.content_type.partition(b";")[0].strip().lower()
    return b"image/jpeg" if declared in (b"", b"application/octet-stream") else declared


def _form_value(field: Part, schema: dict[str, Any]) -> Any:
    """A part that says it is JSON is JSON; of one that does not, as curl's, the schema tells."""
    if field.content_type.partition(b";")[0].strip().lower() in JSON_TYPES:
        try:
            return msgspec.json.decode(field.data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise Invalid(f"the part {field.name[:64]!r} is not JSON") from None
    kinds = [schema, *schema.get("anyOf", ())]  # `Image | None` is an anyOf
    if any(kind.get("contentEncoding") == "base64" for kind in kinds):
        return field.data  # bytes travel as they are in a form
    try:
        text = field.data.decode()
    except UnicodeDecodeError:
        raise Invalid(f"the part {field.name!r} is not text") from None
    if schema.get("type") == "string":
        return text
    check_pairs(field.data)
    try:
        return msgspec.json.decode(field.data)
    except msgspec.DecodeError:
        return text
    except RecursionError:
        raise BadRequest("the JSON is nested too deep", code="json-limits") from None


def check_accept(accept: bytes | None) -> None:
    """Answers are JSON. Raises NotAcceptable where the client can take none of it."""
    if not accept or accept == b"*/*" or accept == b"application/json":
        return
    for offer in accept.lower().split(b","):
        media_range, _, parameters = offer.partition(b";")
        wanted = media_range.strip() in (b"*/*", b"application/*", b"application/json")
        if wanted and not _REFUSED.search(parameters):
            return
    raise NotAcceptable("answers are application/json")
