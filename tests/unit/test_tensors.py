"""Arrays: from nested lists to the wire form and back, and what is not an array."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest

import headrace
from headrace import tensors
from headrace.errors import Invalid, Refusal
from headrace.schema import Reader
from headrace.signature import json_schema

Vector = Annotated[np.ndarray, headrace.Tensor("float32", (2,))]


def reader(dtype: str, shape: tuple[int, ...]) -> Reader:
    kind = Annotated[np.ndarray, headrace.Tensor(dtype, shape)]
    return Reader(json.loads(json.dumps(json_schema(kind))))


def array(dtype: str, shape: tuple[int, ...], value: Any) -> np.ndarray[Any, Any]:
    packed = reader(dtype, shape).json(json.dumps(value).encode())
    found: list[np.ndarray[Any, Any]] = []
    msgspec.msgpack.decode(packed, ext_hook=lambda _, data: found.append(tensors.to_numpy(data)))
    return found[0]


@pytest.mark.parametrize("dtype", tensors.DTYPES)
@pytest.mark.parametrize(
    ("shape", "value"),
    [((), 1), ((3,), [0, 1, 1]), ((-1,), [1]), ((-1,), []), ((2, 3), [[1, 0, 1], [0, 1, 0]]),
     ((-1, 2), [[1, 1]] * 3), ((2, -1), [[1], [0]]), ((1, 2, 2), [[[1, 0], [0, 1]]]),
     ((0,), []), ((0, 3), []), ((2, 0), [[], []]), ((-1, -1), [])],
)  # fmt: skip
def test_there_and_back(dtype: str, shape: tuple[int, ...], value: Any) -> None:
    if dtype == "bool":
        value = json.loads(json.dumps(value).replace("1", "true").replace("0", "false"))
    got = array(dtype, shape, value)
    assert got.dtype == dtype
    assert got.tolist() == np.asarray(value, dtype).tolist()
    assert len(got.shape) == len(shape)


ENDS = [
    ("uint8", 0, 255), ("uint16", 0, 65_535), ("uint32", 0, 2**32 - 1), ("uint64", 0, 2**64 - 1),
    ("int8", -128, 127), ("int16", -32_768, 32_767), ("int32", -(2**31), 2**31 - 1),
    ("int64", -(2**63), 2**63 - 1),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "least", "most"), ENDS)
@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_ends_of_integers(dtype: str, least: int, most: int, shape: tuple[int, ...]) -> None:
    def nested(value: int) -> Any:
        return [value] if len(shape) == 1 else [[value]]

    assert array(dtype, shape, nested(least)).item() == least
    assert array(dtype, shape, nested(most)).item() == most
    for beyond in (least - 1, most + 1):
        with pytest.raises(Refusal) as caught:
            array(dtype, shape, nested(beyond))
        assert caught.value.code == "tensor-invalid"


@pytest.mark.parametrize(
    ("dtype", "most", "beyond"),
    [("float16", 65504.0, 65520.0), ("float32", 3.4028234663852886e38, 3.4028235677973366e38)],
)
def test_ends_of_floats(dtype: str, most: float, beyond: float) -> None:
    for sign in (1, -1):
        assert np.isfinite(array(dtype, (1,), [sign * most])).all()
        assert np.isfinite(array(dtype, (1, 1), [[sign * np.nextafter(beyond, 0)]])).all()
        with pytest.raises(Invalid) as caught:
            array(dtype, (1,), [sign * beyond])
        assert caught.value.code == "tensor-invalid"


BAD: list[tuple[tuple[int, ...], Any]] = [
    ((2, 3), [[1, 2, 3]]), ((2, 3), [[1, 2, 3], [1, 2]]), ((2, 3), [1, 2]), ((2, 3), 1),
    ((2, 3), [[[1]], [[2]]]), ((-1, -1), [[1, 2], [1]]), ((-1, -1), [[1], []]),
    ((-1, -1, -1), [[[1], [1]], [[1]]]), ((-1,), [[1]]), ((-1,), ["1"]), ((-1,), [None]),
    ((-1,), [True]), ((-1,), {"a": 1}), ((3,), [1, 2]), ((), [1]), ((0,), [1]),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "value"), BAD)
@pytest.mark.parametrize("dtype", ["float32", "int64", "float16"])
def test_refused(dtype: str, shape: tuple[int, ...], value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        array(dtype, shape, value)
    assert caught.value.code == "tensor-invalid"
    assert caught.value.errors[0].code == "tensor-invalid"


def test_within_a_struct_the_place_is_named() -> None:
    class Row(msgspec.Struct):
        features: Annotated[np.ndarray, headrace.Tensor("float32", (2,))]
        label: int = 0

    made = Reader(json_schema(Row))
    for body in (b'{"features": [1]}', b'{"features": [1, "a"]}', b'{"features": 1}'):
        with pytest.raises(Invalid) as caught:
            made.json(body)
        assert caught.value.code == "tensor-invalid"
        assert caught.value.errors[0].pointer.startswith("/features")
    with pytest.raises(Invalid) as caught:
        made.json(b'{"features": [1, 2], "label": "x"}')
    assert caught.value.code == "validation-failed"


def test_deep_within_types() -> None:
    class Row(msgspec.Struct):
        both: tuple[Vector, int]
        maybe: Vector | None = None
        many: dict[str, list[Vector]] = {}

    made = Reader(json_schema(Row))
    good = b'{"both": [[1, 2], 3], "maybe": null, "many": {"a": [[1, 2]]}}'
    assert isinstance(msgspec.msgpack.decode(made.json(good))["both"][0], msgspec.msgpack.Ext)
    for body in (b'{"both": [[1], 3]}', b'{"both": [[1, 2], 3], "maybe": [1]}',
                 b'{"both": [[1, 2], 3], "many": {"a": [[1]]}}'):  # fmt: skip
        with pytest.raises(Invalid) as caught:
            made.json(body)
        assert caught.value.code == "tensor-invalid"


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float", (1,)), ("object", ()), ("float32", (-2,)), ("complex64", (1,))]
)
def test_annotations_that_are_wrong(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Tensor"):
        headrace.Tensor(dtype, shape)


def test_sizes_that_overflow_64_bits() -> None:
    huge = tensors.size(tensors.DTYPES["float64"], (1 << 40, 1 << 40))
    assert huge == 8 << 80
