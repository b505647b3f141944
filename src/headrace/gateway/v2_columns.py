"""A model's JSON schemas -> the tensors it takes and gives: the mapping of the V2 protocol.

The inputs of a model are the fields of its input struct; a model whose input is no struct has one
input, `input`. Outputs likewise; the one output is `output`. The first dimension is the batch:
[N, ...] makes N jobs, whose results are stacked again in order.

| a field is               | datatype | shape      | one element is                              |
|--------------------------|----------|------------|---------------------------------------------|
| array (`Tensor`)         | its own  | [-1, ...]  | a number; the datatype must be the same     |
| float                    | FP64     | [-1]       | any FP or INT that a double holds exactly   |
| int                      | INT64    | [-1]       | any INT or UINT                             |
| bool                     | BOOL     | [-1]       |                                             |
| str                      | BYTES    | [-1]       | UTF-8                                       |
| bytes, image             | BYTES    | [-1]       | the bytes; base64 in JSON                   |
| list of one of these     | as above | [-1, -1]   | as above                                    |
| anything else, nested    | BYTES    | [-1]       | JSON                                        |

[N, 1] is taken where [N] is meant. A field with a default may be left out; one that may be None is
None where it is left out. An output that may be None is JSON, since no number says it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from headrace import images, tensors
from headrace.gateway.v2_tensors import BYTES
from headrace.tensors import DTYPES

INPUT, OUTPUT = "input", "output"


class Kind(Enum):
    TENSOR = "an array"
    NUMBER = "float"
    INTEGER = "int"
    BOOLEAN = "bool"
    TEXT = "str"
    BLOB = "bytes"
    JSON = "JSON"


_DATATYPE = {Kind.NUMBER: "FP64", Kind.INTEGER: "INT64", Kind.BOOLEAN: "BOOL"}
_SCALAR = {
    "number": Kind.NUMBER,
    "integer": Kind.INTEGER,
    "boolean": Kind.BOOLEAN,
    "string": Kind.TEXT,
}


class Column(NamedTuple):
    """One tensor of a model. `shape` is that of one item, without the batch; -1 for any length."""

    name: str
    kind: Kind
    datatype: str
    shape: tuple[int, ...]
    required: bool = True
    nullable: bool = False
    default: Any = None


def columns_of(schema: dict[str, Any], alone: str) -> tuple[list[Column], bool]:
    """The columns of a schema, and whether they are the fields of a struct (or `alone` is all)."""
    resolve = resolver(schema.get("$defs", {}))
    root = resolve(schema)
    fields = root.get("properties")
    if not fields:
        return [_column(alone, schema, resolve)], False
    required = set(root.get("required", ()))
    return [
        _column(name, node, resolve)._replace(
            required=name in required, default=resolve(node).get("default")
        )
        for name, node in fields.items()
    ], True


def resolver(definitions: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def resolve(node: dict[str, Any]) -> dict[str, Any]:
        for _ in range(64):  # a $ref that leads to itself is nothing
            ref = node.get("$ref", "")
            if not ref.startswith("#/$defs/"):
                return node
            node = definitions.get(ref.removeprefix("#/$defs/"), {})
        return {}

    return resolve


def _column(name: str, node: dict[str, Any], resolve: Any) -> Column:
    node = resolve(node)
    options = node.get("anyOf", [])
    real = [option for option in options if option.get("type") != "null"]
    if len(real) == 1:
        return _column(name, real[0], resolve)._replace(nullable=len(options) > 1)
    if tensors.SCHEMA_KEY in node:
        tensor = node[tensors.SCHEMA_KEY]
        return Column(name, Kind.TENSOR, DTYPES[tensor["dtype"]].v2, tuple(tensor["shape"]))
    kind = _scalar(node)
    shape: tuple[int, ...] = ()
    if kind is Kind.JSON and node.get("type") == "array" and isinstance(node.get("items"), dict):
        kind = _scalar(resolve(node["items"]))
        if kind is not Kind.JSON:
            shape = (_length(node),)
    return Column(name, kind, _DATATYPE.get(kind, BYTES), shape)


def _length(node: dict[str, Any]) -> int:
    least, most = node.get("minItems", 0), node.get("maxItems", -1)
    return int(most) if least == most else -1


def _scalar(node: dict[str, Any]) -> Kind:
    if "enum" in node or "const" in node:
        kinds = {type(value) for value in node.get("enum", [node.get("const")])}
        return Kind.TEXT if kinds == {str} else Kind.INTEGER if kinds == {int} else Kind.JSON
    if tensors.SCHEMA_KEY in node:
        return Kind.JSON
    if node.get("contentEncoding") == "base64" or images.SCHEMA_KEY in node:
        return Kind.BLOB
    return _SCALAR.get(node.get("type", ""), Kind.JSON)
