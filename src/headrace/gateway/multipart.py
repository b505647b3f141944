"""multipart/form-data -> parts, within limits that are checked before any work is done.

Cut apart with the search of `bytes` alone: no byte is looked at in Python, so that 20 MB of line
ends cost what 20 MB of image cost (RFC 7578, RFC 2046).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from headrace.errors import BadRequest, PayloadTooLarge

MAX_PARTS = 64
MAX_PART_HEADERS = 4_096
MAX_BOUNDARY = 70  # RFC 2046

_PARAMETER = re.compile(
    rb";[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"]*))[ \t]*"
)
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


class Part(NamedTuple):
    """One field. A file name, where there is one, is not kept: nothing here may depend on it."""

    name: str
    content_type: bytes
    data: bytes


def parts(body: bytes, content_type: bytes) -> list[Part]:
    """Raises BadRequest (400 malformed-multipart) or PayloadTooLarge (413)."""
    boundary = _boundary(content_type)
    delimiter = b"\r\n--" + boundary
    # A preamble is skipped; what a boundary opens the body with has no line end before it.
    start = 0 if body.startswith(delimiter[2:]) else body.find(delimiter) + 2
    if start == 1:
        raise _malformed("the boundary does not occur in the body")
    found: list[Part] = []
    at = start + len(delimiter) - 2
    while not body.startswith(b"--", at):
        if len(found) == MAX_PARTS:
            raise PayloadTooLarge(f"more than {MAX_PARTS} parts", code="malformed-multipart")
        end = body.find(delimiter, at)
        if end < 0:
            raise _malformed("the closing boundary is missing")
        found.append(_part(body, at, end))
        at = end + len(delimiter)
    return found


def _boundary(content_type: bytes) -> bytes:
    boundary = _parameters(content_type.partition(b";")).get(b"boundary", b"")
    if len(boundary) > MAX_BOUNDARY or not _BOUNDARY.fullmatch(boundary):
        raise _malformed("the boundary is missing, too long, or of characters it may not have")
    return boundary


def _part(body: bytes, start: int, end: int) -> Part:
    """The part between a boundary and the next: `start` is behind the one, `end` before the
    line end of the other."""
    line_end = body.find(b"\r\n", start, min(end, start + 80) + 2)
    if line_end < 0 or body[start:line_end].strip(b" \t"):
        raise _malformed("a boundary is not a line of its own")
    # From the line end of the boundary on: a part without headers begins with an empty line.
    head_end = body.find(b"\r\n\r\n", line_end, min(end, line_end + MAX_PART_HEADERS) + 4)
    if head_end < 0:
        if end - line_end > MAX_PART_HEADERS:
            raise PayloadTooLarge("a part's headers are too large", code="malformed-multipart")
        raise _malformed("a part's headers do not end")
    headers = _headers(body[line_end + 2 : head_end])
    return Part(_name(headers), headers.get(b"content-type", b""), body[head_end + 4 : end])


def _headers(lines: bytes) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n") if lines else []:
        match = _HEADER.fullmatch(line)
        if match is None or match[1].lower() in headers:
            raise _malformed("a part's header is not one, or comes twice")
        headers[match[1].lower()] = match[2].rstrip(b" \t")
    return headers


def _name(headers: dict[bytes, bytes]) -> str:
    split = headers.get(b"content-disposition", b"").partition(b";")
    name = _parameters(split).get(b"name", b"")
    if split[0].strip().lower() != b"form-data" or not name:
        raise _malformed("a part has no name")
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise _malformed("a part's name is not text") from None


def _parameters(split: tuple[bytes, bytes, bytes]) -> dict[bytes, bytes]:
    """`a; b=c; d="e"`, cut at its first semicolon -> {b: c, d: e}. Raises BadRequest."""
    text, found, at = split[1] + split[2], {}, 0
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            raise _malformed("a header's parameters cannot be read")
        name, quoted, token = match.groups()
        if name.lower() in found:
            raise _malformed("a header's parameter comes twice")
        found[name.lower()] = token if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)
        at = match.end()
    return found


def _malformed(detail: str) -> BadRequest:
    return BadRequest(f"multipart: {detail}", code="malformed-multipart")
