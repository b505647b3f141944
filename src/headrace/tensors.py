"""Arrays in a signature and on the wire.

An author writes `Annotated[np.ndarray, Tensor("float32", (64,))]`. On the wire an array is msgpack
extension 1: dtype code (1 byte), rank (1 byte), each dimension (uint32 LE), then the data, C order,
little endian. Written and read here without numpy, so that a gateway need not load it.
"""

from __future__ import annotations

import array
import struct
from collections.abc import Callable, Sequence
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from headrace.errors import FieldError, Invalid

if TYPE_CHECKING:
    import numpy as np

TENSOR_EXT = 1
SCHEMA_KEY = "x-headrace-tensor"


class Dtype(NamedTuple):
    """`code` is ours, `v2` the Open Inference Protocol's name, `typecode` of the `array` module."""

    code: int
    name: str
    v2: str
    itemsize: int
    typecode: str
    python: type


DTYPES = {
    d.name: d
    for d in (
        Dtype(0, "bool", "BOOL", 1, "B", bool),
        Dtype(1, "uint8", "UINT8", 1, "B", int),
        Dtype(2, "uint16", "UINT16", 2, "H", int),
        Dtype(3, "uint32", "UINT32", 4, "I", int),
        Dtype(4, "uint64", "UINT64", 8, "Q", int),
        Dtype(5, "int8", "INT8", 1, "b", int),
        Dtype(6, "int16", "INT16", 2, "h", int),
        Dtype(7, "int32", "INT32", 4, "i", int),
        Dtype(8, "int64", "INT64", 8, "q", int),
        Dtype(9, "float16", "FP16", 2, "", float),
        Dtype(10, "float32", "FP32", 4, "f", float),
        Dtype(11, "float64", "FP64", 8, "d", float),
    )
}
#: numpy's names of the dtypes in order of their codes, little endian
_NUMPY = ("?", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
BY_CODE = {d.code: d for d in DTYPES.values()}
BY_V2 = {d.v2: d for d in DTYPES.values()}


def Tensor(dtype: str, shape: Sequence[int]) -> msgspec.Meta:  # noqa: N802 - reads as a type
    """Annotation of an array: its dtype (numpy's name) and shape; -1 stands for any length.

    The shape is that of one item, without a batch dimension.
    """
    if dtype not in DTYPES:
        raise ValueError(f"Tensor dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    dims = [int(n) for n in shape]
    if any(n < -1 for n in dims):
        raise ValueError(f"Tensor shape {tuple(shape)}: expected lengths >= 0, or -1 for any")
    python = DTYPES[dtype].python
    leaf = "boolean" if python is bool else "integer" if python is int else "number"
    node: dict[str, Any] = {"type": leaf}
    for n in reversed(dims):
        node = {"type": "array", "items": node}
        if n >= 0:
            node |= {"minItems": n, "maxItems": n}
    return msgspec.Meta(extra_json_schema=node | {SCHEMA_KEY: {"dtype": dtype, "shape": dims}})


def pack(dtype: Dtype, shape: Sequence[int], data: bytes) -> msgspec.msgpack.Ext:
    """Raw little-endian bytes -> the wire form."""
    head = struct.pack(f"<BB{len(shape)}I", dtype.code, len(shape), *shape)
    return msgspec.msgpack.Ext(TENSOR_EXT, head + data)


def unpack(data: bytes | memoryview) -> tuple[Dtype, tuple[int, ...], memoryview]:
    """The payload of extension 1 -> dtype, shape, raw bytes."""
    view = memoryview(data)
    code, rank = view[0], view[1]
    shape = struct.unpack_from(f"<{rank}I", view, 2)
    return BY_CODE[code], shape, view[2 + 4 * rank :]


def to_numpy(data: bytes | memoryview) -> np.ndarray[Any, Any]:
    """The payload of extension 1 -> a read-only array over the same memory."""
    import numpy as np

    rank = data[1]
    flat = np.frombuffer(data, _NUMPY[data[0]], offset=2 + 4 * rank)
    return flat if rank == 1 else flat.reshape(struct.unpack_from(f"<{rank}I", data, 2))


def from_numpy(value: np.ndarray[Any, Any]) -> msgspec.msgpack.Ext:
    dtype = DTYPES.get(value.dtype.name)
    if dtype is None:
        raise TypeError(f"an array of dtype {value.dtype} has no wire form")
    return pack(dtype, value.shape, value.tobytes())


#: Half a step above the largest float: what is below is rounded to it, the rest to infinity.
_FLOAT_LIMITS = {"float16": 65520.0, "float32": 3.4028235677973366e38}


def limits(dtype_name: str) -> dict[str, Any]:
    """What JSON schema says of one element; nothing where JSON itself can hold no other."""
    if dtype_name in _FLOAT_LIMITS:
        most = _FLOAT_LIMITS[dtype_name]
        return {"exclusiveMinimum": -most, "exclusiveMaximum": most}
    dtype = DTYPES[dtype_name]
    if dtype.python is not int or dtype.itemsize == 8:  # the packer sees to 64 bits
        return {}
    bits = 8 * dtype.itemsize
    if dtype_name.startswith("u"):
        return {"minimum": 0, "maximum": (1 << bits) - 1}
    return {"minimum": -(1 << bits - 1), "maximum": (1 << bits - 1) - 1}


def packer(dtype_name: str, shape: Sequence[int], pointer: str) -> Callable[[Any], Any]:
    """A function from nested lists (already checked for element type) to the wire form."""
    packing = _Packing(DTYPES[dtype_name], shape, pointer)
    if len(shape) != 1:
        return packing.nested
    return packing.flat if shape[0] < 0 else packing.fixed


class _Packing:
    """Lists -> the wire form, for one dtype and shape."""

    def __init__(self, dtype: Dtype, shape: Sequence[int], pointer: str) -> None:
        self._dtype, self._shape, self._pointer = dtype, shape, pointer
        if len(shape) == 1 and shape[0] >= 0:
            self._whole = struct.Struct(f"<BBI{shape[0]}{dtype.typecode or 'e'}").pack

    def _refuse(self, detail: str) -> Invalid:
        error = FieldError(self._pointer, "tensor-invalid", detail)
        return Invalid(detail, code="tensor-invalid", errors=[error])

    def _elements(self, values: list[Any]) -> bytes:
        dtype = self._dtype
        try:
            if not dtype.typecode:
                return struct.pack(f"<{len(values)}e", *values)
            return array.array(dtype.typecode, values).tobytes()
        except OverflowError:
            raise self._refuse(f"a value does not fit {dtype.name}") from None

    def fixed(self, values: list[Any]) -> msgspec.msgpack.Ext:
        """The most common kind, head and data in one step."""
        try:
            data = self._whole(self._dtype.code, 1, len(values), *values)
        except (OverflowError, struct.error):
            raise self._refuse(f"a value does not fit {self._dtype.name}") from None
        return msgspec.msgpack.Ext(TENSOR_EXT, data)

    def flat(self, values: list[Any]) -> msgspec.msgpack.Ext:
        return pack(self._dtype, (len(values),), self._elements(values))

    def nested(self, values: Any) -> msgspec.msgpack.Ext:
        """Unrolled level by level, which is also where lists of unequal length are found."""
        got, level = [], [values]
        for wanted in self._shape:
            lengths = set(map(len, level))
            if len(lengths) > 1:
                raise self._refuse(
                    f"expected shape {list(self._shape)}, -1 for any; the lists differ in length"
                )
            got.append(lengths.pop() if lengths else max(0, wanted))
            level = list(chain.from_iterable(level))
        return pack(self._dtype, got, self._elements(level))


def size(dtype: Dtype, shape: Sequence[int]) -> int:
    """Bytes of data that a tensor of this shape has."""
    return dtype.itemsize * prod(shape)
