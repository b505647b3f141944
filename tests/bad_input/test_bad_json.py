"""B1 to B4, B18 to B20: JSON that is none, is too much, or is not what the model takes."""

from __future__ import annotations

import base64
import json
import time

import pytest
from bad_limits import MAX_MANY
from wire import MARK, HouseUnderTest, check_no_leak, check_problem

M = MARK.encode()
ALICE = {"name": "Alice", "age": 40}

MALFORMED = {
    "text": M,
    "truncated": b'{"name": "' + M,
    "truncated-object": b'{"name": "a", "age": 4',
    "trailing": b'{"name": "a", "age": 4} ' + M,
    "two-documents": b'{"name": "a", "age": 4}{"name": "a", "age": 4}',
    "nan": b'{"name": "a", "age": NaN}',
    "infinity": b'{"name": "a", "age": 1, "rows": [[-Infinity]]}',
    "duplicate-key": b'{"name": "a", "age": 4, "age": 5}',
    "duplicate-key-escaped": b'{"name": "a", "age": 4, "\\u0061ge": 5}',
    "duplicate-key-spaced": b'{"name": "a", "age" : 4, "age"\t\n:5}',
    "duplicate-optional": b'{"name": "a", "age": 4, "nick": "b", "nick": "c"}',
    "single-quotes": b"{'name': 'a', 'age': 4}",
    "trailing-comma": b'{"name": "a", "age": 4,}',
    "comment": b'{"name": "a", /* x */ "age": 4}',
    "leading-zero": b'{"name": "a", "age": 04}',
    "plus": b'{"name": "a", "age": +4}',
    "hex": b'{"name": "a", "age": 0x4}',
    "raw-newline": b'{"name": "a\nb", "age": 4}',
    "raw-nul": b'{"name": "a\0b", "age": 4}',
    "bad-escape": b'{"name": "a\\x", "age": 4}',
    "byte-order-mark": b'\xef\xbb\xbf{"name": "a", "age": 4}',
    "utf-16": '{"name": "a", "age": 4}'.encode("utf-16"),
    "only-space": b"  \n ",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_b1_malformed(house: HouseUnderTest, body: bytes) -> None:
    check_problem(house.call("person", body), 400, "malformed-json")


DUPLICATES = {
    "free": b'{"a": {"b": 1, "b": 2}}',
    "pet": b'{"type": "Cat", "lives": 9, "lives": 8}',
    "pair": b'{"first": "", "first": "", "second": ""}',
}


@pytest.mark.parametrize(("model", "body"), DUPLICATES.items(), ids=DUPLICATES.keys())
def test_b1_the_same_key_twice(house: HouseUnderTest, model: str, body: bytes) -> None:
    check_problem(house.call(model, body), 400, "malformed-json")


def test_colons_in_text_are_no_keys(house: HouseUnderTest) -> None:
    body = json.dumps({"name": 'a":"b', "age": 4, "nick": "::::"}).encode()
    assert house.call("person", body).json()["result"] == "4"


DEEP = 10_000
LIMITS = {
    "free-deep-lists": ("free", b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}"),
    "free-deep-objects": ("free", b'{"a": ' * DEEP + b"1" + b"}" * DEEP),
    "free-depth-65": ("free", b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}"),
    "free-depth-500": ("free", b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}"),
    "free-depth-950": ("free", b'{"a": ' + b"[" * 950 + b"]" * 950 + b"}"),
    "person-unknown-deep": ("person", b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b"}"),
    "free-keys": ("free", b"{" + b",".join(b'"%d":1' % i for i in range(90_000)) + b',"":{'
                  + b",".join(b'"":1' for _ in range(20_000)) + b"}}"),
    "free-keys-spaced": ("free", b"{" + b",".join(b'"%x"\n:1' % i for i in range(100_001)) + b"}"),
    "person-huge-integer": ("person", b'{"name": "a", "age": ' + b"9" * 900_000 + b"}"),
    "free-huge-integer": ("free", b'{"a": ' + b"9" * 900_000 + b"}"),
    "numbers-huge-integer": ("numbers", b"[" + b"9" * 900_000 + b"]"),
    "numbers-1e999": ("numbers", b"[1e999]"),
    "person-lone-surrogate": ("person", b'{"name": "\\udc00x", "age": 4}'),
    "person-half-pair": ("person", b'{"name": "\\ud800\\u0041 ", "age": 4}'),
    "person-invalid-utf-8": ("person", b'{"name": "\xff\xfe", "age": 4}'),
    "person-overlong-utf-8": ("person", b'{"name": "\xc0\xaf", "age": 4}'),
    "person-nul": ("person", b'{"name": "a\\u0000b", "age": 4}'),
    "free-nul-in-key": ("free", b'{"a\\u0000": 4}'),
}  # fmt: skip


@pytest.mark.parametrize(("model", "body"), LIMITS.values(), ids=LIMITS.keys())
def test_b2_limits(house: HouseUnderTest, model: str, body: bytes) -> None:
    began = time.monotonic()
    check_problem(house.call(model, body), 400, "json-limits")
    assert time.monotonic() - began < 2


WITHIN = {
    "depth-64": ("free", b'{"a": ' + b"[" * 63 + b"]" * 63 + b"}"),
    "keys": ("free", b"{" + b",".join(b'"%x":1' % i for i in range(50_000)) + b"}"),
    "escaped-backslash-before-u0000": ("person", b'{"name": "a\\\\u0000", "age": 4}'),
    "surrogate-pair": ("person", b'{"name": "\\ud83d\\ude00", "age": 4}'),
    "brackets-in-text": ("free", json.dumps({"a": "[" * 500}).encode()),
}


@pytest.mark.parametrize(("model", "body"), WITHIN.values(), ids=WITHIN.keys())
def test_b2_within_the_limits(house: HouseUnderTest, model: str, body: bytes) -> None:
    assert house.call(model, body).status == 200


INVALID = {
    "unknown-field": ("person", ALICE | {MARK: 1}, ""),
    "wrong-type": ("person", ALICE | {"age": MARK}, "/age"),
    "float-for-int": ("person", ALICE | {"age": 1.5}, "/age"),
    "bool-for-int": ("person", ALICE | {"age": True}, "/age"),
    "text-for-int": ("person", ALICE | {"age": "4"}, "/age"),
    "too-small": ("person", ALICE | {"age": -1}, "/age"),
    "too-large": ("person", ALICE | {"age": 151}, "/age"),
    "too-short": ("person", ALICE | {"name": ""}, "/name"),
    "too-long": ("person", ALICE | {"name": MARK * 5}, "/name"),
    "null": ("person", ALICE | {"name": None}, "/name"),
    "missing": ("person", {"name": "a"}, ""),
    "nested": ("person", ALICE | {"rows": [[1], ["x"]]}, "/rows"),
    "list-for-object": ("person", [ALICE], ""),
    "nothing": ("person", None, ""),
    "object-for-list": ("numbers", {"a": 1}, ""),
    "text-in-list": ("numbers", [1, MARK], "/"),
    "null-in-list": ("numbers", [None], "/"),
    "list-for-dict": ("free", [], ""),
    "unknown-tag": ("pet", {"type": MARK, "lives": 1}, "/type"),
    "no-tag": ("pet", {"lives": 1}, ""),
    "other-tags-field": ("pet", {"type": "Dog", "lives": 1}, ""),
    "wrong-within-union": ("pet", {"type": "Cat", "lives": MARK}, "/lives"),
    "image-is-number": ("photo", 7, ""),
}


@pytest.mark.parametrize(("model", "value", "pointer"), INVALID.values(), ids=INVALID.keys())
def test_b3_invalid(house: HouseUnderTest, model: str, value: object, pointer: str) -> None:
    answer = house.call(model, json.dumps(value).encode())
    check_problem(answer, 422, "validation-failed")
    (error,) = answer.json()["errors"]
    assert error["pointer"].startswith(pointer)


@pytest.mark.parametrize("age", [0, 150])
def test_b3_the_ends_of_a_range_are_in(house: HouseUnderTest, age: int) -> None:
    assert house.call("person", json.dumps(ALICE | {"age": age}).encode()).status == 200


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"type": "Cat", "lives": 9, "picture": "AAAA"}, "Cat"),
        ({"type": "Dog", "tricks": []}, "Dog"),
        (None, "NoneType"),
    ],
)
def test_unions_come_through(house: HouseUnderTest, value: object, kind: str) -> None:
    assert house.call("pet", json.dumps(value).encode()).json()["result"] == kind


@pytest.mark.parametrize("content_type", ["application/json", "image/png", "application/json; a=b"])
def test_b4_empty_body(house: HouseUnderTest, content_type: str) -> None:
    check_problem(house.call("photo", b"", content_type), 400, "empty-body")


NOT_BASE64 = {
    "alphabet": "!!!!",
    "no-padding": "aGVsbG8",
    "too-much-padding": "aGVsbG8==",
    "only-padding": "====",
    "inner-space": "aGVs bG8=",
    "line-end": "aGVsbG8=\n",
    "url-safe": "a-_sbG8=",
    "data-url": "data:image/png;base64,aGVsbG8=",
    "mark": MARK + "\u00e9",
}


@pytest.mark.parametrize("text", NOT_BASE64.values(), ids=NOT_BASE64.keys())
@pytest.mark.parametrize("model", ["person", "photo", "pair", "pet"])
def test_b18_not_base64(house: HouseUnderTest, model: str, text: str) -> None:
    good = base64.b64encode(b"x").decode()
    value: object = {
        "person": ALICE | {"photo": text},
        "photo": text,
        "pair": {"first": text, "second": good},
        "pet": {"type": "Cat", "lives": 9, "picture": text},
    }[model]
    check_problem(house.call(model, json.dumps(value).encode()), 422, "invalid-base64")


TENSORS = {
    "too-few-rows": [[1, 2, 3]],
    "too-many-rows": [[1, 2, 3]] * 3,
    "ragged": [[1, 2, 3], [1, 2]],
    "flat": [1, 2, 3, 4, 5, 6],
    "too-deep": [[[1], 2, 3], [1, 2, 3]],
    "empty": [],
    "empty-rows": [[], []],
    "text": [[1, 2, 3], [1, 2, MARK]],
    "bool": [[1, 2, 3], [1, 2, True]],
    "null": [[1, 2, 3], [1, 2, None]],
    "too-large": [[1, 2, 3], [1, 2, 1e39]],
    "too-small": [[1, 2, 3], [1, 2, -3.5e38]],
    "object": {"data": [1]},
    "number": 7,
}


@pytest.mark.parametrize("value", TENSORS.values(), ids=TENSORS.keys())
def test_b19_tensors(house: HouseUnderTest, value: object) -> None:
    check_problem(house.call("matrix", json.dumps(value).encode()), 422, "tensor-invalid")


def test_b19_the_largest_float_is_in(house: HouseUnderTest) -> None:
    assert house.call("matrix", b"[[3.4028234663852886e38, 0, 0], [0, 0, 0]]").status == 200


@pytest.mark.parametrize("body", [b"[]", b"{}", b'"x"', b"7", b"null"])
def test_b20_not_a_batch(house: HouseUnderTest, body: bytes) -> None:
    answer = house.call("numbers", body, verb="predict-many")
    check_problem(answer, 422, "batch-invalid")


@pytest.mark.parametrize("size", [MAX_MANY - 1, MAX_MANY])
def test_b20_up_to_the_limit(house: HouseUnderTest, size: int) -> None:
    body = json.dumps([[n] for n in range(size)]).encode()
    answer = house.call("numbers", body, verb="predict-many")
    assert [r["result"] for r in answer.json()["results"]] == list(range(size))


@pytest.mark.parametrize("size", [MAX_MANY + 1, 400_000])
def test_b20_over_the_limit(house: HouseUnderTest, size: int) -> None:
    before = house.resident_mb()
    answer = house.call("numbers", b"[" + b",".join([b"0"] * size) + b"]", verb="predict-many")
    check_problem(answer, 413, "batch-invalid")
    assert house.resident_mb() - before < 20


def test_b20_one_bad_item_among_32(house: HouseUnderTest) -> None:
    inputs: list[object] = [{"name": "a", "age": n} for n in range(32)]
    inputs[13] = {"name": MARK, "age": "x"}
    answer = house.call("person", json.dumps(inputs).encode(), verb="predict-many")
    assert answer.status == 200
    check_no_leak(answer)
    results = answer.json()["results"]
    assert [r.get("result") for n, r in enumerate(results) if n != 13] == [
        str(n) for n in range(32) if n != 13
    ]
    assert results[13]["status"] == 422
    assert results[13]["problem"]["code"] == "validation-failed"
    assert results[13]["problem"]["errors"][0]["pointer"] == "/age"


def test_b20_truncated_and_empty(house: HouseUnderTest) -> None:
    check_problem(house.call("numbers", b"[[1],", verb="predict-many"), 400, "malformed-json")
    check_problem(house.call("numbers", b"", verb="predict-many"), 400, "empty-body")
