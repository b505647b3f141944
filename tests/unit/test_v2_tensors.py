"""Tensors of the V2 protocol: what is taken, what is refused, and that nothing is lost."""

from __future__ import annotations

import contextlib
import math
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import Invalid
from headrace.gateway.v2_tensors import (
    Head,
    check_head,
    from_json,
    from_raw,
    from_values,
    json_values,
    nested,
    raw_bytes,
)
from headrace.tensors import BY_V2

NUMPY = {v2: np.dtype(dtype.name) for v2, dtype in BY_V2.items()}
FLOATS = ("FP16", "FP32", "FP64")


@st.composite
def arrays(draw: st.DrawFn) -> tuple[Head, np.ndarray]:
    datatype = draw(st.sampled_from(sorted(BY_V2)))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    dtype = NUMPY[datatype]
    if datatype == "BOOL":
        element: st.SearchStrategy = st.booleans()
    elif datatype in FLOATS:
        element = st.floats(width=dtype.itemsize * 8, allow_nan=False, allow_infinity=False)
    else:
        info = np.iinfo(dtype)
        element = st.integers(int(info.min), int(info.max))
    size = math.prod(shape)
    values = draw(st.lists(element, min_size=size, max_size=size))
    return Head("x", datatype, shape), np.array(values, dtype).reshape(shape)


@given(arrays())
def test_numbers_survive_every_way_in_and_out(sample: tuple[Head, np.ndarray]) -> None:
    head, array = sample
    check_head(head)
    raw = from_raw(head, array.tobytes())
    assert raw_bytes(raw) == array.tobytes()
    assert json_values(raw) == array.ravel().tolist()
    assert from_values(head, array.ravel().tolist()) == raw
    assert from_json(head, msgspec.json.encode(array.ravel().tolist())) == raw
    assert from_json(head, msgspec.json.encode(array.tolist())) == raw
    assert nested(json_values(raw), head.shape) == array.tolist()


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=6))
def test_elements_survive(elements: list[bytes]) -> None:
    head = Head("x", "BYTES", (len(elements),))
    raw = b"".join(struct.pack("<I", len(each)) + each for each in elements)
    tensor = from_raw(head, raw)
    assert tensor.data == elements
    assert raw_bytes(tensor) == raw
    assert from_values(head, elements) == tensor


@given(st.binary(max_size=40), st.lists(st.integers(0, 5), min_size=1, max_size=3))
def test_any_bytes_are_read_or_refused(data: bytes, shape: list[int]) -> None:
    for datatype in (*BY_V2, "BYTES"):
        with contextlib.suppress(Invalid):
            tensor = from_raw(Head("x", datatype, tuple(shape)), data)
            assert raw_bytes(tensor) == data


@pytest.mark.parametrize(
    ("datatype", "shape"),
    [
        ("BF16", (1,)),
        ("FLOAT", (1,)),
        ("", (1,)),
        ("FP32", ()),
        ("FP32", (1,) * 33),
        ("FP32", (-1,)),
        ("FP32", (1, -4)),
        ("FP32", (2**32,)),
        ("FP32", (2**62, 2**62)),
        ("FP32", (10**30,)),
    ],
)
def test_a_head_that_is_none(datatype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(Invalid) as refused:
        check_head(Head("x", datatype, shape))
    assert refused.value.code == "tensor-invalid"
    assert refused.value.errors[0].pointer == "/x"
    assert "FLOAT" not in refused.value.detail  # what came is not said back


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("FP32", b"\0" * 7),
        ("FP32", b"\0" * 12),
        ("FP32", b""),
        ("FP32", struct.pack("<2f", 1, math.nan)),
        ("FP32", struct.pack("<2f", -math.inf, 1)),
        ("FP64", struct.pack("<2d", 1, math.inf)),
        ("FP16", struct.pack("<2e", math.nan, 1)),
        ("BOOL", b"\1\2"),
        ("BYTES", b"\1\0\0\0a"),
        ("BYTES", b"\1\0\0\0a\1\0\0\0b\1\0\0\0c"),
        ("BYTES", b"\1\0\0\0a\xff\xff\xff\xffb"),
        ("BYTES", b"\1\0\0\0a\1\0\0"),
        ("BYTES", b""),
    ],
)
def test_raw_data_that_does_not_fit_two_elements(datatype: str, data: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        from_raw(Head("x", datatype, (2,)), data)
    assert refused.value.code == "tensor-invalid"


def test_large_finite_floats_are_taken() -> None:
    """Their last byte is one that NaN has, too."""
    data = struct.pack("<2f", 3.4e38, -3.4e38)
    assert raw_bytes(from_raw(Head("x", "FP32", (2,)), data)) == data


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("INT8", (2,), b"[1]"),
        ("INT8", (2,), b"[1,2,3]"),
        ("INT8", (2,), b"[1,300]"),
        ("UINT8", (2,), b"[1,-1]"),
        ("INT32", (2,), b"[1,2.5]"),
        ("INT32", (2,), b'[1,"2"]'),
        ("INT32", (2,), b"[1,true]"),
        ("INT32", (2,), b"[[1],[2]]"),
        ("INT32", (2,), b"12"),
        ("INT32", (2,), b'{"a":1,"b":2}'),
        ("BOOL", (2,), b"[1,0]"),
        ("FP32", (2,), b"[1,1e39]"),
        ("FP16", (2,), b"[1,1e6]"),
        ("FP64", (2,), b"[1,null]"),
        ("FP64", (2, 2), b"[[1,2],[3],[4]]"),
        ("FP64", (2, 2), b"[[1,2,3],[4]]"),
        ("FP64", (2, 2), b"[[[1,2],[3,4]]]"),
        ("FP64", (2, 2), b"[[1,2,3,4]]"),
        ("BYTES", (2,), b'["a"]'),
        ("BYTES", (2,), b'["a",1]'),
        ("BYTES", (2,), b'["a","\\ud800"]'),
    ],
)
def test_json_data_that_does_not_fit(datatype: str, shape: tuple[int, ...], data: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        from_json(Head("x", datatype, shape), data)
    assert refused.value.code == "tensor-invalid"


def test_too_many_numbers_are_counted_before_they_are_made() -> None:
    with pytest.raises(Invalid, match=r"\[1\] has 1 elements, got 3000001"):
        from_json(Head("x", "FP64", (1,)), b"[" + b"1," * 3_000_000 + b"1]")


def test_bytes_in_json_answers_are_base64() -> None:
    tensor = from_raw(Head("x", "BYTES", (1,)), b"\2\0\0\0\xff\xfe")
    assert msgspec.json.encode(json_values(tensor)) == b'["//4="]'
