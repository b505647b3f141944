"""B23 to B26: paths, methods, heads and framing, on raw sockets. What follows bad framing is never
read as a request."""

from __future__ import annotations

import asyncio
import random
import re
import time

import pytest
from wire import GOOD, LIVE, MARK, HouseUnderTest, check_no_leak, check_problem

CANARY = b"GET /health/live?canary HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /models/numbers/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /health/live HTTP/1.1\r\n"
H = b"Host: x\r\n"


def sized(value: bytes) -> bytes:
    return POST + b"Content-Length: " + value + b"\r\n\r\n" + GOOD


def coded(value: bytes) -> bytes:
    return POST + b"Transfer-Encoding: " + value + b"\r\n\r\nb\r\n" + GOOD + b"\r\n0\r\n\r\n"


BAD_FRAMING = {
    "cl-te": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "te-cl": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "cl-te-spaced": POST + b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "cl-te-tab": POST + b"Content-Length: 5\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
    "cl-te-case": POST + b"content-LENGTH: 5\r\ntRANSFER-encoding: CHUNKED\r\n\r\n0\r\n\r\n",
    "cl-te-folded": POST + b"Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "cl-te-identity": POST + b"Content-Length: 11\r\nTransfer-Encoding: identity\r\n\r\n" + GOOD,
    "cl-twice-same": POST + b"Content-Length: 11\r\nContent-Length: 11\r\n\r\n" + GOOD,
    "cl-twice-other": POST + b"Content-Length: 11\r\nContent-Length: 0\r\n\r\n" + GOOD,
    "cl-list": sized(b"11, 11"),
    "cl-plus": sized(b"+11"),
    "cl-minus": sized(b"-1"),
    "cl-minus-0": sized(b"-0"),
    "cl-hex": sized(b"0xb"),
    "cl-spaced": sized(b"1 1"),
    "cl-empty": sized(b""),
    "cl-point": sized(b"11.0"),
    "cl-exponent": sized(b"1e1"),
    "cl-underscore": sized(b"1_1"),
    "cl-text": sized(b"eleven"),
    "cl-quoted": sized(b'"11"'),
    "cl-semicolon": sized(b"11;"),
    "cl-nul": sized(b"11\0"),
    "cl-huge": sized(b"9" * 60),
    "cl-2^64": sized(b"18446744073709551616"),
    "cl-4300-digits": sized(b"1" * 5000),
    "cl-vertical-tab": sized(b"\x0b11"),
    "te-unknown": coded(b"xchunked"),
    "te-suffix": coded(b"chunkedx"),
    "te-list": coded(b"gzip, chunked"),
    "te-list-reversed": coded(b"chunked, gzip"),
    "te-twice-in-list": coded(b"chunked, chunked"),
    "te-identity": coded(b"identity"),
    "te-empty": coded(b""),
    "te-comma": coded(b",chunked"),
    "te-trailing-comma": coded(b"chunked,"),
    "te-quoted": coded(b'"chunked"'),
    "te-parameter": coded(b"chunked;q=1"),
    "te-vertical-tab": coded(b"\x0bchunked"),
    "te-nul": coded(b"chunked\0"),
    "te-twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "te-twice-other": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "te-in-1.0": coded(b"chunked").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "te-in-1.0-kept": coded(b"chunked\r\nConnection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "chunk-hex-prefix": CHUNKED + b"0xb\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-plus": CHUNKED + b"+b\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-minus": CHUNKED + b"-b\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-space-before": CHUNKED + b" b\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-space-after": CHUNKED + b"b \r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-underscore": CHUNKED + b"0_b\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-empty": CHUNKED + b"\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-not-hex": CHUNKED + b"g\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-2^64": CHUNKED + b"1000000000000000b\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-bare-lf-size": CHUNKED + b"b\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-bare-cr-size": CHUNKED + b"b\r" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-bare-lf-data": CHUNKED + b"b\r\n" + GOOD + b"\n0\r\n\r\n",
    "chunk-no-terminator": CHUNKED + b"b\r\n" + GOOD + b"0\r\n\r\n",
    "chunk-wrong-terminator": CHUNKED + b"b\r\n" + GOOD + b"XX0\r\n\r\n",
    "chunk-too-short": CHUNKED + b"5\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-bare-lf-end": CHUNKED + b"b\r\n" + GOOD + b"\r\n0\n\n",
    "chunk-bare-lf-after-end": CHUNKED + b"b\r\n" + GOOD + b"\r\n0\r\n\n",
    "chunk-lf-in-extension": CHUNKED + b"b;a\n\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "chunk-cr-in-extension": CHUNKED + b'b;a="\r"\r\n' + GOOD + b"\r\n0\r\n\r\n",
    "trailer-with-length": CHUNKED + b"b\r\n" + GOOD + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "trailer-with-encoding": CHUNKED + b"b\r\n" + GOOD + b"\r\n0\r\nTransfer-Encoding: x\r\n\r\n",
    "trailer-folded": CHUNKED + b"b\r\n" + GOOD + b"\r\n0\r\nX: a\r\n b\r\n\r\n",
    "trailer-bad-name": CHUNKED + b"b\r\n" + GOOD + b"\r\n0\r\nX : a\r\n\r\n",
    "bare-lf-everywhere": (GET + H + b"\r\n").replace(b"\r\n", b"\n"),
    "bare-lf-request-line": b"GET /health/live HTTP/1.1\n" + H + b"\r\n",
    "bare-lf-header": GET + b"Host: x\n\r\n",
    "bare-lf-end": GET + H + b"\n",
    "bare-cr-header": GET + b"Host: x\rA: b\r\n\r\n",
    "cr-in-value": GET + H + b"A: b\rc\r\n\r\n",
    "lf-in-value": GET + H + b"A: b\nTransfer-Encoding: chunked\r\n\r\n",
    "nul-in-value": GET + H + b"A: b\0c\r\n\r\n",
    "control-in-value": GET + H + b"A: b\x01c\r\n\r\n",
    "delete-in-value": GET + H + b"A: b\x7fc\r\n\r\n",
    "obs-fold-space": GET + H + b"A: b\r\n c\r\n\r\n",
    "obs-fold-tab": GET + H + b"A: b\r\n\tc\r\n\r\n",
    "space-before-first-header": GET + b" " + H + b"\r\n",
    "space-before-colon": GET + b"Host : x\r\n\r\n",
    "tab-before-colon": GET + b"Host\t: x\r\n\r\n",
    "no-colon": GET + H + b"Abc\r\n\r\n",
    "empty-name": GET + H + b": b\r\n\r\n",
    "name-with-parenthesis": GET + H + b"A(b: c\r\n\r\n",
    "name-with-slash": GET + H + b"A/b: c\r\n\r\n",
    "name-with-nul": GET + H + b"A\0b: c\r\n\r\n",
    "name-not-ascii": GET + H + b"A\xffb: c\r\n\r\n",
    "name-quoted": GET + H + b'"A": c\r\n\r\n',
    "no-host": GET + b"\r\n",
    "two-hosts": GET + H + H + b"\r\n",
    "two-content-types": sized(b"11").replace(H, H + b"Content-Type: image/png\r\n"),
    "http-0.9": b"GET /health/live\r\n\r\n",
    "http-0.9-with-headers": b"GET /health/live\r\n" + H + b"\r\n",
    "http-0.9-said": b"GET /health/live HTTP/0.9\r\n" + H + b"\r\n",
    "http-1.2": b"GET /health/live HTTP/1.2\r\n" + H + b"\r\n",
    "http-2.0": b"GET /health/live HTTP/2.0\r\n" + H + b"\r\n",
    "http-2.0-kept": b"GET /health/live HTTP/2.0\r\nConnection: keep-alive\r\n" + H + b"\r\n",
    "http-11": b"GET /health/live HTTP/11\r\n" + H + b"\r\n",
    "http-1.10": b"GET /health/live HTTP/1.10\r\n" + H + b"\r\n",
    "http-lower-case": b"GET /health/live http/1.1\r\n" + H + b"\r\n",
    "http-space-after": b"GET /health/live HTTP/1.1 \r\n" + H + b"\r\n",
    "http-2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "space-in-path": b"GET /health /live HTTP/1.1\r\n" + H + b"\r\n",
    "tab-in-path": b"GET /health\t/live HTTP/1.1\r\n" + H + b"\r\n",
    "nul-in-path": b"GET /health/\0live HTTP/1.1\r\n" + H + b"\r\n",
    "control-in-path": b"GET /health/\x01live HTTP/1.1\r\n" + H + b"\r\n",
    "bytes-in-path": b"GET /health/\xc0\xaflive HTTP/1.1\r\n" + H + b"\r\n",
    "no-path": b"GET HTTP/1.1\r\n" + H + b"\r\n",
    "relative-path": b"GET health/live HTTP/1.1\r\n" + H + b"\r\n",
    "authority-form": b"GET x:80 HTTP/1.1\r\n" + H + b"\r\n",
    "bytes-after-a-body": sized(b"11") + b"\0\0\0\0",
}  # fmt: skip


@pytest.mark.parametrize("data", BAD_FRAMING.values(), ids=BAD_FRAMING.keys())
def test_b26_bad_framing(house: HouseUnderTest, data: bytes) -> None:
    """Whole in one write: an answer with 400 (or an unknown method), the end, and no canary."""
    with house.wire() as wire:
        wire.send(data + CANARY)
        answers = _all_answers(wire)
        last = answers[-1]
        assert last.status in (400, 501), answers
        check_problem(last, last.status, last.json()["code"])
        assert last.json()["code"] in ("bad-request-framing", "method-not-allowed")
        assert last.headers["connection"] == "close"
        assert not any(b'"live"' in a.body for a in answers)
        assert len(answers) == (2 if b"11\r\n\r\n[1, 2, 3.5]\0" in data else 1)


@pytest.mark.parametrize("data", BAD_FRAMING.values(), ids=BAD_FRAMING.keys())
def test_b26_bad_framing_behind_a_good_request(house: HouseUnderTest, data: bytes) -> None:
    with house.wire() as wire:
        wire.send(sized(b"11") + data + CANARY)
        first, *others = _all_answers(wire)
        assert first.json()["result"] == 6.5
        assert others[-1].status in (400, 501)
        assert not any(b'"live"' in a.body for a in others)


def _all_answers(wire: object) -> list:  # type: ignore[type-arg]
    answers = []
    try:
        while True:
            answers.append(wire.answer())  # type: ignore[attr-defined]
    except EOFError:
        return answers


SPLIT = ["cl-te", "te-list", "chunk-no-terminator", "obs-fold-space", "bare-lf-end", "two-hosts"]


@pytest.mark.parametrize("name", SPLIT)
def test_b26_byte_by_byte(house: HouseUnderTest, name: str) -> None:
    with house.wire() as wire:
        for at in range(len(BAD_FRAMING[name])):
            try:
                wire.send(BAD_FRAMING[name][at : at + 1])
            except OSError:
                break
        answers = _all_answers(wire)
        assert [a.status for a in answers] == [400]


def test_good_requests_in_a_row_are_answered_in_order(house: HouseUnderTest) -> None:
    slow = POST + b"Content-Length: 12\r\n\r\n[-1000, 100]"
    with house.wire() as wire:
        wire.send(slow + LIVE + coded(b"chunked") + b"\r\n" + LIVE + sized(b"11 "))
        results = [wire.answer().json() for _ in range(5)]
    assert results[0]["result"] == -900
    assert results[1] == results[3] == {"live": True}
    assert results[2]["result"] == results[4]["result"] == 6.5


def test_a_hundred_requests_at_once(house: HouseUnderTest) -> None:
    with house.wire() as wire:
        wire.send((LIVE + sized(b"11")) * 100)
        for _ in range(100):
            assert wire.answer().json() == {"live": True}
            assert wire.answer().json()["result"] == 6.5


def test_a_request_byte_by_byte(house: HouseUnderTest) -> None:
    with house.wire() as wire:
        for byte in coded(b"chunked"):
            wire.send(bytes([byte]))
        assert wire.answer().json()["result"] == 6.5


def test_trailers_are_not_headers(house: HouseUnderTest) -> None:
    """Not of this request, and above all not of the next."""
    body = b"b\r\n" + GOOD + b"\r\n0\r\nHeadrace-Deadline-Ms: 0\r\nX-Request-Id: stolen\r\n\r\n"
    with house.wire() as wire:
        wire.send(CHUNKED + body + sized(b"11"))
        for _ in range(2):
            answer = wire.answer()
            assert answer.status == 200
            assert answer.headers["x-request-id"] != "stolen"


@pytest.mark.parametrize("head", [b"Connection: close\r\n", b"Connection: Close, x\r\n"])
def test_what_follows_the_last_request_is_not_read(house: HouseUnderTest, head: bytes) -> None:
    for first in (sized(b"11").replace(H, H + head), GET + H + head + b"\r\n"):
        with house.wire() as wire:
            wire.send(first + CANARY)
            (answer,) = _all_answers(wire)
            assert answer.status == 200
            assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("kept", [b"", b"Connection: keep-alive\r\n"])
def test_http_1_0(house: HouseUnderTest, kept: bytes) -> None:
    with house.wire() as wire:
        wire.send(b"GET /health/live HTTP/1.0\r\n" + kept + b"\r\n" + CANARY)
        (answer,) = _all_answers(wire)
        assert answer.json() == {"live": True}
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_upgrades_are_not_made(house: HouseUnderTest, upgrade: bytes) -> None:
    """The request is answered as if none were offered, its body read."""
    head = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAM\r\nUpgrade: " + upgrade
    get, post = (each.replace(H, H + head + b"\r\n") for each in (LIVE, sized(b"11")))
    for whole in (True, False):
        with house.wire() as wire:
            for piece in [get + post + LIVE] if whole else [get, post[:-4], post[-4:], LIVE]:
                wire.send(piece)
                time.sleep(0.02)
            assert wire.answer().json() == {"live": True}
            assert wire.answer().json()["result"] == 6.5
            assert wire.answer().json() == {"live": True}


def test_upgrade_with_chunks_and_no_end(house: HouseUnderTest) -> None:
    head = H + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    with house.wire() as wire:
        wire.send(coded(b"chunked").replace(H, head))
        assert wire.answer().json()["result"] == 6.5
        wire.send(LIVE.replace(H, head) * 3000)
        answers = _all_answers(wire)
        assert [a.status for a in answers] == [200] * 7 + [400]
        check_problem(answers[-1], 400, "bad-request-framing")


# -- B23, B24 ------------------------------------------------------------------------------------

PATHS = [
    "/nothing", "/models/", "/models/none", "/models/none/predict", "/models/none/predict-many",
    "/models/numbers/", "/models/numbers/predict/", "/models/numbers/predictx",
    "/models/numbers/predict/../predict", "/models/../models/numbers/predict", "//models/numbers",
    "/models//numbers/predict", "/models/numbers//predict", "/models/numbers%2fpredict",
    "/models/%6eumbers/predict", "/models/numbers/predict%00", "/models/numbers/predict%c0%af",
    "/models/%2e%2e/predict", "/models/./numbers", "/health/live/", "/health/", "/HEALTH/LIVE",
    "/models/numbers/predict;x=1", "/models/numbers/predict:x", "/metrics/", "/docs/../metrics",
    "/.git/config", "/..%5c..%5cwindows", "/models/%25%30%30", "/health/live%20",
    "/models/" + "a" * 5000, "http://x/health/live", "*", "/models/numbers#x", "/v2x",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_b23_paths(house: HouseUnderTest, path: str, method: str) -> None:
    with house.wire() as wire:
        wire.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]".encode())
        answer = wire.answer()
        if answer.status == 405:  # the path of another method
            check_problem(answer, 405, "method-not-allowed")
        elif answer.status == 400:
            check_problem(answer, 400, "bad-request-framing")
        else:
            code = answer.json()["code"]
            assert code in ("not-found", "model-not-found")
            check_problem(answer, 404, code)
            wire.send(LIVE)  # what was refused whole costs nobody the connection
            assert wire.answer().json() == {"live": True}


METHODS = {
    ("GET", "/models/numbers/predict"): (405, "POST"),
    ("PUT", "/models/numbers/predict"): (405, "POST"),
    ("DELETE", "/models/numbers/predict"): (405, "POST"),
    ("OPTIONS", "/models/numbers/predict"): (405, "POST"),
    ("HEAD", "/models/numbers/predict"): (405, "POST"),
    ("TRACE", "/models/numbers/predict"): (405, "POST"),
    ("PROPFIND", "/models/numbers/predict"): (405, "POST"),
    ("GET", "/models/numbers/predict-many"): (405, "POST"),
    ("POST", "/health/live"): (405, "GET, HEAD"),
    ("POST", "/models"): (405, "GET, HEAD"),
    ("DELETE", "/models/numbers"): (405, "GET, HEAD"),
    ("TRACE", "/"): (405, "GET, HEAD"),
    ("POST", "/metrics"): (405, "GET, HEAD"),
    ("PATCH", "/openapi.json"): (405, "GET, HEAD"),
    ("FOO", "/health/live"): (501, None),
    ("get", "/health/live"): (501, None),
    ("GETX", "/health/live"): (501, None),
    ("G=T", "/health/live"): (501, None),
}


@pytest.mark.parametrize(
    ("request_line", "want"), METHODS.items(), ids=[f"{m}-{p}" for m, p in METHODS]
)
def test_b24_methods(
    house: HouseUnderTest, request_line: tuple[str, str], want: tuple[int, str | None]
) -> None:
    method, path = request_line
    with house.wire() as wire:
        wire.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        answer = wire.answer(method)
        assert answer.status == want[0]
        assert answer.headers.get("allow") == want[1]
        if method != "HEAD":
            check_problem(answer, want[0], "method-not-allowed")


def test_b24_connect(house: HouseUnderTest) -> None:
    with house.wire() as wire:
        wire.send(b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n" + CANARY)
        (answer,) = _all_answers(wire)
        assert answer.status in (400, 404, 405)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/models", "/docs", "/metrics"])
def test_b24_head_is_get_without_its_body(house: HouseUnderTest, path: str) -> None:
    with house.wire() as wire:
        wire.send(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + LIVE)
        head = wire.answer("HEAD")
        assert (head.status, head.body) == (200, b"")
        assert int(head.headers["content-length"]) > 0
        assert wire.answer().json() == {"live": True}


# -- B25 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "status"), [(8191, 404), (8192, 404), (8193, 414), (60_000, 414)])
@pytest.mark.parametrize("by", ["path", "query"])
def test_b25_uri(house: HouseUnderTest, size: int, status: int, by: str) -> None:
    start = b"/x/" if by == "path" else b"/x?"
    with house.wire() as wire:
        wire.send(b"GET " + start + b"a" * (size - 3) + b" HTTP/1.1\r\n" + H + b"\r\n")
        answer = wire.answer()
        check_problem(answer, status, "not-found" if status == 404 else "uri-too-long")


@pytest.mark.parametrize("pause", [False, True])
def test_b25_endless_uri(house: HouseUnderTest, *, pause: bool) -> None:
    with house.wire() as wire:
        for _ in range(10):
            wire.send(b"GET /" + b"a" * 2000 if _ == 0 else b"a" * 2000)
            time.sleep(0.01 * pause)
        check_problem(wire.answer(), 414, "uri-too-long")


@pytest.mark.parametrize(("size", "status"), [(8191, 200), (8192, 200), (8193, 431), (30_000, 431)])
def test_b25_header_size(house: HouseUnderTest, size: int, status: int) -> None:
    with house.wire() as wire:
        wire.send(GET + H + b"X-Long: " + b"a" * (size - 6) + b"\r\n\r\n")
        answer = wire.answer()
        assert answer.status == status
        if status == 431:
            check_problem(answer, 431, "headers-too-large")
            assert wire.rest() == b""


@pytest.mark.parametrize(("count", "status"), [(99, 200), (100, 200), (101, 431), (5000, 431)])
@pytest.mark.parametrize("same", [False, True])
def test_b25_header_count(house: HouseUnderTest, count: int, status: int, *, same: bool) -> None:
    lines = b"".join(b"X-%d: y\r\n" % (0 if same else n) for n in range(count - 1))
    with house.wire() as wire:
        wire.send(GET + H + lines + b"\r\n")
        assert wire.answer().status == status


def test_b25_endless_header(house: HouseUnderTest) -> None:
    before = house.resident_mb()
    with house.wire() as wire:
        wire.send(GET + H + b"X: ")
        try:
            for _ in range(1000):
                wire.send(b"a" * 10_000)
        except OSError:
            pass
        check_problem(wire.answer(), 431, "headers-too-large")
    assert house.resident_mb() - before < 20


NOT_HTTP = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "nuls": bytes(1000),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "smtp": b"EHLO " + MARK.encode() + b"\r\n",
    "text": MARK.encode() * 100,
    "proxy-protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
}


@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP.keys())
def test_not_http(house: HouseUnderTest, data: bytes) -> None:
    with house.wire() as wire:
        wire.send(data + CANARY)
        answer = wire.answer()
        assert answer.status in (400, 501)
        check_no_leak(answer)
        assert wire.rest() == b""


# -- fuzz ----------------------------------------------------------------------------------------

SEEDS = [
    sized(b"11"),
    coded(b"chunked"),
    LIVE + LIVE,
    GET + H + b"Accept: */*\r\n\r\n",
    b"POST /models/person/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 23\r\n\r\n{"name": "a", "age": 4}',
    b"POST /models/numbers/predict-many HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 10\r\n\r\n[[1], [2]]",
    b"POST /models/photo/predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; "
    b'boundary=b\r\nContent-Length: 62\r\n\r\n--b\r\nContent-Disposition: form-data; name="i"'
    b"\r\n\r\nGIF89a\r\n--b--",
    b"GET /models/numbers HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n" + LIVE,
]
PIECES = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"0", b"\r\n\r\n", b"%00", b"\xff", b",",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1", b"{", b"[", b'"',
    b"Expect: 100-continue\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n", b"9" * 30,
]  # fmt: skip


def mutated(random_: random.Random) -> bytes:
    data = bytearray(random_.choice(SEEDS))
    for _ in range(random_.randint(1, 5)):
        at, way = random_.randrange(len(data) + 1), random_.randrange(5)
        if way == 0 and at < len(data):
            data[at] = random_.randrange(256)
        elif way == 1:
            del data[at : at + random_.randint(1, 20)]
        elif way == 2:
            data[at:at] = random_.choice(PIECES)
        elif way == 3:
            data[at:at] = data[at : at + random_.randint(1, 60)]
        else:
            data[at:at] = random_.choice(SEEDS)[: random_.randint(1, 200)]
        data = data or bytearray(b"\r")
    return bytes(data)


async def one(port: int, data: bytes) -> tuple[bytes, bytes]:
    """Sent, given a moment, ended: the house must close within 2 s."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        writer.write(data)
        try:
            got = await asyncio.wait_for(reader.read(65536), 0.1)
        except TimeoutError:
            writer.write_eof()
        if got:
            writer.write_eof()
        got += await asyncio.wait_for(reader.read(), 2.0)
    except ConnectionError:
        pass
    finally:
        writer.close()
    return data, got


async def test_2000_mutated_requests(house: HouseUnderTest) -> None:
    random_ = random.Random(11)
    seen: dict[bytes, int] = {}
    for _ in range(2000 // 40):
        for data, got in await asyncio.gather(
            *(one(house.port, mutated(random_)) for _ in range(40))
        ):
            status = got[9:12]
            seen[status] = seen.get(status, 0) + 1
            for each in re.findall(rb"HTTP/1\.1 (\d{3})", got):
                assert each[:1] in b"124" or each == b"501", (data, got)
    assert seen.get(b"200", 0) > 100 and seen.get(b"400", 0) > 100, seen
    assert house.request("GET", "/health/ready").status == 200
