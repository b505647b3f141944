"""A model's JSON schema -> a reader of inputs: what the gateway checks a call with.

    Reader(schema).json(body) -> canonical msgpack, or a Refusal with the place that is wrong

The schema becomes msgspec types once, when the model is first seen; a call then costs one typed
decode and one encode. What a schema says that msgspec cannot check (unions of objects, formats) is
left to the model process, which has the author's types.
"""

from __future__ import annotations

import json
import keyword
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import UNSET, Meta, UnsetType

from headrace import images, tensors
from headrace.errors import BadRequest, Invalid, PayloadTooLarge, Refusal
from headrace.signature import invalid

Convert = Callable[[Any], Any]

MAX_KEYS = 100_000

_canonical = msgspec.msgpack.Encoder().encode


class Reader:
    """Reads one input, or many, of the type that a schema describes."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        build = _Builder(schema.get("$defs", {}))
        kind, self._convert = build.node(schema, "")
        self._decode = msgspec.json.Decoder(kind).decode
        self._check = kind
        self._split = msgspec.json.Decoder(list[msgspec.Raw]).decode
        #: the properties at the top, by name: what multipart parts and V2 tensors are matched with
        self.properties: dict[str, dict[str, Any]] = {
            name: build.resolve(node)
            for name, node in build.resolve(schema).get("properties", {}).items()
        }
        self.root = build.resolve(schema)
        self.is_image = images.SCHEMA_KEY in self.root

    def json(self, body: bytes) -> bytes:
        """One input in JSON -> canonical bytes. Raises Refusal."""
        if b"{" in body:
            check_pairs(body)
        try:
            value = self._decode(body)
        except msgspec.ValidationError as error:
            _well_formed(body)
            raise _wrong(str(error)) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise _malformed(error) from None
        return _canonical(self._convert(value) if self._convert else value)

    def many(self, body: bytes, most: int) -> list[bytes | Refusal]:
        """A JSON array of inputs -> canonical bytes or the refusal of each. Raises Refusal."""
        try:
            raws = self._split(body)
        except msgspec.ValidationError:
            raise Invalid("expected a JSON array of inputs", code="batch-invalid") from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise _malformed(error) from None
        if not raws:
            raise Invalid("the array of inputs is empty", code="batch-invalid")
        if len(raws) > most:
            raise PayloadTooLarge(
                f"{len(raws)} inputs in one call; at most {most}", code="batch-invalid"
            )
        return [self._one(bytes(raw)) for raw in raws]

    def _one(self, raw: bytes) -> bytes | Refusal:
        try:
            return self.json(raw)
        except Refusal as refusal:
            return refusal

    def value(self, value: Any) -> bytes:
        """One input as Python values (from multipart or tensors) -> canonical bytes."""
        try:
            checked = msgspec.convert(value, self._check)
        except msgspec.ValidationError as error:
            raise _wrong(str(error)) from None
        return _canonical(self._convert(checked) if self._convert else checked)


def check_pairs(body: bytes) -> None:
    """Refuses what msgspec would let pass: a key twice in one object, NUL, a flood of keys."""
    if b"\\u0000" in body:
        raise BadRequest("a string holds a NUL character", code="json-limits")
    if body.count(b'":') + body.count(b'" :') > MAX_KEYS:
        raise BadRequest(f"more than {MAX_KEYS} keys", code="json-limits")
    try:
        json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return  # malformed: the decoder says so in its own words


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise BadRequest("an object has the same key twice", code="malformed-json")


def _well_formed(body: bytes) -> None:
    """The typed decoder stops at the first wrong type: is the rest JSON at all?"""
    try:
        msgspec.json.decode(body)
    except msgspec.ValidationError:
        return
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _malformed(error) from None


def _malformed(error: Exception) -> BadRequest:
    if isinstance(error, RecursionError):
        return BadRequest("the JSON is nested too deep", code="json-limits")
    if isinstance(error, UnicodeDecodeError) or "surrogate" in str(error):
        return BadRequest("a string is not Unicode text", code="json-limits")
    return BadRequest(str(error), code="malformed-json")


def _wrong(message: str) -> Refusal:
    if "out of range" in message:
        return BadRequest(message.partition(" - at")[0], code="json-limits")
    return invalid(message)


class _Builder:
    """Schema node -> (type for msgspec, function that makes the decoded value canonical)."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self.definitions = definitions
        self._open: set[str] = set()

    def resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        ref = node.get("$ref", "")
        if not ref.startswith("#/$defs/"):
            return node
        return self.resolve(self.definitions.get(ref.removeprefix("#/$defs/"), {}))

    def node(self, node: dict[str, Any], pointer: str) -> tuple[Any, Convert | None]:
        ref = node.get("$ref")
        if ref is not None:
            if ref in self._open:  # a recursive type: the model process checks below here
                return Any, None
            self._open.add(ref)
            try:
                return self.node(self.resolve(node), pointer)
            finally:
                self._open.discard(ref)
        if tensors.SCHEMA_KEY in node:
            tensor = node[tensors.SCHEMA_KEY]
            return _lists(node), tensors.packer(tensor["dtype"], tensor["shape"], pointer)
        if images.SCHEMA_KEY in node:
            return bytes, lambda data: (images.inspect(data, pointer), data)[1]
        if "enum" in node or "const" in node:
            return _literal(node), None
        if "anyOf" in node:
            return self.any_of(node["anyOf"], pointer)
        build = getattr(self, f"type_{node.get('type')}", None)
        return build(node, pointer) if build else (Any, None)

    def any_of(self, nodes: list[dict[str, Any]], pointer: str) -> tuple[Any, Convert | None]:
        real = [n for n in nodes if n.get("type") != "null"]
        if len(real) == 1:
            kind, convert = self.node(real[0], pointer)
            if len(real) == len(nodes):
                return kind, convert
            return Union[kind, None], _optional(convert)  # noqa: UP007 - built at run time
        plain = {"string", "integer", "number", "boolean"}
        if all(self.resolve(n).get("type") in plain for n in real):
            kinds = [self.node(n, pointer)[0] for n in nodes if n.get("type") != "null"]
            kinds += [None] * (len(real) != len(nodes))
            return Union[tuple(kinds)], None  # noqa: UP007
        return Any, None

    def type_object(self, node: dict[str, Any], pointer: str) -> tuple[Any, Convert | None]:
        if "properties" not in node:
            values = node.get("additionalProperties")
            if not isinstance(values, dict):
                return dict[str, Any], None
            kind, convert = self.node(values, pointer)
            each = convert and (lambda d: {k: convert(v) for k, v in d.items()})
            return dict[str, kind], each  # type: ignore[valid-type]
        return self._struct(node, pointer)

    def _struct(self, node: dict[str, Any], pointer: str) -> tuple[Any, Convert | None]:
        required, fields, converts = set(node.get("required", ())), [], []
        rename = {}
        for number, (name, child) in enumerate(node["properties"].items()):
            kind, convert = self.node(child, f"{pointer}/{name}")
            plain = name.isidentifier() and not keyword.iskeyword(name)
            attribute = name if plain and not name.startswith("_") else f"field_{number}"
            rename[attribute] = name
            if convert:
                converts.append((attribute, convert))
            if name in required:
                fields.append((attribute, kind))
            else:
                fields.append((attribute, Union[kind, UnsetType], UNSET))  # noqa: UP007
        struct = msgspec.defstruct(
            str(node.get("title", "Input")),
            fields,
            rename=rename,
            forbid_unknown_fields=node.get("additionalProperties") is not True,
            kw_only=True,
        )
        return struct, _each_field(converts) if converts else None

    def type_array(self, node: dict[str, Any], pointer: str) -> tuple[Any, Convert | None]:
        if "prefixItems" in node:
            kinds = [self.node(n, f"{pointer}/{i}")[0] for i, n in enumerate(node["prefixItems"])]
            return tuple[tuple(kinds)], None  # type: ignore[misc]
        items = node.get("items")
        kind, convert = self.node(items, pointer) if isinstance(items, dict) else (Any, None)
        each = convert and (lambda values: [convert(v) for v in values])
        return _limited(list[kind], node, LENGTH_OF_LIST), each  # type: ignore[valid-type]

    def type_string(self, node: dict[str, Any], _: str) -> tuple[Any, Convert | None]:
        kind = bytes if node.get("contentEncoding") == "base64" else str
        return _limited(kind, node, LENGTH_OF_TEXT), None

    def type_integer(self, node: dict[str, Any], _: str) -> tuple[Any, Convert | None]:
        return _limited(int, node, RANGE), None

    def type_number(self, node: dict[str, Any], _: str) -> tuple[Any, Convert | None]:
        return _limited(float, node, RANGE), None

    def type_boolean(self, node: dict[str, Any], _: str) -> tuple[Any, Convert | None]:
        return bool, None

    def type_null(self, node: dict[str, Any], _: str) -> tuple[Any, Convert | None]:
        return None, None


LENGTH_OF_LIST = {"minItems": "min_length", "maxItems": "max_length"}
LENGTH_OF_TEXT = {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"}
RANGE = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}


def _limited(kind: Any, node: dict[str, Any], limits: dict[str, str]) -> Any:
    found = {ours: node[theirs] for theirs, ours in limits.items() if theirs in node}
    return Annotated[kind, Meta(**found)] if found else kind


def _literal(node: dict[str, Any]) -> Any:
    values = node["enum"] if "enum" in node else [node["const"]]
    if all(isinstance(v, str | int) and not isinstance(v, bool) for v in values):
        return Literal[tuple(values)]
    return Any


def _lists(node: dict[str, Any]) -> Any:
    """The nested lists of a tensor: element types and fixed lengths are checked by msgspec."""
    if node["type"] == "array":
        return _limited(list[_lists(node["items"])], node, LENGTH_OF_LIST)  # type: ignore[misc]
    return {"boolean": bool, "integer": int, "number": float}[node["type"]]


def _optional(convert: Convert | None) -> Convert | None:
    return convert and (lambda value: None if value is None else convert(value))


def _each_field(converts: list[tuple[str, Convert]]) -> Convert:
    def convert(struct: Any) -> Any:
        for name, change in converts:
            value = getattr(struct, name)
            if value is not UNSET:
                setattr(struct, name, change(value))
        return struct

    return convert
