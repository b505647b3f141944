"""multipart/form-data -> parts, within limits that are checked before any work is done."""

from __future__ import annotations

from typing import Any, NamedTuple

from headrace.errors import BadRequest, PayloadTooLarge

MAX_PARTS = 64
MAX_PART_HEADERS = 4_096
MAX_BOUNDARY = 70  # RFC 2046


class Part(NamedTuple):
    """One field. A file name, where there is one, is not kept: nothing here may depend on it."""

    name: str
    content_type: bytes
    data: bytes


def parts(body: bytes, content_type: bytes) -> list[Part]:
    """Raises BadRequest (400 malformed-multipart) or PayloadTooLarge (413)."""
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import MultipartParser, parse_options_header

    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary or len(boundary) > MAX_BOUNDARY:
        raise _malformed("the boundary is missing or too long")
    if body.count(b"--" + boundary) > MAX_PARTS + 1:
        raise PayloadTooLarge(f"more than {MAX_PARTS} parts", code="malformed-multipart")
    # The library walks a preamble byte by byte; nobody sends one, so it is skipped in one step.
    start = body.find(b"--" + boundary)
    if start < 0:
        raise _malformed("the boundary does not occur in the body")
    collected = _Collector()
    parser = MultipartParser(boundary, collected.callbacks())  # type: ignore[arg-type]
    end = body.rfind(b"--" + boundary + b"--")
    if end < 0:
        raise _malformed("the closing boundary is missing")
    try:
        parser.write(body[start : end + len(boundary) + 4] + b"\r\n")
        parser.finalize()
    except MultipartParseError as error:
        raise _malformed(str(error)) from None
    return [_part(headers, data, parse_options_header) for headers, data in collected.found]


def _part(headers: dict[bytes, bytes], data: bytes, parse_options: Any) -> Part:
    disposition, options = parse_options(headers.get(b"content-disposition", b""))
    name = options.get(b"name", b"")
    if disposition != b"form-data" or not name:
        raise _malformed("a part has no name")
    try:
        return Part(name.decode(), headers.get(b"content-type", b""), data)
    except UnicodeDecodeError:
        raise _malformed("a part's name is not text") from None


def _malformed(detail: str) -> BadRequest:
    return BadRequest(f"multipart: {detail}", code="malformed-multipart")


class _Collector:
    """Gathers what the parser calls back with."""

    def __init__(self) -> None:
        self.found: list[tuple[dict[bytes, bytes], bytes]] = []
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._name, self._value, self._size = b"", b"", 0

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda d, a, z: self._pieces.append(d[a:z]),
            "on_part_end": self._end,
            "on_header_field": self._field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
        }

    def _begin(self) -> None:
        self._headers, self._pieces, self._size = {}, [], 0

    def _end(self) -> None:
        self.found.append((self._headers, b"".join(self._pieces)))

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MAX_PART_HEADERS:
            raise PayloadTooLarge("a part's headers are too large", code="malformed-multipart")

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""
