"""Results of N jobs in canonical bytes -> V2 tensors, as `v2_columns` maps them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from headrace import tensors
from headrace.errors import Invalid, ModelFailed
from headrace.gateway.v2_columns import OUTPUT, Column, Kind, columns_of
from headrace.gateway.v2_tensors import BYTES, WireTensor, nested, numbers, raw_of
from headrace.tensors import BY_V2, Dtype

_from_canonical = msgspec.msgpack.Decoder().decode


class Stack:
    """Stacks the outputs of the type that a schema describes."""

    def __init__(self, schema: dict[str, Any]) -> None:
        columns, self._struct = columns_of(schema, OUTPUT)
        # An output that may be None is declared as what can say None.
        self.columns = [
            c._replace(kind=Kind.JSON, datatype=BYTES, shape=()) if c.nullable else c
            for c in columns
        ]

    def stack(self, results: Sequence[bytes], wanted: Sequence[str]) -> list[WireTensor]:
        """Canonical results -> the wanted outputs (none named: all). Raises Refusal."""
        values = [_from_canonical(result) for result in results]
        columns = self.wanted(wanted)
        if not self._struct:
            return [_stacked(column, values) for column in columns]
        if not all(isinstance(value, dict) for value in values):
            raise ModelFailed("the model's output is not as declared")
        return [
            _stacked(column, [value.get(column.name, column.default) for value in values])
            for column in columns
        ]

    def wanted(self, names: Sequence[str]) -> list[Column]:
        """Raises Invalid for an output that the model does not have."""
        by_name = {column.name: column for column in self.columns}
        for place, name in enumerate(names):
            if name not in by_name:
                known = ", ".join(by_name)
                raise Invalid(f"outputs[{place}]: expected one of {known}", code="tensor-invalid")
        return [by_name[name] for name in dict.fromkeys(names)] or self.columns


def _stacked(column: Column, values: list[Any]) -> WireTensor:
    """One output of all items. Raises Invalid where they differ in shape, ModelFailed where they
    are not what the model declares."""
    try:
        if column.kind is Kind.JSON:
            return WireTensor(column.name, BYTES, (len(values),), [_to_json(v) for v in values])
        if isinstance(values[0], msgspec.msgpack.Ext):
            return _stack_arrays(column, values)
        if column.kind is Kind.TENSOR:
            return _stack_lists(column, values)
        if not column.shape:
            return _tensor(column, (len(values),), values)
        _same_shape(column, [(len(value),) for value in values])
        flat = list(chain.from_iterable(values))
        return _tensor(column, (len(values), len(values[0])), flat)
    except (TypeError, ValueError, AttributeError, KeyError):
        raise ModelFailed(f"the model's output {column.name!r} is not as declared") from None


def _stack_arrays(column: Column, values: list[Any]) -> WireTensor:
    parts = [_unpack(value) for value in values]
    dtype, shape, _ = parts[0]
    if any(part[0] is not dtype for part in parts):
        raise TypeError
    _same_shape(column, [part[1] for part in parts])
    data = b"".join(part[2] for part in parts)
    return WireTensor(column.name, dtype.v2, (len(values), *shape), data)


def _stack_lists(column: Column, values: list[Any]) -> WireTensor:
    """The model gave lists where it declares an array."""
    flat, shape = values, [len(values)]
    for _ in column.shape:
        _same_shape(column, [(len(each),) for each in flat])
        shape.append(len(flat[0]) if flat else 0)
        flat = list(chain.from_iterable(flat))
    return _tensor(column, tuple(shape), flat)


def _same_shape(column: Column, shapes: Sequence[tuple[int, ...]]) -> None:
    if any(shape != shapes[0] for shape in shapes):
        raise Invalid(
            f"output {column.name!r} differs in shape between the items of the batch: "
            "send them one by one",
            code="batch-invalid",
        )


def _tensor(column: Column, shape: tuple[int, ...], flat: list[Any]) -> WireTensor:
    """Raises TypeError or ValueError where a value is not of the column's kind."""
    if column.datatype == BYTES:
        wanted = str if column.kind is Kind.TEXT else bytes
        data = [each if isinstance(each, wanted) else _plain(each, wanted) for each in flat]
        return WireTensor(column.name, BYTES, shape, data)
    try:
        raw = raw_of(column.name, BY_V2[column.datatype], flat)
    except Invalid:
        raise TypeError from None
    return WireTensor(column.name, column.datatype, shape, raw)


def _plain(value: Any, wanted: type) -> Any:
    """Times, UUIDs and so on, as the text that JSON has for them."""
    plain = msgspec.to_builtins(value)
    if not isinstance(plain, wanted):
        raise TypeError
    return plain


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=_lists).decode()


def _lists(value: Any) -> Any:
    if isinstance(value, msgspec.msgpack.Ext) and value.code == tensors.TENSOR_EXT:
        dtype, shape, raw = _unpack(value)
        return nested(numbers(dtype, raw), shape)
    raise TypeError


def _unpack(value: msgspec.msgpack.Ext) -> tuple[Dtype, tuple[int, ...], memoryview]:
    assert isinstance(value.data, bytes)
    return tensors.unpack(value.data)
