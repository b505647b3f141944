"""A JSON schema -> an input that it allows: for checks and for examples. Pure.

Variants differ from each other wherever the schema lets them, so that mixed-up answers show.
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

from headrace import images, tensors

ANY_LENGTH = 3  # of a tensor's dimension that may have any
MOST_DEPTH = 8  # of types that hold themselves
SIDE_PX = 240  # of a generated image
EXTREMES: tuple[Any, ...] = ([], "", 0, -1, 1e30)

_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05",
    "duration": "PT1S",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "a@example.com",
    "uri": "https://example.com/",
}


class CannotSynthesize(Exception):
    """The schema asks for what cannot be made up, such as a text that matches a pattern."""


def synthesize(schema: dict[str, Any], variant: int = 0) -> Any:
    """A JSON value; images are base64 of a small JPEG. Raises CannotSynthesize."""
    return _Maker(schema.get("$defs", {}), variant).value(schema, 0)


class _Maker:
    def __init__(self, definitions: dict[str, Any], variant: int) -> None:
        self._definitions, self._variant = definitions, variant

    def value(self, node: dict[str, Any], depth: int) -> Any:
        if "$ref" in node:
            name = node["$ref"].removeprefix("#/$defs/")
            return self.value(self._definitions.get(name, {}), depth + 1)
        if node.get("examples"):
            return node["examples"][self._variant % len(node["examples"])]
        if images.SCHEMA_KEY in node:
            return base64.b64encode(photo(self._variant)).decode()
        if tensors.SCHEMA_KEY in node:
            return self._tensor(node[tensors.SCHEMA_KEY])
        for key, choose in (("const", lambda v: v), ("enum", self._choice)):
            if key in node:
                return choose(node[key])
        for key in ("anyOf", "oneOf", "allOf"):
            if key in node:
                return self._first(node[key], depth)
        return self._by_type(node, depth)

    def _choice(self, values: list[Any]) -> Any:
        return values[self._variant % len(values)]

    def _first(self, nodes: list[dict[str, Any]], depth: int) -> Any:
        real = [node for node in nodes if node.get("type") != "null"]
        if depth > MOST_DEPTH and len(real) < len(nodes):
            return None
        return self.value(real[0], depth) if real else None

    def _by_type(self, node: dict[str, Any], depth: int) -> Any:
        kind = node.get("type")
        kind = kind[0] if isinstance(kind, list) else kind
        makers: dict[Any, Callable[[dict[str, Any], int], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": lambda *_: self._variant % 2 == 0,
            "null": lambda *_: None,
        }
        maker = makers.get(kind)
        return maker(node, depth) if maker else f"text {self._variant}"

    def _object(self, node: dict[str, Any], depth: int) -> dict[str, Any]:
        required = set(node.get("required", ()))
        made = {
            name: self.value(child, depth + 1)
            for name, child in node.get("properties", {}).items()
            if name in required or depth <= MOST_DEPTH // 2
        }
        more = node.get("additionalProperties")
        if not made and isinstance(more, dict) and depth <= MOST_DEPTH:
            made["key"] = self.value(more, depth + 1)
        return made

    def _array(self, node: dict[str, Any], depth: int) -> list[Any]:
        if "prefixItems" in node:
            return [self.value(child, depth + 1) for child in node["prefixItems"]]
        least, most = node.get("minItems", 0), node.get("maxItems", 1 << 20)
        length = min(max(least, 2), most) if depth <= MOST_DEPTH else least
        child = node.get("items")
        return [self.value(child if isinstance(child, dict) else {}, depth + 1)] * length

    def _tensor(self, tensor: dict[str, Any]) -> Any:
        leaf: Any = tensors.DTYPES[tensor["dtype"]].python(self._variant % 100 + 1)
        if isinstance(leaf, float):
            leaf = 0.5 + (self._variant % 100) / 8  # exact in every float
        for length in reversed(tensor["shape"]):
            leaf = [leaf] * (ANY_LENGTH if length < 0 else length)
        return leaf

    def _string(self, node: dict[str, Any], depth: int) -> str:
        if node.get("format") in _FORMATS:
            return _FORMATS[node["format"]]
        if "pattern" in node:
            raise CannotSynthesize(f"a text that matches {node['pattern']!r} cannot be made up")
        text = "text" if not self._variant else f"text {self._variant}"
        text = text.ljust(node.get("minLength", 0), ".")[: node.get("maxLength")]
        if node.get("contentEncoding") == "base64":
            return base64.b64encode(text.encode()).decode()
        return text

    def _integer(self, node: dict[str, Any], depth: int) -> int:
        step = node.get("multipleOf", 1)
        low, high = _bounds(node, 1)
        number = step * (1 + self._variant)
        if low is not None and number < low:
            number = low + (-low) % step + step * self._variant
        if high is not None and number > high:
            number = high - high % step
        return int(number)

    def _number(self, node: dict[str, Any], depth: int) -> float:
        if "multipleOf" in node:
            return float(self._integer(node, depth))
        low, high = _bounds(node, 0)
        number = 0.5 + self._variant / 8
        if low is not None and number <= low:
            number = low + 0.5 + self._variant / 8
        if high is not None and number >= high:
            number = (low + high) / 2 if low is not None else high - 0.5 - self._variant / 8
        return float(number)


def _bounds(node: dict[str, Any], gap: int) -> tuple[Any, Any]:
    low, high = node.get("minimum"), node.get("maximum")
    if "exclusiveMinimum" in node:
        low = node["exclusiveMinimum"] + gap
    if "exclusiveMaximum" in node:
        high = node["exclusiveMaximum"] - gap
    return low, high


def photo(variant: int = 0) -> bytes:
    """A small JPEG: a coloured slope. Raises CannotSynthesize where Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError:
        raise CannotSynthesize(
            "an image needs Pillow; install it with: pip install headrace[images]"
        ) from None
    slope = Image.linear_gradient("L").resize((SIDE_PX, SIDE_PX))
    shade = Image.new("L", slope.size, 40 + variant * 37 % 200)
    image = Image.merge("RGB", (slope, shade, slope.transpose(Image.Transpose.ROTATE_90)))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def edges(schema: dict[str, Any]) -> Iterator[Any]:
    """The made-up input with each of its parts emptied, zeroed, made negative, or huge."""
    with contextlib.suppress(CannotSynthesize):
        base = synthesize(schema)
        for extreme in EXTREMES:
            changed = _with(base, extreme)
            if changed != base:
                yield changed


def _with(value: Any, extreme: Any) -> Any:
    """`value` with every part of the extreme's kind replaced by it."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and isinstance(extreme, float):
        return min(int(extreme), 2**31 - 1)
    if isinstance(value, int | float) and isinstance(extreme, int | float):
        return type(value)(extreme)
    if type(value) is type(extreme):
        return extreme
    if isinstance(value, list):
        return [_with(part, extreme) for part in value]
    if isinstance(value, dict):
        return {name: _with(part, extreme) for name, part in value.items()}
    return value
