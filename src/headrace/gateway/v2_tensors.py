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
from typing import Any, NamedTuple

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


class Head(NamedTuple):
    """What a client says of a tensor before its data."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class WireTensor(NamedTuple):
    """`data`: raw bytes; for BYTES the elements, `str` where they came as JSON text."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | list[bytes | str]


def wrong(name: str, detail: str) -> Invalid:
    """`name` is one of the model's own: what a client calls its tensors is not said back."""
    detail = f"tensor {name}: {detail}"
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    return Invalid(
        detail, code="tensor-invalid", errors=[FieldError(pointer, "tensor-invalid", detail)]
    )


# -- in: each raises Invalid ---------------------------------------------------------------------


def from_raw(head: Head, data: bytes) -> WireTensor:
    """From the binary extension or `raw_input_contents`."""
    if head.datatype == BYTES:
        return WireTensor(*head, _split_elements(head, data))
    dtype = BY_V2[head.datatype]
    expected = prod(head.shape) * dtype.itemsize
    if len(data) != expected:
        said = f"{said_shape(head.shape)} of {dtype.v2}"
        raise wrong(head.name, f"{said} is {expected} bytes, got {len(data)}")
    if dtype.v2 == "BOOL" and data.translate(None, b"\0\1"):
        raise wrong(head.name, "a BOOL is neither 0 nor 1")
    _check_finite(head.name, dtype, data)
    return WireTensor(*head, data)


def from_values(head: Head, values: Sequence[Any]) -> WireTensor:
    """From typed contents, or from JSON: flat values whose types are right for the datatype."""
    _check_count(head, len(values))
    if head.datatype == BYTES:
        return WireTensor(*head, list(values))
    dtype = BY_V2[head.datatype]
    data = raw_of(head.name, dtype, values)
    _check_finite(head.name, dtype, data)
    return WireTensor(*head, data)


def from_json(head: Head, data: bytes) -> WireTensor:
    """From `data` in a JSON request, flat or nested like the shape."""
    kind: Any = str
    if head.datatype != BYTES:
        kind = BY_V2[head.datatype].python
        # Counted before a number becomes an object of 24 bytes.
        _check_count(head, data.count(b",") + 1)
    try:
        values = msgspec.json.decode(data, type=list[kind])
    except msgspec.ValidationError as error:
        if len(head.shape) == 1:
            raise wrong(head.name, f"data: {error}") from None
        values = _flatten(head, data, kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise wrong(head.name, "data: a string is not Unicode text") from None
    return from_values(head, values)


def _flatten(head: Head, data: bytes, kind: Any) -> list[Any]:
    for _ in head.shape:
        kind = list[kind]
    try:
        level: list[Any] = [msgspec.json.decode(data, type=kind)]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise wrong(head.name, f"data: {error}") from None
    for length in head.shape:
        if any(len(each) != length for each in level):
            raise wrong(head.name, f"data is not nested like its shape {said_shape(head.shape)}")
        level = list(chain.from_iterable(level))
    return level


def _check_count(head: Head, got: int) -> None:
    if got != prod(head.shape):
        raise wrong(
            head.name, f"{said_shape(head.shape)} has {prod(head.shape)} elements, got {got}"
        )


def check_head(head: Head) -> None:
    """Is it a tensor at all?"""
    if head.datatype != BYTES and head.datatype not in BY_V2:
        raise wrong(head.name, f"datatype: expected one of {', '.join((*BY_V2, BYTES))}")
    if not 1 <= len(head.shape) <= MAX_RANK:
        raise wrong(
            head.name, f"{len(head.shape)} dimensions: expected 1 (the batch) to {MAX_RANK}"
        )
    if any(not 0 <= n <= MAX_DIM for n in head.shape):
        raise wrong(head.name, f"the shape has a dimension that is not 0 to {MAX_DIM}")


def said_shape(dims: Sequence[int]) -> str:
    return f"[{','.join(map(str, dims))}]"


def _check_finite(name: str, dtype: Dtype, data: bytes) -> None:
    suspects = _SUSPECT.get(dtype.v2)
    if suspects is None:
        return
    last = data[dtype.itemsize - 1 :: dtype.itemsize]
    if any(each in last for each in suspects) and not all(map(math.isfinite, numbers(dtype, data))):
        raise wrong(name, "a value is NaN or infinite")


def _split_elements(head: Head, data: bytes) -> list[bytes | str]:
    """Each element: 4 bytes of length (little endian), then as many bytes."""
    elements: list[bytes | str] = []
    count, at, end = prod(head.shape), 0, len(data)
    while at + 4 <= end and len(elements) < count:
        size = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if at + size > end:
            break
        elements.append(data[at : at + size])
        at += size
    if at != end or len(elements) != count:
        raise wrong(head.name, f"the data is not {count} elements, each behind its length")
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
