"""Schemas made into inputs, and into words."""

import base64
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

import headrace
from headrace.cli.describe import describe, type_of
from headrace.cli.synthesize import CannotSynthesize, edges, photo, synthesize
from headrace.images import inspect
from headrace.schema import Reader
from headrace.signature import json_schema

Row = Annotated[np.ndarray, headrace.Tensor("float32", (2, 3))]
Any_length = Annotated[np.ndarray, headrace.Tensor("uint8", (-1,))]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Pair:
    left: headrace.Image
    right: headrace.Image | None = None
    threshold: Annotated[float, Meta(ge=0.2, lt=0.7, description="how alike")] = 0.4


class Tree(msgspec.Struct):
    name: str
    children: list["Tree"] = []


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=12)
    age: int = pydantic.Field(ge=18, le=19)


_numbers = count()  # msgspec names types by their name

KINDS = [
    int, float, str, bool, bytes, list[float], list[list[int]], dict[str, int], Row, Any_length,
    headrace.Image, Pair, Tree, Person, Colour, Literal["a", "b"], int | None, str | int | None,
    tuple[int, str], list[Pair], dict[str, Row], Any, None,
    Annotated[list[int], Meta(min_length=5, max_length=5)], Annotated[int, Meta(multiple_of=7)],
    Annotated[int, Meta(gt=-3, lt=0)], Annotated[str, Meta(min_length=30)],
    Annotated[str, Meta(max_length=2)], Annotated[float, Meta(le=-4)],
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("variant", [0, 1, 7])
def test_what_is_made_up_is_allowed(kind: Any, variant: int) -> None:
    schema = json_schema(kind)
    Reader(schema).json(msgspec.json.encode(synthesize(schema, variant)))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_schema_has_words(kind: Any) -> None:
    schema = json_schema(kind)
    assert type_of(schema) and describe(schema)[0].type == type_of(schema)


@settings(deadline=None)  # a busy machine proves nothing
@given(
    st.recursive(
        st.sampled_from([int, float, str, bool, Row, Literal["a"], headrace.Image]),
        lambda inner: st.one_of(
            inner.map(lambda kind: list[kind]),
            inner.map(lambda kind: dict[str, kind]),
            st.lists(inner, min_size=1, max_size=3).map(
                lambda kinds: msgspec.defstruct(
                    f"S{next(_numbers)}", [(f"f{n}", k) for n, k in enumerate(kinds)]
                )
            ),
        ),
        max_leaves=6,
    )
)
def test_nested_types(kind: Any) -> None:
    schema = json_schema(kind)
    reader = Reader(schema)
    reader.json(msgspec.json.encode(synthesize(schema)))
    assert describe(schema)
    for edge in edges(schema):
        msgspec.json.encode(edge)


@pytest.mark.parametrize("kind", [int, float, str, Row, headrace.Image, Pair, list[float]])
def test_variants_differ(kind: Any) -> None:
    made = [msgspec.json.encode(synthesize(json_schema(kind), variant)) for variant in range(8)]
    assert len(set(made)) == len(made)


def test_a_made_up_image_is_one() -> None:
    facts = inspect(base64.b64decode(synthesize(json_schema(headrace.Image))))
    assert (facts.format, facts.width) == ("JPEG", 240)
    assert photo(1) != photo(2)


def test_a_pattern_cannot_be_made_up() -> None:
    with pytest.raises(CannotSynthesize, match="a text that matches"):
        synthesize(json_schema(Annotated[str, Meta(pattern="^x+$")]))


def test_an_example_is_used() -> None:
    assert synthesize({"type": "string", "pattern": "x+", "examples": ["xx"]}) == "xx"


def test_edges_empty_zero_and_negate() -> None:
    found = list(edges(json_schema(list[float])))
    assert [] in found and [0.0, 0.0] in found and [-1.0, -1.0] in found


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Row, "array of 2 x 3 float32"),
        (Any_length, "array of any uint8"),
        (headrace.Image, "image"),
        (list[headrace.Image], "list of image"),
        (int | None, "integer | null"),
        (Literal["a", "b"], "'a' | 'b'"),
        (dict[str, float], "map of text to number"),
        (bytes, "bytes (base64)"),
        (Pair, "Pair"),
        (list[Pair], "list of Pair"),
    ],
)
def test_types_in_words(kind: Any, words: str) -> None:
    assert type_of(json_schema(kind)) == words


def test_fields_in_words() -> None:
    root, left, right, threshold = describe(json_schema(Pair))
    assert root.type == "Pair"
    assert (left.depth, left.name, left.type, left.note) == (1, "left", "image", "")
    assert right.type == "image | null" and right.note.startswith("optional")
    assert threshold.note == "optional; >= 0.2; < 0.7; 0.4 by default; how alike"


def test_a_type_that_holds_itself_ends() -> None:
    assert [field.name for field in describe(json_schema(Tree))] == ["", "name", "children"]
