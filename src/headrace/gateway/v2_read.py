"""V2 tensors -> the inputs of N jobs in canonical bytes, as `v2_columns` maps them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import msgspec

from headrace import tensors
from headrace.errors import Invalid, PayloadTooLarge, Refusal
from headrace.gateway.v2_columns import INPUT, Column, Kind, columns_of, resolver
from headrace.gateway.v2_tensors import (
    Head,
    WireTensor,
    check_head,
    numbers,
    said_shape,
    wrong,
)
from headrace.schema import Reader, check_pairs
from headrace.tensors import BY_V2, DTYPES

_INTEGERS = frozenset(d.v2 for d in DTYPES.values() if d.python is int)
_TAKEN = {
    Kind.NUMBER: _INTEGERS | {"FP16", "FP32", "FP64"},
    Kind.INTEGER: _INTEGERS,
    Kind.BOOLEAN: frozenset({"BOOL"}),
}


class TensorReader:
    """Reads the inputs of the type that a schema describes."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.columns, self._struct = columns_of(schema, INPUT)
        self._by_name = {column.name: column for column in self.columns}
        self._reader = Reader(self._without_tensors(schema))

    def check(self, heads: Sequence[Head], most: int) -> None:
        """Names, datatypes and shapes, before any data is touched. Raises Refusal."""
        seen: dict[str, Column] = {}
        for place, head in enumerate(heads):
            column = self._by_name.get(head.name)
            if column is None:
                known = ", ".join(self._by_name)
                raise Invalid(f"inputs[{place}]: expected one of {known}", code="tensor-invalid")
            if head.name in seen:
                raise wrong(head.name, "comes twice")
            seen[head.name] = column
            check_head(head)
        for column in self.columns:
            if column.required and not column.nullable and column.name not in seen:
                raise wrong(column.name, "is missing")
        _check_batch({head.shape[0] for head in heads}, most)
        for head in heads:
            _check_fit(seen[head.name], head)

    def read(self, given: Sequence[WireTensor]) -> list[bytes]:
        """The inputs of N jobs in canonical bytes, from tensors whose heads were checked. Raises
        Refusal."""
        rows = {tensor.name: _rows(self._by_name[tensor.name], tensor) for tensor in given}
        absent = {
            c.name: None for c in self.columns if c.name not in rows and c.required and c.nullable
        }
        size = given[0].shape[0]
        return [
            self._one({name: values[i] for name, values in rows.items()} | absent, i, size)
            for i in range(size)
        ]

    def _one(self, item: dict[str, Any], place: int, size: int) -> bytes:
        try:
            return self._reader.value(item if self._struct else item[INPUT])
        except Refusal as refusal:
            if size > 1:
                refusal.detail = f"item {place}: {refusal.detail}"
            raise

    def _without_tensors(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The input schema with its tensors open: those are checked here, from their bytes, and
        pass the reader in their wire form; lists of numbers would cost forty times more."""
        definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
        opened = {c.name for c in self.columns if c.kind is Kind.TENSOR}
        if not self._struct:
            return definitions if opened else schema
        root = resolver(schema.get("$defs", {}))(schema)
        fields = {n: {} if n in opened else node for n, node in root["properties"].items()}
        return {**root, "properties": fields} | definitions


def _check_batch(sizes: set[int], most: int) -> None:
    if len(sizes) > 1:
        raise Invalid(
            "the first dimension is the batch, and it differs between the inputs",
            code="batch-invalid",
        )
    if not sizes or 0 in sizes:
        raise Invalid("the batch is empty", code="batch-invalid")
    if max(sizes) > most:
        raise PayloadTooLarge(f"more than {most} inputs in one call", code="batch-invalid")


def _check_fit(column: Column, head: Head) -> None:
    taken = _TAKEN.get(column.kind, frozenset({column.datatype}))
    if head.datatype not in taken:
        raise wrong(column.name, f"expected datatype {column.datatype}, got {head.datatype}")
    shape = _item_shape(column, head.shape)
    if len(shape) != len(column.shape) or any(
        wanted not in (-1, got) for got, wanted in zip(shape, column.shape, strict=True)
    ):
        wanted = said_shape((-1, *column.shape))
        raise wrong(
            column.name, f"expected shape {wanted}, batch first; got {said_shape(head.shape)}"
        )


def _item_shape(column: Column, shape: tuple[int, ...]) -> tuple[int, ...]:
    """[N, 1] is taken where [N] is meant."""
    return () if not column.shape and shape[1:] == (1,) else shape[1:]


def _rows(column: Column, tensor: WireTensor) -> list[Any]:
    """One value an item: what the reader takes for this field."""
    size, shape = tensor.shape[0], _item_shape(column, tensor.shape)
    step = prod(shape)
    if column.kind is Kind.TENSOR:
        dtype, data = BY_V2[tensor.datatype], tensor.data
        assert isinstance(data, bytes)
        step *= dtype.itemsize
        return [tensors.pack(dtype, shape, data[i * step : (i + 1) * step]) for i in range(size)]
    values = _values(column, tensor)
    return [values[i * step : (i + 1) * step] for i in range(size)] if shape else values


def _values(column: Column, tensor: WireTensor) -> list[Any]:
    data = tensor.data
    if not isinstance(data, bytes):
        if column.kind is Kind.TEXT:
            return [_text(column.name, element) for element in data]
        if column.kind is Kind.JSON:
            return [_json(column.name, element) for element in data]
        return list(data)
    dtype = BY_V2[tensor.datatype]
    values = numbers(dtype, data)
    if column.kind is Kind.NUMBER and dtype.python is int:
        _check_exact(column.name, values)
    return values


def _check_exact(name: str, values: list[int]) -> None:
    if any(int(float(value)) != value for value in values):
        raise wrong(name, "an integer is too large for a float to hold exactly")


def _text(name: str, element: bytes | str) -> str:
    try:
        text = element if isinstance(element, str) else element.decode()
    except UnicodeDecodeError:
        raise wrong(name, "an element is not UTF-8 text") from None
    if "\0" in text:
        raise wrong(name, "an element holds a NUL character")
    return text


def _json(name: str, element: bytes | str) -> Any:
    data = element.encode() if isinstance(element, str) else element
    try:
        check_pairs(data)
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise wrong(name, "an element is not JSON") from None
