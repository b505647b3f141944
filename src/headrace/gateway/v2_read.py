"""V2 tensors -> the inputs of N jobs in canonical bytes, as `v2_columns` maps them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import msgspec

from headrace import tensors
from headrace.errors import Invalid, PayloadTooLarge, Refusal
from headrace.gateway.v2_columns import INPUT, Column, Kind, columns_of, resolver
from headrace.gateway.v2_tensors import BYTES, WireTensor, numbers, wrong
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

    def read(self, given: Sequence[WireTensor], most: int) -> list[bytes]:
        """The inputs of N jobs in canonical bytes. Raises Refusal."""
        found = self._match(given)
        size = _batch_size(given, most)
        rows = {column.name: _rows(column, tensor) for column, tensor in found}
        absent = {
            c.name: None for c in self.columns if c.name not in rows and c.required and c.nullable
        }
        return [
            self._one({name: values[i] for name, values in rows.items()} | absent, i, size)
            for i in range(size)
        ]

    def _match(self, given: Sequence[WireTensor]) -> list[tuple[Column, WireTensor]]:
        found: dict[str, tuple[Column, WireTensor]] = {}
        for tensor in given:
            column = self._by_name.get(tensor.name)
            if column is None:
                known = ", ".join(self._by_name)
                raise wrong(tensor.name, f"no input of this name: expected {known}")
            if tensor.name in found:
                raise wrong(tensor.name, "comes twice")
            found[tensor.name] = (column, tensor)
        for column in self.columns:
            if column.required and not column.nullable and column.name not in found:
                raise wrong(column.name, "is missing")
        if not found:
            raise Invalid("no inputs: the batch is empty", code="batch-invalid")
        return list(found.values())

    def _one(self, item: dict[str, Any], place: int, size: int) -> bytes:
        try:
            return self._reader.value(item if self._struct else item[INPUT])
        except Refusal as refusal:
            if size > 1:
                refusal.detail = f"item {place}: {refusal.detail}"
            raise

    def _without_tensors(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The input schema with its tensors open: those are checked here, from their bytes, and
        pass the reader in their wire form; lists of numbers would cost a hundred times more."""
        definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
        opened = {c.name for c in self.columns if c.kind is Kind.TENSOR}
        if not self._struct:
            return definitions if opened else schema
        root = resolver(schema.get("$defs", {}))(schema)
        fields = {n: {} if n in opened else node for n, node in root["properties"].items()}
        return {**root, "properties": fields} | definitions


def _batch_size(given: Sequence[WireTensor], most: int) -> int:
    sizes = {tensor.shape[0] for tensor in given}
    if len(sizes) > 1:
        raise Invalid(
            f"the first dimension is the batch: it differs ({', '.join(map(str, sorted(sizes)))})",
            code="batch-invalid",
        )
    size = sizes.pop()
    if not size:
        raise Invalid("the batch is empty", code="batch-invalid")
    if size > most:
        raise PayloadTooLarge(f"{size} inputs in one call; at most {most}", code="batch-invalid")
    return size


def _rows(column: Column, tensor: WireTensor) -> list[Any]:
    """One value an item: what the reader takes for this field."""
    shape = tensor.shape[1:]
    if shape == (1,) and not column.shape:
        shape = ()
    if len(shape) != len(column.shape) or any(
        wanted not in (-1, got) for got, wanted in zip(shape, column.shape, strict=True)
    ):
        wanted = ",".join(map(str, (-1, *column.shape)))
        got = ",".join(map(str, tensor.shape))
        raise wrong(column.name, f"expected shape [{wanted}] (batch first), got [{got}]")
    if column.kind is Kind.TENSOR:
        return _tensor_rows(column, tensor, shape)
    values = _values(column, tensor)
    if not column.shape:
        return values
    step = shape[0]
    return [values[i * step : (i + 1) * step] for i in range(tensor.shape[0])]


def _tensor_rows(column: Column, tensor: WireTensor, shape: tuple[int, ...]) -> list[Any]:
    if tensor.datatype != column.datatype:
        raise wrong(column.name, f"expected datatype {column.datatype}, got {tensor.datatype}")
    dtype, data = BY_V2[tensor.datatype], tensor.data
    assert isinstance(data, bytes)
    step = prod(shape) * dtype.itemsize
    return [
        tensors.pack(dtype, shape, data[i * step : (i + 1) * step]) for i in range(tensor.shape[0])
    ]


def _values(column: Column, tensor: WireTensor) -> list[Any]:
    taken = _TAKEN.get(column.kind, frozenset({BYTES}))
    if tensor.datatype not in taken:
        raise wrong(column.name, f"expected datatype {column.datatype}, got {tensor.datatype}")
    if column.kind is Kind.TEXT:
        return [_text(column.name, element) for element in tensor.data]  # type: ignore[arg-type]
    if column.kind is Kind.JSON:
        return [_json(column.name, element) for element in tensor.data]  # type: ignore[arg-type]
    if column.kind is Kind.BLOB:
        return tensor.data  # type: ignore[return-value]
    assert isinstance(tensor.data, bytes)
    dtype = BY_V2[tensor.datatype]
    values = numbers(dtype, tensor.data)
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
