"""A model's types <-> V2 tensors: each kind of field, both ways."""

from __future__ import annotations

import datetime
import enum
import io
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from headrace import Image, Model, Tensor
from headrace.errors import Invalid, ModelFailed, Refusal
from headrace.gateway.v2_columns import INPUT, columns_of
from headrace.gateway.v2_read import TensorReader
from headrace.gateway.v2_stack import Stack
from headrace.gateway.v2_tensors import Head, WireTensor, from_raw, from_values, json_values
from headrace.jobs import Form
from headrace.signature import Signature, json_schema


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Inner:
    a: int
    b: list[Annotated[np.ndarray, Tensor("float32", (2,))]]


@dataclass
class Everything:
    array: Annotated[np.ndarray, Tensor("float32", (2, -1))]
    number: float
    integer: int
    flag: bool
    text: str
    blob: bytes
    numbers: list[float]
    pair: Annotated[list[int], msgspec.Meta(min_length=2, max_length=2)]
    words: list[str]
    colour: Colour
    mode: Literal["fast", "good"]
    inner: Inner
    table: dict[str, float]
    either: int | str
    maybe: float | None
    image: Image
    crop: Annotated[np.ndarray, Tensor("uint8", (2,))] | None = None
    default: float = 2.5
    names: list[str] = field(default_factory=list)


EXPECTED = {
    "array": ("FP32", (2, -1)), "number": ("FP64", ()), "integer": ("INT64", ()),
    "flag": ("BOOL", ()), "text": ("BYTES", ()), "blob": ("BYTES", ()), "numbers": ("FP64", (-1,)),
    "pair": ("INT64", (2,)), "words": ("BYTES", (-1,)), "colour": ("BYTES", ()),
    "mode": ("BYTES", ()), "inner": ("BYTES", ()), "table": ("BYTES", ()), "either": ("BYTES", ()),
    "maybe": ("FP64", ()), "image": ("BYTES", ()), "crop": ("UINT8", (2,)), "default": ("FP64", ()),
    "names": ("BYTES", (-1,)),
}  # fmt: skip


def png() -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (3, 2), (9, 8, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def signature(input: Any, output: Any = int) -> Signature:
    class Any_(Model):
        name = "any"

        def predict(self, items: list[Any]) -> list[Any]:
            return items

    Any_.predict.__annotations__.update(items=list[input], **{"return": list[output]})
    return Signature(Any_)


def values(name: str, datatype: str, shape: tuple[int, ...], flat: list[Any]) -> WireTensor:
    return from_values(Head(name, datatype, shape), flat)


def read(schema: dict[str, Any], *tensors: WireTensor, most: int = 10) -> list[bytes]:
    reader = TensorReader(schema)
    reader.check([Head(t.name, t.datatype, t.shape) for t in tensors], most)
    return reader.read(tensors)


def everything(n: int) -> list[WireTensor]:
    inner = b'{"a":1,"b":[[1,2],[3,4]]}'
    return [
        values("array", "FP32", (n, 2, 3), [float(i) for i in range(6 * n)]),
        values("number", "FP32", (n,), [0.5] * n),
        values("integer", "UINT8", (n, 1), [7] * n),
        values("flag", "BOOL", (n,), [True] * n),
        values("text", "BYTES", (n,), ["grün".encode()] * n),
        values("blob", "BYTES", (n,), [b"\xff\0"] * n),
        values("numbers", "INT32", (n, 2), [1, 2] * n),
        values("pair", "INT64", (n, 2), [3, 4] * n),
        values("words", "BYTES", (n, 2), ["a", b"b"] * n),
        values("colour", "BYTES", (n,), [b"blue"] * n),
        values("mode", "BYTES", (n,), ["fast"] * n),
        values("inner", "BYTES", (n,), [inner] * n),
        values("table", "BYTES", (n,), ['{"x":1.5}'] * n),
        values("either", "BYTES", (n,), [b'"seven"'] * n),
        values("image", "BYTES", (n,), [png()] * n),
    ]


def test_every_kind_of_field_has_its_tensor() -> None:
    columns, struct = columns_of(json_schema(Everything), INPUT)
    assert struct
    assert {c.name: (c.datatype, c.shape) for c in columns} == EXPECTED


@pytest.mark.parametrize("n", [1, 3])
def test_every_kind_of_field_arrives_in_the_model(n: int) -> None:
    types = signature(Everything)
    bodies = read(types.input_schema, *everything(n))
    assert len(bodies) == n
    for i, body in enumerate(bodies):
        item = types.decode(body)
        assert item.array.dtype == np.float32
        assert item.array.tolist() == [[6.0 * i + 0, 6 * i + 1, 6 * i + 2],
                                       [6.0 * i + 3, 6 * i + 4, 6 * i + 5]]  # fmt: skip
        assert (item.number, item.integer, item.flag, item.text) == (0.5, 7, True, "grün")
        assert (item.blob, item.numbers, item.pair) == (b"\xff\0", [1.0, 2.0], [3, 4])
        assert (item.words, item.colour, item.mode) == (["a", "b"], Colour.BLUE, "fast")
        assert [part.tolist() for part in item.inner.b] == [[1, 2], [3, 4]]
        assert (item.table, item.either, item.maybe) == ({"x": 1.5}, "seven", None)
        assert (item.image.width, item.image.height) == (3, 2)
        assert (item.crop, item.default, item.names) == (None, 2.5, [])


@pytest.mark.parametrize(
    ("kind", "datatype", "shape", "flat", "expected"),
    [
        (float, "FP64", (2,), [1.5, 2.5], [1.5, 2.5]),
        (float, "INT64", (2,), [2**53, -(2**60)], [2.0**53, -(2.0**60)]),
        (int, "INT8", (1, 1), [-3], [-3]),
        (bool, "BOOL", (2,), [True, False], [True, False]),
        (str, "BYTES", (1,), [b"hi"], ["hi"]),
        (bytes, "BYTES", (1,), ["aGk="], [b"hi"]),
        (list[float], "FP16", (2, 2), [1, 2, 3, 4], [[1, 2], [3, 4]]),
        (list[list[int]], "BYTES", (1,), [b"[[1],[2,3]]"], [[[1], [2, 3]]]),
        (dict[str, int], "BYTES", (1,), [b'{"a":1}'], [{"a": 1}]),
        (tuple[int, str], "BYTES", (1,), [b'[1,"a"]'], [(1, "a")]),
    ],
)
def test_a_model_without_a_struct_has_one_tensor(
    kind: Any, datatype: str, shape: tuple[int, ...], flat: list[Any], expected: list[Any]
) -> None:
    types = signature(kind)
    bodies = read(types.input_schema, values("input", datatype, shape, flat))
    assert [types.decode(body) for body in bodies] == expected


def test_one_array_alone() -> None:
    types = signature(Annotated[np.ndarray, Tensor("float64", (2,))])
    data = np.arange(4.0).reshape(2, 2)
    bodies = read(types.input_schema, from_raw(Head("input", "FP64", (2, 2)), data.tobytes()))
    assert np.array_equal([types.decode(body) for body in bodies], data)


def test_one_image_alone() -> None:
    types = signature(Image)
    [body] = read(types.input_schema, values("input", "BYTES", (1, 1), [png()]))
    assert types.decode(body).width == 3
    for bad, code in [(b"GIF89a", "image-type-not-allowed"), (png()[:9], "image-undecodable")]:
        with pytest.raises(Refusal) as refused:
            read(types.input_schema, values("input", "BYTES", (1,), [bad]))
        assert refused.value.code == code


@dataclass
class Row:
    x: Annotated[np.ndarray, Tensor("float32", (2,))]
    factor: float
    text: str = ""
    many: list[int] = field(default_factory=list)
    free: dict[str, Any] = field(default_factory=dict)


X = values("x", "FP32", (1, 2), [1, 2])
FACTOR = values("factor", "FP64", (1,), [1])


@pytest.mark.parametrize(
    ("tensors", "code", "said"),
    [
        ([X], "tensor-invalid", "factor: is missing"),
        ([X, X, FACTOR], "tensor-invalid", "x: comes twice"),
        ([X, FACTOR, values("secret", "FP32", (1,), [1])], "tensor-invalid", "inputs[2]"),
        ([values("x", "FP64", (1, 2), [1, 2]), FACTOR], "tensor-invalid", "datatype FP32"),
        ([values("x", "FP32", (1, 3), [1, 2, 3]), FACTOR], "tensor-invalid", "[-1,2], batch"),
        ([values("x", "FP32", (1, 1, 2), [1, 2]), FACTOR], "tensor-invalid", "[1,1,2]"),
        ([values("x", "FP32", (2,), [1, 2]), FACTOR], "batch-invalid", "differs"),
        ([X, values("factor", "BYTES", (1,), ["1"])], "tensor-invalid", "datatype FP64"),
        ([X, values("factor", "BOOL", (1,), [True])], "tensor-invalid", "datatype FP64"),
        ([X, values("factor", "UINT64", (1,), [2**64 - 1])], "tensor-invalid", "exactly"),
        ([X, values("factor", "FP64", (1, 2), [1, 2])], "tensor-invalid", "[-1]"),
        ([X, values("factor", "FP64", (2,), [1, 2])], "batch-invalid", "differs"),
        ([values("x", "FP32", (0, 2), []), values("factor", "FP64", (0,), [])],
         "batch-invalid", "empty"),
        ([X, FACTOR, values("text", "BYTES", (1,), [b"\xff"])], "tensor-invalid", "UTF-8"),
        ([X, FACTOR, values("text", "BYTES", (1,), ["a\0"])], "tensor-invalid", "NUL"),
        ([X, FACTOR, values("many", "FP64", (1, 1), [1])], "tensor-invalid", "INT64"),
        ([X, FACTOR, values("free", "BYTES", (1,), ["{"])], "tensor-invalid", "not JSON"),
        ([X, FACTOR, values("free", "BYTES", (1,), ["[" * 5000])], "tensor-invalid", "not JSON"),
        ([X, FACTOR, values("free", "BYTES", (1,), ["[1]"])], "validation-failed", ""),
        ([X, FACTOR, values("free", "BYTES", (1,), ['{"a":1,"a":2}'])], "malformed-json", ""),
        ([X, FACTOR, values("free", "BYTES", (1,), ['{"a":%s}' % ("[" * 90 + "]" * 90)])],
         "json-limits", ""),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(tensors: list[WireTensor], code: str, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(json_schema(Row), *tensors)
    assert refused.value.code == code
    assert said in refused.value.detail
    assert "secret" not in refused.value.detail


def test_more_than_the_most() -> None:
    with pytest.raises(Refusal) as refused:
        read(json_schema(int), values("input", "INT64", (11,), list(range(11))))
    assert (refused.value.status, refused.value.code) == (413, "batch-invalid")
    assert len(read(json_schema(int), values("input", "INT64", (10,), list(range(10))))) == 10


def test_nothing_given_is_an_empty_batch() -> None:
    @dataclass
    class Free:
        x: int = 1

    with pytest.raises(Invalid) as refused:
        read(json_schema(Free))
    assert refused.value.code == "batch-invalid"


def test_a_refused_item_is_named() -> None:
    schema = json_schema(Annotated[int, msgspec.Meta(ge=0)])
    with pytest.raises(Invalid) as refused:
        read(schema, values("input", "INT64", (3,), [1, -1, 1]))
    assert refused.value.code == "validation-failed"
    assert refused.value.detail.startswith("item 1: ")


# -- outputs -------------------------------------------------------------------------------------


@dataclass
class Result:
    array: Annotated[np.ndarray, Tensor("float32", (-1, 2))]
    score: float
    count: int
    sure: bool
    label: str
    colour: Colour
    when: datetime.datetime
    blob: bytes
    box: list[float]
    tags: list[str]
    inner: Inner
    maybe: float | None


def result(i: int, rows: int = 1, box: int = 2) -> Result:
    return Result(
        array=np.full((rows, 2), i, np.float32),
        score=i / 2,
        count=i,
        sure=bool(i % 2),
        label=f"r{i}",
        colour=Colour.RED,
        when=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        blob=bytes([255, i]),
        box=[0.5] * box,
        tags=["a", "b"],
        inner=Inner(i, [np.array([1, 2], np.float32)]),
        maybe=None if i else 1.5,
    )


def stacked(results: list[Any], kind: Any, *wanted: str) -> dict[str, WireTensor]:
    types = signature(int, kind)
    bodies = [types.encode(each, Form.CANONICAL) for each in results]
    return {t.name: t for t in Stack(types.output_schema).stack(bodies, wanted)}


def test_every_kind_of_output_is_stacked() -> None:
    out = stacked([result(0), result(1)], Result)
    assert {name: (t.datatype, t.shape) for name, t in out.items()} == {
        "array": ("FP32", (2, 1, 2)), "score": ("FP64", (2,)), "count": ("INT64", (2,)),
        "sure": ("BOOL", (2,)), "label": ("BYTES", (2,)), "colour": ("BYTES", (2,)),
        "when": ("BYTES", (2,)), "blob": ("BYTES", (2,)), "box": ("FP64", (2, 2)),
        "tags": ("BYTES", (2, 2)), "inner": ("BYTES", (2,)), "maybe": ("BYTES", (2,)),
    }  # fmt: skip
    assert json_values(out["array"]) == [0, 0, 1, 1]
    assert json_values(out["sure"]) == [False, True]
    assert json_values(out["label"]) == ["r0", "r1"]
    assert json_values(out["colour"]) == ["red", "red"]
    assert json_values(out["when"]) == ["2026-01-02T00:00:00Z"] * 2
    assert json_values(out["blob"]) == [b"\xff\0", b"\xff\1"]
    assert json_values(out["tags"]) == ["a", "b", "a", "b"]
    assert json_values(out["inner"])[1] == '{"a":1,"b":[[1.0,2.0]]}'
    assert json_values(out["maybe"]) == ["1.5", "null"]


def test_the_wanted_outputs_alone_in_their_order() -> None:
    assert list(stacked([result(0)], Result, "label", "score", "label")) == ["label", "score"]
    with pytest.raises(Invalid, match=r"outputs\[1\]: expected one of array, ") as refused:
        stacked([result(0)], Result, "label", "nothing")
    assert refused.value.code == "tensor-invalid"


def test_ragged_outputs_are_refused_unless_alone() -> None:
    for ragged in ([result(0), result(1, rows=3)], [result(0), result(1, box=4)]):
        with pytest.raises(Invalid, match="send them one by one") as refused:
            stacked(ragged, Result)
        assert refused.value.code == "batch-invalid"
    assert stacked([result(1, rows=3, box=4)], Result)["array"].shape == (1, 3, 2)


@pytest.mark.parametrize(
    ("kind", "results", "datatype", "shape"),
    [
        (float, [1.0, np.float32(2)], "FP64", (2,)),
        (int, [1], "INT64", (1,)),
        (str, ["a"], "BYTES", (1,)),
        (list[float], [[1.0, 2.0]], "FP64", (1, 2)),
        (list[float], [np.array([1, 2], np.float32)], "FP32", (1, 2)),
        (list[list[float]], [[[1.0], [2.0, 3.0]]], "BYTES", (1,)),
        (Annotated[np.ndarray, Tensor("int8", (2, 1))], [[[1], [2]]], "INT8", (1, 2, 1)),
        (Annotated[np.ndarray, Tensor("int8", ())], [np.array(3, np.int8)], "INT8", (1,)),
        (dict[str, float], [{"a": 1.0}], "BYTES", (1,)),
        (float | None, [None], "BYTES", (1,)),
    ],
)
def test_one_output_alone(
    kind: Any, results: list[Any], datatype: str, shape: tuple[int, ...]
) -> None:
    out = stacked(results, kind)
    assert list(out) == ["output"]
    assert (out["output"].datatype, out["output"].shape) == (datatype, shape)


@pytest.mark.parametrize(
    ("kind", "results"),
    [
        (float, ["text"]),
        (float, [None]),
        (int, [2**64 - 1]),
        (str, [1]),
        (list[float], [1.0]),
        (list[float], [["a"]]),
        (Result, [1]),
        (Annotated[np.ndarray, Tensor("int8", (2,))], [np.zeros(2, np.int8), [0, 0]]),
        (Annotated[np.ndarray, Tensor("int8", (2,))], [np.zeros(2, np.int8), np.zeros(2, "i2")]),
    ],
)
def test_results_that_are_not_as_declared(kind: Any, results: list[Any]) -> None:
    types = signature(int, kind)
    bodies = [types.encode(each, Form.CANONICAL) for each in results]
    with pytest.raises(ModelFailed, match="not as declared"):
        Stack(types.output_schema).stack(bodies, ())


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(-(2**63), 2**63 - 1),
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            st.lists(st.floats(allow_nan=False, width=32), min_size=3, max_size=3).filter(
                lambda each: all(map(math.isfinite, each))
            ),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_goes_in_comes_out(rows: list[tuple[float, int, str, list[float]]]) -> None:
    @dataclass
    class Echo:
        number: float
        integer: int
        text: str
        array: Annotated[np.ndarray, Tensor("float32", (3,))]

    Echo.__annotations__["array"] = Annotated[np.ndarray, Tensor("float32", (3,))]
    Echo.__annotations__ |= {"number": float, "integer": int, "text": str}
    types = signature(Echo, Echo)
    n = len(rows)
    given = [
        values("number", "FP64", (n,), [row[0] for row in rows]),
        values("integer", "INT64", (n,), [row[1] for row in rows]),
        values("text", "BYTES", (n,), [row[2].encode() for row in rows]),
        values("array", "FP32", (n, 3), [each for row in rows for each in row[3]]),
    ]
    bodies = read(types.input_schema, *given)
    results = [types.encode(types.decode(body), Form.CANONICAL) for body in bodies]
    back = Stack(types.output_schema).stack(results, ())
    assert [tensor.data for tensor in back[:2]] == [tensor.data for tensor in given[:2]]
    assert back[2].data == [row[2] for row in rows]
    assert back[3] == given[3]
