"""Content types, encodings and Accept, without a house."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any

import msgspec
import pytest
from PIL import Image as Pillow

import headrace
from headrace.errors import BadRequest, Invalid, NotAcceptable, PayloadTooLarge, Refusal
from headrace.gateway.read import check_accept, read_input
from headrace.httpapi.body import decompress
from headrace.schema import Reader
from headrace.signature import json_schema


class Request:
    def __init__(self, body: bytes, content_type: bytes | None, **headers: bytes) -> None:
        self.body = body
        self.headers = {n.replace("_", "-").encode(): v for n, v in headers.items()}
        if content_type is not None:
            self.headers[b"content-type"] = content_type


class Row(msgspec.Struct):
    image: headrace.Image
    text: str | None = None
    number: float = 0.0
    tags: list[str] = []


def png() -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (2, 2)).save(out, "PNG")
    return out.getvalue()


PNG = png()
FORM = b"multipart/form-data; boundary=b"


def form(**fields: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    return b"".join(head % (n.encode(), v) for n, v in fields.items()) + b"--b--"


def read(kind: Any, body: bytes, content_type: bytes | None, **headers: bytes) -> Any:
    request: Any = Request(body, content_type, **headers)
    return msgspec.msgpack.decode(read_input(request, Reader(json_schema(kind)), 1000))


def test_json() -> None:
    for kind in (b"application/json", b"application/json; charset=utf-8", b"Application/JSON"):
        assert read(list[int], b"[1, 2]", kind) == [1, 2]


def test_images() -> None:
    for kind in (b"image/png", b"image/jpeg", b"image/webp", b"IMAGE/PNG; a=b"):
        assert read(headrace.Image, PNG, kind) == PNG
    assert read(headrace.Image, form(any=PNG), FORM) == PNG


def test_forms() -> None:
    value = read(Row, form(image=PNG, text=b"5", number=b"1.5", tags=b'["a"]'), FORM)
    assert value == {"image": PNG, "text": "5", "number": 1.5, "tags": ["a"]}


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"[]", None, 415), (b"[]", b"", 415), (b"[]", b"text/json", 415),
        (b"[]", b"application/x-python-pickle", 415), (PNG, b"image/gif", 415),
        (PNG, b"image/png", 415), (b"", b"application/json", 400),
        (b"[", b"application/json", 400), (form(image=PNG, other=b""), FORM, 422),
        (form(text=b"a"), FORM, 422), (form(image=b"x"), FORM, 415),
        (form(image=PNG, number=b"x"), FORM, 422), (form(image=PNG, text=b"\xff"), FORM, 422),
        (form(image=PNG, tags=b"[" * 100_000), FORM, 400),
        (form(image=PNG, tags=b'[{"a":1,"a":2}]'), FORM, 400),
        (b"", FORM, 400),
    ],
)  # fmt: skip
def test_refused(body: bytes, content_type: bytes | None, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        read(Row, body, content_type)
    assert caught.value.status == status


def test_one_image_one_part() -> None:
    with pytest.raises(Invalid):
        read(headrace.Image, form(a=PNG, b=PNG), FORM)
    with pytest.raises(Invalid):
        read(headrace.Image, b"--b--", FORM)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
@pytest.mark.parametrize(("size", "fits"), [(999, 1), (1000, 1), (1001, 0), (5_000_000, 0)])
def test_decompress(pack: Any, size: int, fits: int) -> None:
    packed = pack(bytes(size))
    if fits:
        assert decompress(packed, b"GZIP ", 1000) == bytes(size)
    else:
        with pytest.raises(PayloadTooLarge) as caught:
            decompress(packed, b"gzip", 1000)
        assert caught.value.code == "decompressed-too-large"


def test_decompress_nothing() -> None:
    assert decompress(b"x", b"identity", 10) == b"x"


PACKED = gzip.compress(b"hello", mtime=0)  # it names the tests


@pytest.mark.parametrize(
    ("encoding", "status"),
    [(b"br", 415), (b"gzip, gzip", 415), (b"", 415), (b"x-gzip", 415), (b"zstd", 415)],
)
def test_encodings_unknown(encoding: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        decompress(PACKED, encoding, 1000)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "body", [b"", b"hello", PACKED[:-1], PACKED[:5], PACKED + b"x", PACKED * 2, b"\x1f\x8b"]
)
def test_encodings_malformed(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        decompress(body, b"gzip", 1000)
    assert caught.value.code == "malformed-encoding"


@pytest.mark.parametrize(
    "accept",
    [None, b"", b"*/*", b"application/json", b"application/*", b"text/html, */*;q=0.1",
     b"APPLICATION/JSON", b"application/json; q=1.0", b"application/json;q=0.001",
     b"text/html,application/json;v=0"],
)  # fmt: skip
def test_accept(accept: bytes | None) -> None:
    check_accept(accept)


@pytest.mark.parametrize(
    "accept",
    [b"text/html", b"application/json;q=0", b"application/json; q=0.0", b"*/*;q=0.000", b"json",
     b"image/*, text/*", b",", b"application/jsonx", b"application/json ; q = 0"],
)  # fmt: skip
def test_not_acceptable(accept: bytes) -> None:
    with pytest.raises(NotAcceptable):
        check_accept(accept)
