"""An input -> the body of a call. Pure, but for files that are named by a `pathlib.Path`.

one image                         its bytes as they are, Content-Type image/...
a record with images or bytes     multipart/form-data, one part a field: bytes raw, all else JSON
anything else                     JSON; arrays as nested lists, bytes inside as base64
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from headrace.images import Image

#: How the three image types that a house takes begin.
_MAGIC = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))
_NAME_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})  # as browsers do


class Body(NamedTuple):
    content_type: str
    data: bytes


def body_of(value: Any) -> Body:
    """Raises TypeError for what has no JSON form, OSError for a path that cannot be read."""
    plain = plain_of(value)
    if isinstance(plain, bytes) and (media_type := image_type(plain)):
        return Body(media_type, plain)
    if isinstance(plain, dict) and any(isinstance(field, bytes) for field in plain.values()):
        return form(plain)
    return Body("application/json", msgspec.json.encode(plain))


def many_of(values: list[Any]) -> Body:
    """Several inputs in one JSON array."""
    return Body("application/json", msgspec.json.encode([plain_of(value) for value in values]))


def plain_of(value: Any) -> Any:
    """Records, arrays, images and paths -> what JSON knows, and bytes."""
    return msgspec.to_builtins(
        value, builtin_types=(bytes,), str_keys=True, enc_hook=_plain_of_other
    )


def _plain_of_other(value: Any) -> Any:
    if isinstance(value, Image):
        return value.data
    if isinstance(value, Path):
        return value.read_bytes()
    if hasattr(value, "__array__") and hasattr(value, "tolist"):  # numpy arrays and scalars
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump(by_alias=True)
    raise TypeError(f"an input holds a {type(value).__name__}, which has no JSON form")


def image_type(data: bytes) -> str | None:
    """The media type of a JPEG, PNG or WEBP by its first bytes, else None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def form(fields: dict[str, Any], boundary: str | None = None) -> Body:
    """multipart/form-data (RFC 7578): bytes as files, all other fields as JSON."""
    edge = (boundary or secrets.token_hex(16)).encode()
    pieces = []
    for name, value in fields.items():
        content_type, data = _part(value)
        escaped = str(name).translate(_NAME_ESCAPES).encode()
        file_name = b"" if content_type == "application/json" else b'; filename="%b"' % escaped
        pieces.append(
            b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\nContent-Type: %b\r\n\r\n%b\r\n'
            % (edge, escaped, file_name, content_type.encode(), data)
        )
    pieces.append(b"--%b--\r\n" % edge)
    return Body(f"multipart/form-data; boundary={edge.decode()}", b"".join(pieces))


def _part(value: Any) -> tuple[str, bytes]:
    if isinstance(value, bytes):
        return image_type(value) or "application/octet-stream", value
    return "application/json", msgspec.json.encode(value)
