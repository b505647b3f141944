"""ONNX models, read as what they are, a tree of messages: no tensor is loaded, no file opened.

Every message is looked at, also where a field comes twice and another reader takes the last:
what is refused anywhere is refused.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from headrace.registry import names
from headrace.registry.protobuf import BYTES, Field, Malformed, fields, numbers, signed, text
from headrace.registry.refusals import Rejected
from headrace.registry.rules import Rules

OURS = ("", "ai.onnx", "ai.onnx.ml")
#: They name files or libraries, whatever domain they stand in.
REFUSED_OPERATORS = frozenset({"EPContext", "PyOp", "PythonOp"})
MAX_FIELDS = 10_000_000
MAX_DEPTH = 64
#: Elements of an input or output of known shape, and of a sparse tensor when it is made dense.
MAX_ELEMENTS = 1 << 31
MAX_RANK = 32
MAX_SIZE = 1 << 40

#: message -> field -> the message in it
INNER = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse", 11: "value", 12: "value", 13: "value"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 14: "type", 15: "type", 22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 9: "opset", 11: "attribute", 12: "value"},
    "value": {2: "type"},
    "type": {1: "shaped", 4: "type in", 5: "map", 8: "shaped", 9: "type in"},
    "type in": {1: "type"},
    "map": {2: "type"},
    "shaped": {2: "shape"},
    "shape": {},
    "opset": {},
    "tensor": {},
}  # fmt: skip
_MODEL_FIELDS = {*range(1, 9), 14, 20, 25, 26}
#: data_type -> bits of an element; of others (strings) nothing is known.
BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64,
    15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
#: Elements that one number of int32_data may hold.
_PACKED = 4


class Outside(NamedTuple):
    """Where the data of a tensor lie in another file. `size`: None up to its end."""

    path: str
    offset: int
    size: int | None


class Reading:
    def __init__(self, name: str, rules: Rules) -> None:
        self.name = name
        self.domains = {*OURS, *rules.domains}
        self.outside: list[Outside] = []
        self._asked: set[tuple[str, str]] = set()  # (domain, operator) of all nodes
        self._imported: set[str] = set()
        self._defined: set[tuple[str, str]] = set()  # ... of the functions that it brings itself
        self._fields = 0

    def read(self, data: memoryview) -> None:
        """Raises Rejected; Malformed."""
        first = next(fields(data), None)
        if first is None or first.number not in _MODEL_FIELDS:
            raise Malformed("it does not begin as an ONNX model")
        self._message("model", data, 0)
        if not any(field.number == 7 for field in fields(data)):
            raise Malformed("it has no graph")
        self._check_operators()

    def _message(self, kind: str, data: memoryview, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Rejected(f"{self.name}: nested more than {MAX_DEPTH} deep")
        inner, leaves = INNER[kind], []
        for field in fields(data):
            self._fields += 1
            below = inner.get(field.number)
            if below is None:
                leaves.append(field)
            elif isinstance(field.value, int) or field.wire != BYTES:
                raise Malformed(f"field {field.number} of a {kind} is no message")
            else:
                self._message(below, field.value, depth + 1)
        if self._fields > MAX_FIELDS:
            raise Rejected(f"{self.name}: more than {MAX_FIELDS:,} parts")
        judge = getattr(self, f"_{kind}", None)
        if judge:
            judge(leaves)

    # -- one message each --------------------------------------------------------------------

    def _node(self, leaves: list[Field]) -> None:
        operators = _texts(leaves, 4)
        for domain in _texts(leaves, 7) or [""]:
            self._asked.update((domain, operator) for operator in operators)

    def _opset(self, leaves: list[Field]) -> None:
        self._imported.update(_texts(leaves, 1) or [""])

    def _function(self, leaves: list[Field]) -> None:
        for domain in _texts(leaves, 10) or [""]:
            self._defined.update((domain, name) for name in _texts(leaves, 1))

    def _sparse(self, leaves: list[Field]) -> None:
        self._elements(_integers(leaves, 3), MAX_ELEMENTS, "a sparse tensor")

    def _shape(self, leaves: list[Field]) -> None:
        known = []
        for dimension in leaves:
            if dimension.number == 1 and not isinstance(dimension.value, int):
                known += [signed(f.value) for f in fields(dimension.value)
                          if f.number == 1 and isinstance(f.value, int)]  # fmt: skip
        # 0 and -1 stand for "not known" with some exporters.
        self._elements([size for size in known if size > 0], MAX_ELEMENTS, "a shape")

    def _tensor(self, leaves: list[Field]) -> None:
        dims = _integers(leaves, 1)
        elements = self._elements(dims, 1 << 62, "a tensor")
        kinds = set(_integers(leaves, 2))
        bits = BITS.get(kinds.pop()) if len(kinds) == 1 else None
        entries = [field for field in leaves if field.number == 13]
        raw = [f.value for f in leaves if f.number == 9 and not isinstance(f.value, int)]
        if entries or 1 in _integers(leaves, 14):
            if raw:
                raise Rejected(f"{self.name}: a tensor has data both here and in another file")
            self._outside(entries, None if bits is None else -(-elements * bits // 8))
        elif raw:
            if bits is None or any(len(data) != -(-elements * bits // 8) for data in raw):
                raise Rejected(
                    f"{self.name}: a tensor says {_shown(dims)} and has {len(raw[0])} bytes"
                )
        elif elements > _PACKED * sum(map(_weight, leaves)):
            raise Rejected(f"{self.name}: a tensor says {_shown(dims)} and has no such data")

    # -- what they have in common ------------------------------------------------------------

    def _elements(self, dims: list[int], most: int, what: str) -> int:
        if len(dims) > MAX_RANK or any(not 0 <= size <= MAX_SIZE for size in dims):
            raise Rejected(f"{self.name}: {what} has the dimensions {_shown(dims)}")
        elements = math.prod(dims)
        if elements > most:
            raise Rejected(f"{self.name}: {what} of {_shown(dims)} is too large")
        return elements

    def _outside(self, entries: list[Field], size: int | None) -> None:
        said: dict[str, str] = {}
        for entry in entries:
            if isinstance(entry.value, int):
                raise Malformed("external data is no message")
            leaves = list(fields(entry.value))
            keys, values = _texts(leaves, 1), _texts(leaves, 2)
            if len(keys) != 1 or len(values) != 1 or keys[0] in said:
                raise Rejected(f"{self.name}: external data says a thing twice")
            said[keys[0]] = values[0]
        if not said.get("location"):
            raise Rejected(f"{self.name}: external data without a location")
        figures = {"offset": 0, "length": size}
        for key in figures:
            if key in said:
                if not (said[key].isascii() and said[key].isdigit() and len(said[key]) < 16):
                    raise Rejected(f"{self.name}: external data with {key} {said[key][:40]!r}")
                figures[key] = int(said[key])
        if None not in (size, figures["length"]) and figures["length"] != size:
            raise Rejected(
                f"{self.name}: a tensor of {size} bytes has external data of {figures['length']}"
            )
        folder, slash, _ = self.name.rpartition("/")
        try:
            path = names.checked(f"{folder}{slash}{said['location']}")
        except Rejected:
            raise Rejected(
                f"{self.name}: external data at {said['location'][:200]!r}, which is no file of "
                "this version"
            ) from None
        self.outside.append(Outside(path, figures["offset"] or 0, figures["length"]))

    def _check_operators(self) -> None:
        for domain, operator in sorted(self._asked):
            if operator in REFUSED_OPERATORS:
                raise Rejected(f"{self.name}: the operator {operator} is refused")
            if domain not in self.domains and (domain, operator) not in self._defined:
                raise Rejected(
                    f"{self.name}: the operator {operator} is of the domain {domain!r}, which is "
                    f"not allowed; allowed are {', '.join(map(repr, sorted(self.domains)))}"
                )
        brought = {domain for domain, _ in self._defined}
        for domain in sorted(self._imported - self.domains - brought):
            raise Rejected(f"{self.name}: it imports operators of the domain {domain!r}")


def inspect_onnx(name: str, data: memoryview, rules: Rules) -> list[Outside]:
    """Where its tensors lie outside. Raises Rejected."""
    reading = Reading(name, rules)
    try:
        reading.read(data)
    except Malformed as error:
        raise Rejected(f"{name}: not an ONNX model: {error}") from None
    return reading.outside


def _texts(leaves: list[Field], number: int) -> list[str]:
    return [text(field) for field in leaves if field.number == number]


def _integers(leaves: list[Field], number: int) -> list[int]:
    return [value for field in leaves if field.number == number for value in numbers(field)]


def _weight(field: Field) -> int:
    """At most so many elements are in a field of typed data."""
    if field.number not in (4, 5, 6, 7, 10, 11):
        return 0
    return 1 if isinstance(field.value, int) else max(1, len(field.value))


def _shown(dims: list[int]) -> str:
    return "x".join(map(str, dims[:MAX_RANK])) if dims else "a single number"
