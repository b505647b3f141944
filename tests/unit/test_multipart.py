"""Forms: what httpx writes is read back; what nobody should write is refused."""

from __future__ import annotations

import contextlib
import random
import time

import httpx
import pytest

from headrace.errors import BadRequest, PayloadTooLarge, Refusal
from headrace.gateway.multipart import MAX_PART_HEADERS, MAX_PARTS, Part, parts

FORM = b"multipart/form-data; boundary=b"


def part(name: bytes, data: bytes = b"", more: bytes = b"") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name, more, data)


def test_what_httpx_writes() -> None:
    files = {"a": ('x".jpg', b"\r\n--\0\xff", "image/jpeg"), "b": (None, b"")}
    request = httpx.Request("POST", "http://x", files=files, data={"ä": "é"})
    got = parts(request.read(), request.headers["content-type"].encode())
    assert got == [
        Part("ä", b"", "é".encode()),
        Part("a", b"image/jpeg", b"\r\n--\0\xff"),
        Part("b", b"", b""),
    ]


@pytest.mark.parametrize("data", [b"", b"\r\n", b"--c", b"\r\n--", b"\r\n--c", b"x" * 100_000])
def test_data_is_kept_as_it_is(data: bytes) -> None:
    assert parts(part(b"a", data) + b"--b--", FORM) == [Part("a", b"", data)]


@pytest.mark.parametrize(
    "content_type",
    [
        b'multipart/form-data; boundary="b"',
        b"multipart/form-data;boundary=b",
        b"multipart/form-data; charset=utf-8; BOUNDARY=b ",
        b'multipart/form-data; boundary="\\b"',
    ],
)
def test_boundaries(content_type: bytes) -> None:
    assert len(parts(part(b"a") + b"--b--", content_type)) == 1


def test_names() -> None:
    assert parts(part(b'a\\"b') + b"--b--", FORM)[0].name == 'a"b'
    body = b"--b\r\ncontent-DISPOSITION:form-data;name=a\r\n\r\nx\r\n--b--"
    assert parts(body, FORM) == [Part("a", b"", b"x")]


def test_around_the_parts() -> None:
    body = b"preamble --b\r\n" + part(b"a") + b"--b--" + b"\r\n--b\r\nepilogue"
    assert len(parts(b"\r\n".join([b"", body]), FORM)) == 1
    assert parts(b"--b--", FORM) == []


@pytest.mark.parametrize(
    ("count", "fits"), [(MAX_PARTS - 1, 1), (MAX_PARTS, 1), (MAX_PARTS + 1, 0)]
)
def test_how_many(count: int, fits: int) -> None:
    body = b"".join(part(b"%d" % n) for n in range(count)) + b"--b--"
    if fits:
        assert len(parts(body, FORM)) == count
    else:
        with pytest.raises(PayloadTooLarge):
            parts(body, FORM)


@pytest.mark.parametrize(("size", "fits"), [(0, 1), (1, 0)])
def test_how_large_headers(size: int, fits: int) -> None:
    head = b"Content-Disposition: form-data; name=a\r\nX: "
    head += b"x" * (MAX_PART_HEADERS - len(head) - 2 + size)
    body = b"--b\r\n" + head + b"\r\n\r\ndata" + b"y" * 10_000 + b"\r\n--b--"
    if fits:
        assert len(parts(body, FORM)) == 1
    else:
        with pytest.raises(PayloadTooLarge):
            parts(body, FORM)


BAD = {
    "empty": b"",
    "only-delimiter": b"--b",
    "not-closed": part(b"a"),
    "no-name": b"--b\r\nContent-Disposition: form-data\r\n\r\n\r\n--b--",
    "empty-name": part(b"") + b"--b--",
    "not-form-data": part(b"a").replace(b"form-data", b"attachment") + b"--b--",
    "no-headers": b"--b\r\n\r\nx\r\n--b--",
    "two-names": part(b"a", b"", b"; name=b") + b"--b--",
    "two-dispositions": b"--b\r\n"
    + b"Content-Disposition: form-data; name=a\r\n" * 2
    + b"\r\nx\r\n--b--",
    "open-quote": part(b"a", b"", b'; filename="') + b"--b--",
    "not-utf-8": part(b"\xff") + b"--b--",
    "header-without-colon": b"--b\r\nabc\r\n\r\nx\r\n--b--",
    "longer-boundary": part(b"a").replace(b"--b", b"--bb", 1) + b"--b--",
    "bare-lf": part(b"a").replace(b"\r\n", b"\n") + b"--b--",
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_malformed(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parts(body, FORM)
    assert caught.value.code == "malformed-multipart"


@pytest.mark.parametrize(
    "content_type",
    [b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary",
     b"multipart/form-data; boundary=" + b"b" * 71, b'multipart/form-data; boundary="b',
     b"multipart/form-data; boundary=b; boundary=b", b'multipart/form-data; boundary="b "',
     b"multipart/form-data; boundary=\xff", b"multipart/form-data; boundary=b\0"],
)  # fmt: skip
def test_bad_boundaries(content_type: bytes) -> None:
    with pytest.raises(BadRequest):
        parts(part(b"a") + b"--b--", content_type)


def test_mutations_are_read_or_refused() -> None:
    random_ = random.Random(3)
    seed = part(b"a", b"data", b'; filename="x"') + part(b"b", b"\r\n--") + b"--b--\r\n"
    pieces = [b"\r\n", b"--b", b"--", b'"', b";", b"\\", b"\0", b":", b"name=", b"\r\n\r\n"]
    for _ in range(5000):
        body = bytearray(seed)
        for _ in range(random_.randint(1, 5)):
            at = random_.randrange(len(body) + 1)
            if random_.random() < 0.5:
                del body[at : at + random_.randint(1, 10)]
            else:
                body[at:at] = random_.choice(pieces)
        with contextlib.suppress(BadRequest, PayloadTooLarge):
            parts(bytes(body), FORM)


@pytest.mark.parametrize("fill", [b"\r\n", b"\r", b"-", b"\r\n--", b"\r\n--a", b'"', b"\\"])
def test_no_filling_is_slow(fill: bytes) -> None:
    """A 5 MB body of anything; per byte in Python it would take seconds."""
    flood = fill * (5_000_000 // len(fill))
    bodies = [part(b"a", flood) + b"--b--", flood + b"--b--", b"--b\r\n" + flood, flood]
    for body in bodies:
        began = time.process_time()
        with contextlib.suppress(Refusal):
            parts(body, FORM)
        assert time.process_time() - began < 0.5
    began = time.process_time()
    with pytest.raises(BadRequest):
        parts(b"", b'multipart/form-data; boundary="' + fill * (8000 // len(fill)))
    assert time.process_time() - began < 0.1
