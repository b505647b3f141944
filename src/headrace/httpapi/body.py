"""The body of a request: decompressed, and where it is small JSON, as what it should be."""

from __future__ import annotations

import re
import zlib
from typing import TypeVar

import msgspec

from headrace.errors import BadRequest, FieldError, Invalid, PayloadTooLarge, UnsupportedMediaType
from headrace.httpserver import Request
from headrace.schema import check_pairs

T = TypeVar("T")

JSON_TYPES = (b"application/json",)
MOST_BODY = 65_536
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


def media_type_of(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip().lower()


def whole_body(request: Request, most: int) -> bytes:
    """The body, decompressed. Raises Refusal."""
    encoding = request.headers.get(b"content-encoding")
    return request.body if encoding is None else decompress(request.body, encoding, most)


def decompress(body: bytes, encoding: bytes, most: int) -> bytes:
    """gzip and deflate, once. Raises UnsupportedMediaType, PayloadTooLarge, BadRequest."""
    kind = encoding.strip().lower()
    if kind == b"identity":
        return body
    if kind not in (b"gzip", b"deflate"):
        raise UnsupportedMediaType("expected Content-Encoding gzip, deflate or none")
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        whole = stream.decompress(body, most + 1)
    except zlib.error:
        raise BadRequest(f"the body is not {kind.decode()}", code="malformed-encoding") from None
    if len(whole) > most:
        raise PayloadTooLarge(
            f"the body is larger than {most} bytes when decompressed",
            code="decompressed-too-large",
        )
    if not stream.eof or stream.unused_data:
        raise BadRequest(
            "the compressed body is cut short, or something follows it", code="malformed-encoding"
        )
    return whole


def read_struct(request: Request, kind: type[T], most: int = MOST_BODY) -> T:
    """The body as JSON of a kind that msgspec knows, at most so many bytes. Raises Refusal."""
    if media_type_of(request.headers.get(b"content-type", b"")) not in JSON_TYPES:
        raise UnsupportedMediaType("expected Content-Type application/json")
    body = whole_body(request, most)
    if len(body) > most:
        raise PayloadTooLarge(f"expected at most {most} bytes")
    if not body:
        raise BadRequest("the body is empty", code="empty-body")
    check_pairs(body)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        detail, _, place = str(error).partition(" - at `")
        steps = _STEP.findall(place)
        pointer = "".join(f"/{key or index}" for key, index in steps)
        raise Invalid(detail, errors=[FieldError(pointer, "validation-failed", detail)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("the body is not JSON", code="malformed-json") from None
    except RecursionError:
        raise BadRequest("the JSON is nested too deep", code="json-limits") from None
