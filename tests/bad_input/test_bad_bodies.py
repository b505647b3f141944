"""B4 to B9, B37 to B39: lengths, types, encodings, deadlines, forms, and clients that leave."""

from __future__ import annotations

import gzip
import io
import json
import time
import zlib

import pytest
from bad_limits import MAX_BODY
from PIL import Image as Pillow
from wire import GOOD, MARK, HouseUnderTest, check_problem, eventually

HEAD = b"POST /models/numbers/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def padded(size: int) -> bytes:
    return GOOD + b" " * (size - len(GOOD))


def chunked(body: bytes, size: int = 50_000) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def test_b4_no_length(house: HouseUnderTest) -> None:
    with house.wire() as wire:
        wire.send(HEAD + b"\r\n")
        check_problem(wire.answer(), 411, "length-required")
        assert wire.rest() == b""


def test_b5_declared_too_large_is_refused_before_the_body(house: HouseUnderTest) -> None:
    with house.wire() as wire:
        wire.send(HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (MAX_BODY + 1))
        check_problem(wire.answer(), 413, "payload-too-large")
        assert wire.rest() == b""


def test_b5_the_answer_reaches_a_client_that_sends_on(house: HouseUnderTest) -> None:
    with house.wire() as wire:
        wire.send(HEAD + b"Content-Length: 20000000\r\n\r\n")
        wire.send(bytes(20_000_000))
        check_problem(wire.answer(), 413, "payload-too-large")
        assert wire.rest() == b""


@pytest.mark.parametrize("size", [MAX_BODY - 1, MAX_BODY])
def test_b5_up_to_the_limit(house: HouseUnderTest, size: int) -> None:
    assert house.call("numbers", padded(size)).status == 200


def test_expect_100_continue(house: HouseUnderTest) -> None:
    with house.wire() as wire:
        wire.send(HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(GOOD))
        assert wire.answer().status == 100
        wire.send(GOOD)
        assert wire.answer().json()["result"] == 6.5


@pytest.mark.parametrize("size", [MAX_BODY - 1, MAX_BODY])
def test_b6_chunked_up_to_the_limit(house: HouseUnderTest, size: int) -> None:
    with house.wire() as wire:
        wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(padded(size)))
        assert wire.answer().json()["result"] == 6.5


def test_b6_chunked_one_over_the_limit(house: HouseUnderTest) -> None:
    with house.wire() as wire:
        wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(padded(MAX_BODY + 1)))
        check_problem(wire.answer(), 413, "payload-too-large")
        assert wire.rest() == b""


def test_b6_endless(house: HouseUnderTest) -> None:
    before = house.resident_mb()
    with house.wire() as wire:
        wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(3000):
                wire.send(b"8000\r\n" + bytes(0x8000) + b"\r\n")
        except OSError:
            return
        finally:
            assert house.resident_mb() - before < 20
    raise AssertionError("100 MB were taken")


FRAMING_FLOODS = {
    "extensions": b"1;" + b"a" * 200_000,
    "many-extensions": b"1;a=b\r\nx\r\n".replace(b"a=b", b"a=" + b"b" * 100) * 2000,
    "trailers": b"0\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)),
    "chunks-of-two": b"2\r\n  \r\n" * 50_000,
    "one-trailer": b"0\r\nX: " + b"y" * 200_000,
}


@pytest.mark.parametrize("flood", FRAMING_FLOODS.values(), ids=FRAMING_FLOODS.keys())
def test_b6_a_body_of_framing(house: HouseUnderTest, flood: bytes) -> None:
    with house.wire() as wire:
        wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        time.sleep(0.05)  # in a read of its own
        for at in range(0, len(flood), 20_000):
            wire.send(flood[at : at + 20_000])
            time.sleep(0.005)
        check_problem(wire.answer(), 413, "payload-too-large")
        assert wire.rest() == b""


@pytest.mark.parametrize(("size", "of"), [(5_000, 1), (MAX_BODY, 8)])
def test_b6_small_chunks_cost_no_memory(house: HouseUnderTest, size: int, of: int) -> None:
    before = house.resident_mb()
    with house.wire() as wire:
        wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        wire.send(chunked(padded(size), of))
        assert wire.answer().json()["result"] == 6.5
    assert house.resident_mb() - before < 20


TYPES = [
    None, "", "text/plain", "application/x-python-pickle", "application/octet-stream",
    "application/xml", "application/x-www-form-urlencoded", "application/jsonp", "json", ";", "*/*",
    f"{MARK}/x", "application/vnd.api+json", "image", "multipart/mixed; boundary=x",
]  # fmt: skip


@pytest.mark.parametrize("content_type", TYPES)
def test_b7_type(house: HouseUnderTest, content_type: str | None) -> None:
    answer = house.call("numbers", GOOD, content_type)
    check_problem(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/json ;a=b"]
)
def test_b7_types_that_are_json(house: HouseUnderTest, content_type: str) -> None:
    assert house.call("numbers", GOOD, content_type).status == 200


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/xml, text/*",
        "application/json;q=0",
        "*/*;q=0.000",
        "image/png",
        "x",
    ],
)
def test_b8_accept(house: HouseUnderTest, accept: str) -> None:
    check_problem(house.call("numbers", GOOD, Accept=accept), 406, "not-acceptable")


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "text/html, application/json;q=0.9", "application/JSON", ""]
)
def test_b8_accept_possible(house: HouseUnderTest, accept: str) -> None:
    assert house.call("numbers", GOOD, Accept=accept).status == 200


def test_b9_gzip(house: HouseUnderTest) -> None:
    answer = house.call("numbers", gzip.compress(GOOD), Content_Encoding="gzip")
    assert answer.json()["result"] == 6.5
    answer = house.call("numbers", zlib.compress(GOOD), Content_Encoding="deflate")
    assert answer.json()["result"] == 6.5


@pytest.mark.parametrize(
    ("size", "status"), [(MAX_BODY - 1, 200), (MAX_BODY, 200), (MAX_BODY + 1, 413)]
)
def test_b9_the_limit_counts_what_comes_out(house: HouseUnderTest, size: int, status: int) -> None:
    answer = house.call("numbers", gzip.compress(padded(size)), Content_Encoding="gzip")
    assert answer.status == status


def test_b9_bomb(house: HouseUnderTest) -> None:
    bomb = gzip.compress(bytes(1_000_000_000 // 4))
    assert len(bomb) * 1000 < 250_000_000
    before, began = house.resident_mb(), time.monotonic()
    for _ in range(10):
        answer = house.call("numbers", bomb, Content_Encoding="gzip")
        check_problem(answer, 413, "decompressed-too-large")
    assert (time.monotonic() - began) / 10 < 0.2
    assert house.resident_mb() - before < 20


ENCODINGS = {
    "unknown": ("br", GOOD, 415, "unsupported-media-type"),
    "nested": ("gzip, gzip", gzip.compress(gzip.compress(GOOD)), 415, "unsupported-media-type"),
    "empty": ("", GOOD, 415, "unsupported-media-type"),
    "not-gzip": ("gzip", GOOD, 400, "malformed-encoding"),
    "truncated": ("gzip", gzip.compress(GOOD)[:-4], 400, "malformed-encoding"),
    "bad-checksum": ("gzip", gzip.compress(GOOD)[:-8] + b"x" * 8, 400, "malformed-encoding"),
    "trailing": ("gzip", gzip.compress(GOOD) + b"x", 400, "malformed-encoding"),
    "two-members": ("gzip", gzip.compress(GOOD) * 2, 400, "malformed-encoding"),
    "twice-once-said": ("gzip", gzip.compress(gzip.compress(GOOD)), 400, "json-limits"),
    "nothing": ("gzip", b"", 400, "malformed-encoding"),
}


@pytest.mark.parametrize(
    ("encoding", "body", "status", "code"), ENCODINGS.values(), ids=ENCODINGS.keys()
)
def test_b9_encodings(
    house: HouseUnderTest, encoding: str, body: bytes, status: int, code: str
) -> None:
    answer = house.call("numbers", body, Content_Encoding=encoding)
    if code == "json-limits":
        code = answer.json()["code"]
        assert code in ("json-limits", "malformed-json")
    check_problem(answer, status, code)


# -- B37 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["x", "", "1.5", "1e3", "0x10", "5, 5", "--5", "+5", "9" * 16, "٣", f"{MARK}", "1_000", "5 5"],
)
def test_b37_garbage(house: HouseUnderTest, value: str) -> None:
    with house.wire() as wire:
        wire.send(
            HEAD + b"Headrace-Deadline-Ms: " + value.encode() + b"\r\nContent-Length: 11\r\n\r\n"
            + GOOD
        )  # fmt: skip
        check_problem(wire.answer(), 400, "deadline-invalid")


@pytest.mark.parametrize(
    "value", ["0", "-0", "-1", "-999999999999999", "100000000000", "1700000000000"]
)
def test_b37_past(house: HouseUnderTest, value: str) -> None:
    began = time.monotonic()
    answer = house.call("numbers", b"[-1000, 2000]", Headrace_Deadline_Ms=value)
    check_problem(answer, 504, "deadline-exceeded")
    assert time.monotonic() - began < 1


def test_b37_a_year_is_cut(house: HouseUnderTest) -> None:
    answers = [
        house.call("numbers", GOOD, Headrace_Deadline_Ms=value)
        for value in ("31536000000", "99999999999", str(int((time.time() + 3e7) * 1000)))
    ]
    assert [a.status for a in answers] == [200, 200, 200]


def test_b37_a_deadline_that_passes(house: HouseUnderTest) -> None:
    began = time.monotonic()
    answer = house.call("numbers", b"[-1000, 700]", Headrace_Deadline_Ms="200")
    check_problem(answer, 504, "deadline-exceeded")
    assert time.monotonic() - began < 0.6


# -- B38 ---------------------------------------------------------------------------------------


def idle(house: HouseUnderTest) -> bool:
    return house.metric("headrace_calls_in_flight") == 0


def test_b38_disconnect_in_mid_upload(house: HouseUnderTest) -> None:
    before = house.resident_mb()
    for sent in (0, 1, 1000, 100_000):
        for _ in range(10):
            with house.wire() as wire:
                wire.send(HEAD + b"Content-Length: 1000000\r\n\r\n" + bytes(sent))
    eventually(lambda: idle(house))
    assert house.resident_mb() - before < 20


def test_b38_disconnect_in_mid_head(house: HouseUnderTest) -> None:
    for size in range(1, len(HEAD), 7):
        with house.wire() as wire:
            wire.send(HEAD[:size])


def test_b38_disconnect_after_the_call_was_sent(house: HouseUnderTest) -> None:
    before = open_files(house)
    for _ in range(20):
        with house.wire() as wire:
            wire.send(HEAD + b"Content-Length: 11\r\n\r\n[-1000, 50]")
    eventually(lambda: idle(house), 10)
    eventually(lambda: open_files(house) <= before)


def open_files(house: HouseUnderTest) -> int:
    from pathlib import Path

    return len(list(Path(f"/proc/{house.gateway_pid}/fd").iterdir()))


# -- B39 ---------------------------------------------------------------------------------------


def png() -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (4, 3), (10, 20, 30)).save(out, "PNG")
    return out.getvalue()


PNG = png()
FORM = "multipart/form-data; boundary=b"


def part(name: bytes, data: bytes, more: bytes = b"") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name, more, data)


PAIR = part(b"first", PNG) + part(b"second", PNG)

FORMS = {
    "10k-parts": (FORM, part(b"first", b"") * 10_000 + b"--b--", 413),
    "65-parts": (FORM, b"".join(part(b"%d" % n, b"") for n in range(65)) + b"--b--", 413),
    "no-boundary": ("multipart/form-data", PAIR + b"--b--", 400),
    "empty-boundary": ("multipart/form-data; boundary=", PAIR + b"--b--", 400),
    "other-boundary": ("multipart/form-data; boundary=c", PAIR + b"--b--", 400),
    "boundary-twice": (FORM + "; boundary=b", PAIR + b"--b--", 400),
    "boundary-71": ("multipart/form-data; boundary=" + "b" * 71, b"--" + b"b" * 71 + b"--", 400),
    "8k-boundary": ("multipart/form-data; boundary=" + "b" * 8000, b"--" + b"b" * 8000, 400),
    "boundary-of-crlf": ('multipart/form-data; boundary="\\\r"', PAIR, 400),
    "not-closed": (FORM, PAIR, 400),
    "nothing": (FORM, b"", 400),
    "crlf-only": (FORM, b"\r\n" * 900_000, 400),
    "cr-only": (FORM, b"\r" * 1_900_000, 400),
    "nearly-boundaries": (FORM, b"\r\n--a" * 300_000, 400),
    "no-name": (FORM, b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", 400),
    "no-headers": (FORM, b"--b\r\n\r\nx\r\n--b--", 400),
    "no-header-end": (FORM, b"--b\r\nContent-Disposition: form-data\r\n--b--", 400),
    "endless-header": (FORM, b"--b\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\nx\r\n--b--", 413),
    "many-headers": (FORM, b"--b\r\n" + b"A: b\r\n" * 10_000 + b"\r\nx\r\n--b--", 413),
    "bare-lf": (FORM, PAIR.replace(b"\r\n", b"\n") + b"--b--", 400),
    "obs-fold": (FORM, b"--b\r\nContent-Disposition:\r\n form-data; name=x\r\n\r\nx\r\n--b--", 400),
    "nul-in-header": (FORM, part(b"first", b"", b'; a="\0"') + b"--b--", 400),
    "name-not-utf-8": (FORM, part(b"\xff", b"") + b"--b--", 400),
    "no-line-after-boundary": (FORM, b"--bfirst\r\n\r\n--b--", 400),
}


@pytest.mark.parametrize(("content_type", "body", "status"), FORMS.values(), ids=FORMS.keys())
def test_b39_forms(house: HouseUnderTest, content_type: str, body: bytes, status: int) -> None:
    if "\r" in content_type:
        with house.wire() as wire:
            wire.send(b"POST /models/pair/predict HTTP/1.1\r\nHost: x\r\nContent-Type: "
                      + content_type.encode() + b"\r\nContent-Length: 0\r\n\r\n")  # fmt: skip
            check_problem(wire.answer(), 400, "bad-request-framing")
        return
    began = time.monotonic()
    answer = house.call("pair", body, content_type)
    took_s = time.monotonic() - began
    check_problem(answer, status, "malformed-multipart")
    assert took_s < 0.5


def test_b39_headers_of_a_megabyte_boundary(house: HouseUnderTest) -> None:
    with house.wire() as wire:
        wire.send(HEAD.replace(b"application/json", FORM.encode() + b"b" * 1_000_000))
        check_problem(wire.answer(), 431, "headers-too-large")


GOOD_FORMS = {
    "plain": PAIR + b"--b--",
    "crlf-preamble": b"\r\n" * 300_000 + PAIR + b"--b--",
    "crlf-epilogue": PAIR + b"--b--" + b"\r\n" * 300_000,
    "nasty-file-names": part(b"first", PNG, b'; filename="../../etc/' + MARK.encode() + b'"')
    + part(b"second", PNG, b'; filename="C:\\\\con\\"; name=x"') + b"--b--",
    "with-a-number": PAIR + part(b"threshold", b"0.25") + b"--b--",
    "line-with-spaces": PAIR.replace(b"--b\r\n", b"--b \t\r\n") + b"--b--",
}  # fmt: skip


@pytest.mark.parametrize("body", GOOD_FORMS.values(), ids=GOOD_FORMS.keys())
def test_b39_forms_that_are_right(house: HouseUnderTest, body: bytes) -> None:
    answer = house.call("pair", body, FORM)
    assert answer.status == 200, answer
    assert answer.json()["result"] is True
    assert MARK.encode() not in answer.body


WRONG_FIELDS = {
    "unknown-part": PAIR + part(MARK.encode(), b"x"),
    "twice": PAIR + part(b"first", PNG),
    "missing": part(b"first", PNG),
    "number-is-text": PAIR + part(b"threshold", MARK.encode()),
    "number-is-not-text": PAIR + part(b"threshold", b"\xff\xfe"),
    "big-field-without-file-name": PAIR + part(b"threshold", MARK.encode() * 100_000),
}


@pytest.mark.parametrize("body", WRONG_FIELDS.values(), ids=WRONG_FIELDS.keys())
def test_b39_fields_that_are_wrong(house: HouseUnderTest, body: bytes) -> None:
    check_problem(house.call("pair", body + b"--b--", FORM), 422, "validation-failed")


def test_b39_json_within_a_field(house: HouseUnderTest) -> None:
    for text in (b"[" * 100_000, b'{"a":1,"a":2}', b'"\\u0000"'):
        answer = house.call("pair", PAIR + part(b"threshold", text) + b"--b--", FORM)
        assert answer.status in (400, 422), answer
        check_problem(answer, answer.status, answer.json()["code"])


def test_b39_one_image_wants_one_part(house: HouseUnderTest) -> None:
    check_problem(house.call("photo", PAIR + b"--b--", FORM), 422, "validation-failed")
    assert house.call("photo", part(b"any", PNG) + b"--b--", FORM).status == 200


def test_request_ids_are_ours_unless_they_are_plain(house: HouseUnderTest) -> None:
    for given in ("a b", "x" * 65, '"><script>', "\u00e9", f"{MARK};"):
        answer = house.call("numbers", GOOD, X_Request_Id=given.encode().decode("latin-1"))
        assert answer.headers["x-request-id"] != given
        assert json.loads(answer.body)["request_id"] == answer.headers["x-request-id"]
