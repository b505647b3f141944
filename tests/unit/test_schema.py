"""The reader: every construct that an author's types may have, from schema to canonical bytes."""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import json
import random
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest
from msgspec import Meta

import headrace
from headrace.errors import BadRequest, Invalid, PayloadTooLarge, Refusal
from headrace.schema import MAX_DEPTH, MAX_KEYS, Reader
from headrace.signature import Signature, json_schema


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Inner(msgspec.Struct):
    x: int
    y: float = 0.5


@dataclass
class Data:
    a: int
    b: list[Inner]
    c: str = "c"


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str
    class_: Annotated[int, Meta(ge=1)] = msgspec.field(name="class", default=1)
    odd: int = msgspec.field(name="a b/c", default=0)


class Rows(msgspec.Struct, array_like=True):
    a: int
    b: str


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


class Cat(msgspec.Struct, tag=True):
    lives: int
    picture: bytes = b""


class Bat(msgspec.Struct, tag=True):
    lives: int


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    x: int


class Dog(msgspec.Struct, tag="hound", tag_field="kind"):
    tricks: list[str]


class Bird(msgspec.Struct, tag="bird", tag_field="kind"):
    wings: int
    picture: bytes = b""


class Pair(NamedTuple):
    a: int
    b: str


class Typed(TypedDict):
    a: int


class Part(pydantic.BaseModel):
    n: int = pydantic.Field(ge=0, le=9)


class Whole(pydantic.BaseModel):
    parts: list[Part]
    name: str = pydantic.Field(pattern="^[a-z]+$", default="x")
    maybe: Part | None = None


class Node(pydantic.BaseModel):
    value: int
    next: Node | None = None


class Mixed(msgspec.Struct):
    whole: Whole
    limits: Annotated[list[int], Meta(min_length=1, max_length=3)]


def reader(kind: Any) -> Reader:
    return Reader(json.loads(json.dumps(json_schema(kind))))


def signature(kind: Any) -> Signature:
    class Some(headrace.Model):
        def predict(self, items):  # type: ignore[no-untyped-def]
            return items

    Some.predict.__annotations__ = {"items": list[kind], "return": list[int]}
    return Signature(Some)


GOOD: list[tuple[Any, Any, Any]] = [
    (int, 3, 3),
    (float, 3, 3.0),
    (str, "ü", "ü"),
    (bool, True, True),
    (bytes, "aGk=", b"hi"),
    (None, None, None),
    (Any, {"a": [1, "b", None]}, {"a": [1, "b", None]}),
    (list, [1, "a"], [1, "a"]),
    (dict, {"a": 1}, {"a": 1}),
    (list[float], [1, 2.5], [1.0, 2.5]),
    (list[list[bytes]], [["aGk="]], [[b"hi"]]),
    (set[int], [1, 2], {1, 2}),
    (tuple[int, bytes], [1, "aGk="], (1, b"hi")),
    (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
    (dict[str, bytes], {"a": "aGk="}, {"a": b"hi"}),
    (int | None, None, None),
    (bytes | None, "aGk=", b"hi"),
    (int | str, "a", "a"),
    (int | str | None, None, None),
    (Colour, "red", Colour.RED),
    (Level, 2, Level.HIGH),
    (Literal["a", 1], 1, 1),
    (Literal["a", None], None, None),
    (Annotated[int, Meta(ge=1, le=3)], 3, 3),
    (Annotated[float, Meta(gt=0, lt=1)], 0.5, 0.5),
    (Annotated[int, Meta(multiple_of=5)], 10, 10),
    (Annotated[str, Meta(pattern="^a+$")], "aa", "aa"),
    (Inner, {"x": 1}, Inner(1)),
    (Data, {"a": 1, "b": [{"x": 1, "y": 2}]}, Data(1, [Inner(1, 2.0)])),
    (Renamed, {"firstName": "a", "class": 2, "a b/c": 3}, Renamed("a", 2, 3)),
    (Rows, [1, "a"], Rows(1, "a")),
    (Tree, {"value": 1, "children": [{"value": 2, "children": [{"value": 3}]}]},
     Tree(1, [Tree(2, [Tree(3)])])),
    (Dog | Bird, {"kind": "hound", "tricks": ["sit"]}, Dog(["sit"])),
    (Dog | Bird, {"kind": "bird", "wings": 2, "picture": "aGk="}, Bird(2, b"hi")),
    (Dog | Bird | None, None, None),
    (list[Dog | Bird], [{"kind": "bird", "wings": 2}], [Bird(2)]),
    (Cat, {"type": "Cat", "lives": 9}, Cat(9)),
    (int | list[int], [1], [1]),
    (str | list[Inner], [{"x": 1}], [Inner(1)]),
    (Pair, [1, "a"], Pair(1, "a")),
    (Typed, {"a": 1}, {"a": 1}),
    (datetime.datetime, "2026-01-02T03:04:05Z",
     datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)),
    (uuid.UUID, "12345678-1234-5678-1234-567812345678",
     uuid.UUID("12345678-1234-5678-1234-567812345678")),
    (decimal.Decimal, "1.5", decimal.Decimal("1.5")),
    (Whole, {"parts": [{"n": 1}]}, Whole(parts=[Part(n=1)])),
    (Whole, {"parts": [], "maybe": {"n": 2}}, Whole(parts=[], maybe=Part(n=2))),
    (Node, {"value": 1, "next": {"value": 2, "next": None}},
     Node(value=1, next=Node(value=2))),
    (Mixed, {"whole": {"parts": [{"n": 1}]}, "limits": [1]},
     Mixed(Whole(parts=[Part(n=1)]), [1])),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "want"), GOOD, ids=[str(k)[:40] for k, _, _ in GOOD])
def test_what_the_author_gets(kind: Any, value: Any, want: Any) -> None:
    """JSON -> gateway -> canonical -> model process."""
    made, body = reader(kind), json.dumps(value).encode()
    assert signature(kind).decode(made.json(body)) == want
    assert signature(kind).decode(made.json(json.dumps(value, indent=3).encode())) == want
    outcomes = made.many(b"[" + body + b", " + body + b"]", 2)
    assert [signature(kind).decode(each) for each in outcomes] == [want, want]


BAD: list[tuple[Any, Any, str]] = [
    (int, "1", ""),
    (int, 1.5, ""),
    (int, True, ""),
    (float, "1", ""),
    (str, 1, ""),
    (list[float], [1, "a"], "/"),
    (tuple[int, str], [1], ""),
    (tuple[int, str], ["a", "b"], "/0"),
    (dict[str, int], {"a": "SECRET"}, "/"),
    (Colour, "SECRET", ""),
    (Literal["a", 1], "SECRET", ""),
    (Annotated[int, Meta(ge=1, le=3)], 4, ""),
    (Annotated[float, Meta(gt=0, lt=1)], 1, ""),
    (Annotated[int, Meta(multiple_of=5)], 11, ""),
    (Annotated[str, Meta(pattern="^a+$")], "SECRET", ""),
    (Annotated[str, Meta(max_length=3)], "SECRET", ""),
    (Inner, {"x": 1, "SECRET": 2}, ""),
    (Inner, {"y": 1}, ""),
    (Inner, [1], ""),
    (Data, {"a": 1, "b": [{"x": "SECRET"}]}, "/b"),
    (Renamed, {"first_name": "a"}, ""),
    (Renamed, {"firstName": "a", "class": 0}, "/class"),
    (Rows, {"a": 1}, ""),
    (Dog | Bird, {"kind": "SECRET"}, "/kind"),
    (Dog | Bird, {"wings": 2}, ""),
    (Dog | Bird, {"kind": "hound", "wings": 2}, ""),
    (Whole, {"parts": [{"n": 10}]}, "/parts"),
    (Whole, {"parts": [], "name": "SECRET"}, "/name"),
    (Whole, {"parts": [], "SECRET": 1}, ""),
    (Mixed, {"whole": {"parts": []}, "limits": []}, "/limits"),
    (Mixed, {"whole": {"parts": []}, "limits": [1, 2, 3, 4]}, "/limits"),
]


@pytest.mark.parametrize(("kind", "value", "pointer"), BAD)
def test_what_the_gateway_refuses(kind: Any, value: Any, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        reader(kind).json(json.dumps(value).encode())
    refusal = caught.value
    assert refusal.code == "validation-failed"
    assert refusal.errors[0].pointer.startswith(pointer)
    assert "SECRET" not in repr(refusal.problem())


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Tree, {"value": 1, "children": [{"value": 2, "children": [{"value": "x"}]}]}),
        (int | list[int], ["a"]),
        (Literal["a", True], 5),
        (datetime.datetime, "yesterday"),
    ],
)
def test_what_only_the_model_process_can_refuse(kind: Any, value: Any) -> None:
    with pytest.raises((Invalid, Refusal)):
        signature(kind).decode(reader(kind).json(json.dumps(value).encode()))


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Strict, {"x": 1, "SECRET": 1}), (Colour, "SECRET"), (Literal["a"], "SECRET"),
     (Cat | Bat, {"type": "SECRET"}), (Annotated[str, Meta(max_length=3)], "SECRET")],
)  # fmt: skip
def test_what_the_model_process_does_not_say(kind: Any, value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        signature(kind).decode(msgspec.msgpack.encode(value))
    assert "SECRET" not in repr(caught.value.problem())


@pytest.mark.parametrize("body", [b"\x81", b"\xc1", b"", b"\xd9\x01\xff", b"\x91" * 2000 + b"\x01"])
@pytest.mark.parametrize("kind", [Tree, Any, list[Any]])
def test_canonical_bytes_that_are_none(body: bytes, kind: Any) -> None:
    with pytest.raises(Refusal):
        signature(kind).decode(body)


# -- the same key twice: the quick look must never miss one ----------------------------------------


class Outer(msgspec.Struct):
    a: Inner
    b: tuple[Inner, Inner]
    c: Annotated[list[Inner], Meta(min_length=2, max_length=2)]
    d: dict[str, int] = {}
    e: Inner | None = None


@pytest.mark.parametrize(
    ("kind", "keys"),
    [(int, 0), (list[Inner], 0), (Inner, 1), (Data, 2), (Outer, 8), (Tree, 1), (Dog | Bird, 0),
     (dict[str, int], 0), (Any, 0), (Cat, 2), (tuple[Inner, int, Inner], 2)],
)  # fmt: skip
def test_the_least_number_of_keys(kind: Any, keys: int) -> None:
    assert reader(kind)._keys == keys


def _pairs(value: Any, random_: random.Random, twice: list[bool]) -> str:
    """Writes JSON with, now and then, a key twice and a colon in a string."""
    if isinstance(value, dict):
        items = [(k, _pairs(v, random_, twice)) for k, v in value.items()]
        if items and random_.random() < 0.3:
            items.append(random_.choice(items))
            twice[0] = True
        space = random_.choice(["", " ", "\n\t"])
        return "{" + ",".join(f'"{k}"{space}:{v}' for k, v in items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_pairs(v, random_, twice) for v in value) + "]"
    return json.dumps(value)


def test_a_key_twice_is_never_missed() -> None:
    random_ = random.Random(5)
    inner = [{"x": 1}, {"x": 2, "y": 1.5}]
    made = reader(Outer)
    for _ in range(2000):
        value = {
            "a": random_.choice(inner),
            "b": [random_.choice(inner), random_.choice(inner)],
            "c": [random_.choice(inner), random_.choice(inner)],
        }
        if random_.random() < 0.5:
            value["d"] = {random_.choice(["a", ":", "a:b", '\\":']): 1, "z": 2}  # type: ignore[assignment]
        if random_.random() < 0.5:
            value["e"] = random_.choice(inner)
        twice = [False]
        body = _pairs(value, random_, twice).encode()
        if twice[0]:
            with pytest.raises(BadRequest, match="twice"):
                made.json(body)
        else:
            made.json(body)


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "fits"), [(MAX_DEPTH - 1, 1), (MAX_DEPTH, 1), (MAX_DEPTH + 1, 0)]
)
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_depth(depth: int, fits: int, start: str, end: str) -> None:
    body = (start * depth + end * depth).replace(":}", ":1}").encode()
    if fits:
        reader(Any).json(body)
    else:
        with pytest.raises(BadRequest) as caught:
            reader(Any).json(body)
        assert caught.value.code == "json-limits"


@pytest.mark.parametrize("depth", [500, 900, 950, 980, 1000, 100_000])
@pytest.mark.parametrize("kind", [Any, dict[str, Any], Tree, Inner, list[int]])
def test_depths_that_could_exhaust_the_stack(depth: int, kind: Any) -> None:
    for body in (b"[" * depth + b"]" * depth, b'{"x":' * depth + b"1" + b"}" * depth,
                 b'{"value":1,"children":[' * depth + b"]}" * depth):  # fmt: skip
        with pytest.raises(Refusal):
            reader(kind).json(body)


@pytest.mark.parametrize(("count", "fits"), [(MAX_KEYS, 1), (MAX_KEYS + 1, 0)])
def test_keys(count: int, fits: int) -> None:
    body = b"{" + b",".join(b'"%x" :1' % n for n in range(count)) + b"}"
    if fits:
        reader(dict[str, int]).json(body)
    else:
        with pytest.raises(BadRequest) as caught:
            reader(dict[str, int]).json(body)
        assert caught.value.code == "json-limits"


def test_numbers_beyond_limits() -> None:
    for body in (b"1e999", b"-1e999", b"9" * 5000, b"9" * 1_000_000):
        for kind in (Any, int, float, Inner):
            with pytest.raises((BadRequest, Invalid)) as caught:
                reader(kind).json(body)
            assert caught.value.code in ("json-limits", "validation-failed")


@pytest.mark.parametrize(
    ("text", "fits"),
    [('"a\\u0000"', 0), ('"\\\\\\u0000"', 0), ('"\\\\u0000"', 1), ('"\\\\\\\\u0000"', 1),
     ('"\\ud800"', 0), ('"\\udfff."', 0), ('"\\ud83d\\ude00"', 1)],
)  # fmt: skip
def test_text(text: str, fits: int) -> None:
    if fits:
        reader(str).json(text.encode())
    else:
        with pytest.raises(BadRequest):
            reader(str).json(text.encode())


# -- many ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "fits"), [(99, 1), (100, 1), (101, 0)])
@pytest.mark.parametrize("item", ["1", '"],[,"', "[1,2,[3,{}]]", '{"a":"\\\\\\"}{"}'])
def test_many(size: int, fits: int, item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = ("[" + ", ".join([item] * size) + "]").encode()
    for commas in (0, 100_000):  # counted before, counted after
        monkeypatch.setattr("headrace.schema.MANY_COMMAS", commas)
        if fits:
            assert len(reader(Any).many(body, 100)) == size
        else:
            with pytest.raises(PayloadTooLarge) as caught:
                reader(Any).many(body, 100)
            assert caught.value.code == "batch-invalid"


def test_one_bad_among_many() -> None:
    outcomes = reader(Inner).many(b'[{"x":1}, {"x":"a"}, {"x":1,"x":2}, {"x":2}]', 9)
    assert [type(each).__name__ for each in outcomes] == ["bytes", "Invalid", "BadRequest", "bytes"]


@pytest.mark.parametrize("body", [b"[]", b"{}", b"1", b'"a"', b"null"])
def test_not_many(body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        reader(int).many(body, 9)
    assert caught.value.code == "batch-invalid"


@pytest.mark.parametrize("body", [b"[1,", b"", b"[1]x", b"[1 2]", b"[\xff]"])
def test_many_malformed(body: bytes) -> None:
    with pytest.raises(BadRequest):
        reader(Any).many(body, 9)


# -- schemas that msgspec cannot express are left to the model process --------------------------


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "\\p{L}+"},
        {"type": "string", "pattern": "("},
        {"type": "integer", "minimum": 0.5},
        {"type": "integer", "maximum": 1 << 70},
        {"anyOf": [{"type": "string"}, {"type": "string", "contentEncoding": "base64"}]},
        {"anyOf": [{"type": "array"}, {"type": "object"}]},
        {"oneOf": [{"type": "string"}]},
        {"allOf": [{"type": "string"}]},
        {"not": {}},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "string"}}},
        {"type": ["string", "null"]},
        {"enum": [1.5, "a"]},
        {},
    ],
)
def test_schemas_that_are_hard(schema: dict[str, Any]) -> None:
    made = Reader(schema)
    with pytest.raises(BadRequest):
        made.json(b"[1,")
    for body in (b'"a"', b"7"):
        try:
            made.json(body)
        except Invalid:
            continue


def test_values_of_a_form() -> None:
    class Form(msgspec.Struct):
        image: headrace.Image | None = None
        text: str | None = None
        number: int | None = None

    made = reader(Form)
    assert made.properties["image"]["contentEncoding"] == "base64"
    assert made.properties["text"]["type"] == "string"
    assert msgspec.msgpack.decode(made.value({"text": "5", "number": 5})) == {
        "text": "5", "number": 5,
    }  # fmt: skip
    with pytest.raises(Invalid):
        made.value({"number": "x"})
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(BadRequest):
        reader(dict[str, Any]).value({"a": deep})


def test_images_in_tuples_are_looked_at() -> None:
    made = reader(tuple[headrace.Image, int])
    text = base64.b64encode(b"GIF89a").decode()
    with pytest.raises(Refusal) as caught:
        made.json(json.dumps([text, 1]).encode())
    assert caught.value.code == "image-type-not-allowed"
