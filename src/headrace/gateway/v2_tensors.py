"""A tensor of the Open Inference Protocol, whole and checked: name, datatype, shape, data.

    JSON lists, typed contents, raw bytes --> WireTensor --> JSON lists, raw bytes

Numbers are kept as the protocol's raw bytes (C order, little endian), BYTES as a list of elements.
`array` and `struct` do all of it: a gateway need not load numpy. Every mistake is 422
`tensor-invalid` and names the tensor.
"""

from __future__ import annotations

import array
import math
import struct
from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Any, NamedTuple, NoReturn

import msgspec

from headrace.errors import FieldError, Invalid
from headrace.tensors import BY_V2, Dtype

BYTES = "BYTES"
MAX_DIM = 2**32 - 1  # what the wire form inside the house can say
MAX_RANK = 32

#: The last byte of a float whose exponent may be all ones (NaN, Inf). Looking for these in every
#: nth byte costs 1 ns a number; only where one is found are the numbers themselves looked at.
_SUSPECT = {
    "FP16": (*range(0x7C, 0x80), *range(0xFC, 0x100)),
    "FP32": (0x7F, 0xFF),
    "FP64": (0x7F, 0xFF),
}


class WireTensor(NamedTuple):
    """`data`: raw bytes; for BYTES the elements, `str` where they came as JSON text."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | list[bytes | str]


def wrong(name: str, detail: str) -> Invalid:
    detail = f"tensor {name[:64]!r}: {detail}"
    pointer = "/" + name[:64].replace("~", "~0").replace("/", "~1")
    return Invalid(
        detail, code="tensor-invalid", errors=[FieldError(pointer, "tensor-invalid", detail)]
    )


# -- in: each raises Invalid ---------------------------------------------------------------------


def from_raw(name: str, datatype: str, shape: Sequence[int], data: bytes) -> WireTensor:
    """From the binary extension or `raw_input_contents`."""
    dims = check_dims(name, shape)
    if datatype == BYTES:
        return WireTensor(name, BYTES, dims, _split_elements(name, prod(dims), data))
    dtype = _dtype(name, datatype)
    expected = prod(dims) * dtype.itemsize
    if len(data) != expected:
        raise wrong(name, f"{_said(dims)} of {datatype} is {expected} bytes, got {len(data)}")
    if datatype == "BOOL" and data.translate(None, b"\0\1"):
        raise wrong(name, "a BOOL is neither 0 nor 1")
    _check_finite(name, dtype, data)
    return WireTensor(name, datatype, dims, data)


def from_values(
    name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]
) -> WireTensor:
    """From typed contents, or from JSON: flat values whose types are right for the datatype."""
    dims = check_dims(name, shape)
    if len(values) != prod(dims):
        raise wrong(name, f"{_said(dims)} has {prod(dims)} elements, got {len(values)}")
    if datatype == BYTES:
        return WireTensor(name, BYTES, dims, list(values))
    dtype = _dtype(name, datatype)
    data = raw_of(name, dtype, values)
    _check_finite(name, dtype, data)
    return WireTensor(name, datatype, dims, data)


def from_json(name: str, datatype: str, shape: Sequence[int], data: msgspec.Raw) -> WireTensor:
    """From `data` in a JSON request, flat or nested like the shape."""
    dims = check_dims(name, shape)
    kind = str if datatype == BYTES else _dtype(name, datatype).python
    try:
        values = msgspec.json.decode(data, type=list[kind])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        if len(dims) == 1:
            _refuse_json(name, error)
        values = _flatten(name, data, kind, dims)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse_json(name, error)
    return from_values(name, datatype, dims, values)


def _flatten(name: str, data: msgspec.Raw, kind: Any, dims: tuple[int, ...]) -> list[Any]:
    for _ in dims:
        kind = list[kind]
    try:
        values: list[Any] = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse_json(name, error)
    if len(values) != dims[0]:
        raise wrong(name, f"data is not nested like its shape {_said(dims)}")
    for length in dims[1:]:
        if any(len(each) != length for each in values):
            raise wrong(name, f"data is not nested like its shape {_said(dims)}")
        values = list(chain.from_iterable(values))
    return values


def _refuse_json(name: str, error: Exception) -> NoReturn:
    raise wrong(name, f"data: {error}") from None


def check_dims(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    if not 1 <= len(shape) <= MAX_RANK:
        raise wrong(name, f"{len(shape)} dimensions: expected 1 (the batch) to {MAX_RANK}")
    if any(not 0 <= n <= MAX_DIM for n in shape):
        raise wrong(name, f"the shape has a dimension that is not 0 to {MAX_DIM}")
    return tuple(shape)


def _said(dims: Sequence[int]) -> str:
    return f"[{','.join(map(str, dims))}]"


def _dtype(name: str, datatype: str) -> Dtype:
    dtype = BY_V2.get(datatype)
    if dtype is None:
        known = ", ".join((*BY_V2, BYTES))
        raise wrong(name, f"datatype {datatype[:16]!r}: expected one of {known}")
    return dtype


def _check_finite(name: str, dtype: Dtype, data: bytes) -> None:
    suspects = _SUSPECT.get(dtype.v2)
    if suspects is None:
        return
    last = data[dtype.itemsize - 1 :: dtype.itemsize]
    if any(each in last for each in suspects) and not all(map(math.isfinite, numbers(dtype, data))):
        raise wrong(name, "a value is NaN or infinite")


def _split_elements(name: str, count: int, data: bytes) -> list[bytes | str]:
    """Each element: 4 bytes of length (little endian), then as many bytes."""
    elements: list[bytes | str] = []
    at, end = 0, len(data)
    while at + 4 <= end and len(elements) < count:
        size = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if at + size > end:
            break
        elements.append(data[at : at + size])
        at += size
    if at != end or len(elements) != count:
        raise wrong(name, f"the data is not {count} elements, each behind its length")
    return elements


# -- between values and bytes --------------------------------------------------------------------


def numbers(dtype: Dtype, data: bytes | memoryview) -> list[Any]:
    """Raw bytes -> Python's numbers, or bools."""
    if dtype.v2 == "FP16":
        return list(struct.unpack(f"<{len(data) // 2}e", data))
    values = array.array(dtype.typecode)
    values.frombytes(data)
    return list(map(bool, values)) if dtype.python is bool else values.tolist()


def raw_of(name: str, dtype: Dtype, values: Sequence[Any]) -> bytes:
    """Numbers -> raw bytes. Raises Invalid where one does not fit."""
    try:
        if dtype.v2 == "FP16":
            return struct.pack(f"<{len(values)}e", *values)
        return array.array(dtype.typecode, values).tobytes()
    except (OverflowError, TypeError, struct.error):
        raise wrong(name, f"a value does not fit {dtype.v2}") from None


def nested(values: Sequence[Any], shape: Sequence[int]) -> Any:
    """Flat values -> lists in lists."""
    if len(shape) < 2:
        return values if shape else values[0]
    step = prod(shape[1:])
    return [nested(values[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


# -- out -----------------------------------------------------------------------------------------


def json_values(tensor: WireTensor) -> list[Any]:
    """The flat `data` of a JSON answer: bytes that are no text come as base64."""
    if tensor.datatype == BYTES:
        return list(tensor.data)
    assert isinstance(tensor.data, bytes)
    return numbers(BY_V2[tensor.datatype], tensor.data)


def raw_bytes(tensor: WireTensor) -> bytes:
    """The data of a binary answer."""
    if isinstance(tensor.data, bytes):
        return tensor.data
    parts: list[bytes] = []
    for element in tensor.data:
        encoded = element.encode() if isinstance(element, str) else element
        parts += (len(encoded).to_bytes(4, "little"), encoded)
    return b"".join(parts)
