"""A model's JSON schema -> a reader of inputs: what the gateway checks a call with.

    Reader(schema).json(body) -> canonical msgpack, or a Refusal with the place that is wrong

The schema becomes msgspec types once, when the model is first seen; a call then costs one typed
decode and one encode. What a schema says that msgspec cannot check (unions of objects, formats) is
left to the model process, which has the author's types.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import UNSET, Meta, UnsetType

from headrace import images, tensors
from headrace.errors import BadRequest, FieldError, Invalid, PayloadTooLarge, Refusal
from headrace.signature import invalid

Convert = Callable[[Any], Any]

MAX_KEYS = 100_000
MAX_DEPTH = 64  # where the schema says nothing of what is inside; the types limit all else
#: The items of an array are counted before they are cut apart if there may be so many.
MANY_COMMAS = 100_000

_canonical = msgspec.msgpack.Encoder().encode


class Reader:
    """Reads one input, or many, of the type that a schema describes."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        build = _Builder(schema.get("$defs", {}))
        kind, self._convert = build.decodable(*build.node(schema, ""))
        self._keys = build.keys(schema)
        self._loose = build.loose
        self._resolve = build.resolve
        self._decode = msgspec.json.Decoder(kind).decode
        self._check = kind
        self._split = msgspec.json.Decoder(list[msgspec.Raw]).decode
        #: the properties at the top, by name: what multipart parts and V2 tensors are matched with
        self.properties: dict[str, dict[str, Any]] = {
            name: self._plain(node)
            for name, node in build.resolve(schema).get("properties", {}).items()
        }
        self.root = build.resolve(schema)
        self.is_image = images.SCHEMA_KEY in self.root

    def json(self, body: bytes) -> bytes:
        """One input in JSON -> canonical bytes. Raises Refusal."""
        # Each key has a colon, and an input has at least the keys it must have: where there are as
        # many colons as those, no key is there twice. All else has a closer look.
        if body.count(b":") != self._keys or b"\\u0000" in body:
            check_pairs(body)
        try:
            value = self._decode(body)
        except msgspec.ValidationError as error:
            _well_formed(body)
            raise self._wrong(str(error)) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise _malformed(error) from None
        if self._loose and body.count(b"[") + body.count(b"{") > MAX_DEPTH:
            _check_depth(value)
        return _canonical(self._convert(value) if self._convert else value)

    def many(self, body: bytes, most: int) -> list[bytes | Refusal]:
        """A JSON array of inputs -> canonical bytes or the refusal of each. Raises Refusal."""
        if body.count(b",") > MANY_COMMAS:
            _check_items(body, most)
        try:
            raws = self._split(body)
        except msgspec.ValidationError:
            raise Invalid("expected a JSON array of inputs", code="batch-invalid") from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise _malformed(error) from None
        if not raws:
            raise Invalid("the array of inputs is empty", code="batch-invalid")
        if len(raws) > most:
            raise _too_many(most)
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
            raise self._wrong(str(error)) from None
        if self._loose:
            _check_depth(checked)
        return _canonical(self._convert(checked) if self._convert else checked)

    def _wrong(self, message: str) -> Refusal:
        """What msgspec says -> a refusal. None of it is from the input: see `invalid`."""
        if "out of range" in message:
            return BadRequest(message.partition(" - at")[0], code="json-limits")
        refusal = invalid(message)
        if self._in_tensor(message.partition(" - at `")[2].rstrip("`")):
            refusal.code = "tensor-invalid"
            refusal.errors = [FieldError(e.pointer, refusal.code, e.detail) for e in refusal.errors]
        return refusal

    def _in_tensor(self, path: str) -> bool:
        """Does "$.rows[0][2]" lead into a tensor?"""
        node = self._plain(self.root)
        for name, place in _STEP.findall(path):
            if tensors.SCHEMA_KEY in node:
                return True
            if name:
                node = node.get("properties", {}).get(name, {})
            elif "prefixItems" in node and place.isdigit():
                node = node["prefixItems"][int(place)]
            else:
                node = node.get("items") or node.get("additionalProperties") or {}
            node = self._plain(node)
        return tensors.SCHEMA_KEY in node

    def _plain(self, node: Any) -> dict[str, Any]:
        """A node without its reference, and without the null of an optional one."""
        if not isinstance(node, dict):
            return {}
        node = self._resolve(node)
        real = [n for n in node.get("anyOf", []) if n.get("type") != "null"]
        return self._resolve(real[0]) if len(real) == 1 else node


_STEP = re.compile(r"\.([^.\[\]]+)|\[([^\]]*)\]")
_KEY = re.compile(rb'"\s*:')
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{},]', re.DOTALL)


def check_pairs(body: bytes) -> None:
    """Refuses what msgspec would let pass: a key twice in one object, NUL, a flood of keys."""
    if b"\\u0000" in body and _NUL.search(body):
        raise BadRequest("a string holds a NUL character", code="json-limits")
    if body.count(b":") > MAX_KEYS and len(_KEY.findall(body)) > MAX_KEYS:
        raise BadRequest(f"more than {MAX_KEYS} keys", code="json-limits")
    if b"{" not in body:
        return
    try:
        _pairs(body.decode())
    except RecursionError as error:
        raise _malformed(error) from None
    except ValueError:
        return  # malformed: the decoder says so in its own words


def _check_depth(value: Any) -> None:
    """Level by level, so that no depth of it is a depth of ours."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for each in level:
            if isinstance(each, list | tuple):
                inside += each
            elif isinstance(each, dict):
                inside += each.values()
            elif isinstance(each, msgspec.Struct):
                inside += msgspec.structs.astuple(each)
        level = inside
        if not level:
            return
    raise BadRequest(f"nested more than {MAX_DEPTH} deep", code="json-limits")


def _check_items(body: bytes, most: int) -> None:
    """Raises PayloadTooLarge where the array has more than `most` items. Cut apart, ten million of
    them would take 700 MB."""
    depth = items = 0
    for token in _TOKEN.finditer(body):
        kind = token[0]
        if kind == b"," and depth == 1:
            items += 1
            if items >= most:
                raise _too_many(most)
        elif kind in b"[{":
            depth += 1
        elif kind in b"]}":
            depth -= 1


def _too_many(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"more than {most} inputs in one call", code="batch-invalid")


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise BadRequest("an object has the same key twice", code="malformed-json")


#: `len` stands for numbers: only the keys are of interest, and 4,000 digits need not become one.
_pairs = json.JSONDecoder(object_pairs_hook=_unique, parse_int=len, parse_float=len).decode


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


class _Builder:
    """Schema node -> (type for msgspec, function that makes the decoded value canonical)."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self.definitions = definitions
        self.loose = False  # is there a place where anything may stand?
        self._open: set[str] = set()

    def resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        ref = node.get("$ref", "")
        if not ref.startswith("#/$defs/"):
            return node
        return self.resolve(self.definitions.get(ref.removeprefix("#/$defs/"), {}))

    def keys(self, node: Any, seen: frozenset[str] = frozenset()) -> int:
        """How many keys an input of this schema has at least."""
        if not isinstance(node, dict) or node.get("$ref") in seen:
            return 0
        if "$ref" in node:
            return self.keys(self.resolve(node), seen | {node["$ref"]})
        if "properties" in node:
            inside = [node["properties"].get(name) for name in node.get("required", ())]
            return len(inside) + sum(self.keys(child, seen) for child in inside)
        if "prefixItems" in node:
            return sum(self.keys(child, seen) for child in node["prefixItems"])
        return int(node.get("minItems", 0)) * self.keys(node.get("items"), seen)

    def anything(self) -> tuple[Any, None]:
        """The model process, which has the author's types, checks below here."""
        self.loose = True
        return Any, None

    def node(self, node: dict[str, Any], pointer: str) -> tuple[Any, Convert | None]:
        ref = node.get("$ref")
        if ref is not None:
            if ref in self._open:  # a recursive type
                return self.anything()
            self._open.add(ref)
            try:
                return self.node(self.resolve(node), pointer)
            finally:
                self._open.discard(ref)
        if tensors.SCHEMA_KEY in node:
            tensor = node[tensors.SCHEMA_KEY]
            kind = _lists(node, tensor["dtype"])
            return kind, tensors.packer(tensor["dtype"], tensor["shape"], pointer)
        if images.SCHEMA_KEY in node:
            return bytes, lambda data: (images.inspect(data, pointer), data)[1]
        if "enum" in node or "const" in node:
            kind = _literal(node)
            return self.anything() if kind is Any else (kind, None)
        if "anyOf" in node:
            return self.any_of(node, pointer)
        build = getattr(self, f"type_{node.get('type')}", None)
        return build(node, pointer) if build else self.anything()

    def any_of(self, node: dict[str, Any], pointer: str) -> tuple[Any, Convert | None]:
        nodes = node["anyOf"]
        real = [n for n in nodes if n.get("type") != "null"]
        null = [None] * (len(real) != len(nodes))
        if len(real) == 1:
            kind, convert = self.node(real[0], pointer)
            return (Union[kind, None], _optional(convert)) if null else (kind, convert)  # noqa: UP007
        plain = {"string", "integer", "number", "boolean"}
        if all(self.resolve(n).get("type") in plain for n in real):
            kinds = [self.node(n, pointer)[0] for n in real]
            return self.decodable(Union[tuple(kinds + null)], None)  # noqa: UP007
        if "discriminator" in node:
            return self._tagged(node["discriminator"], null, pointer)
        return self.anything()

    def decodable(self, kind: Any, convert: Convert | None) -> tuple[Any, Convert | None]:
        """msgspec cannot tell all unions apart (text from base64, say)."""
        try:
            msgspec.json.Decoder(kind)
        except TypeError:
            return self.anything()
        return kind, convert

    def _tagged(
        self, discriminator: dict[str, Any], null: list[None], pointer: str
    ) -> tuple[Any, Convert | None]:
        """A union of structs that say in one field which of them they are."""
        field, kinds, converts = discriminator["propertyName"], [], {}
        for tag, ref in discriminator.get("mapping", {}).items():
            node = self.resolve({"$ref": ref})
            if ref in self._open or field not in node.get("properties", {}):
                return self.anything()
            self._open.add(ref)
            kind, convert = self._struct(node, pointer, (field, tag))
            self._open.discard(ref)
            kinds.append(kind)
            if convert:
                converts[kind] = convert
        return self.decodable(Union[tuple(kinds + null)], _by_kind(converts))  # noqa: UP007

    def type_object(self, node: dict[str, Any], pointer: str) -> tuple[Any, Convert | None]:
        if "properties" not in node:
            values = node.get("additionalProperties")
            if not isinstance(values, dict):
                self.loose = True
                return dict[str, Any], None
            kind, convert = self.node(values, pointer)
            each = convert and (lambda d: {k: convert(v) for k, v in d.items()})
            return dict[str, kind], each  # type: ignore[valid-type]
        return self._struct(node, pointer)

    def _struct(
        self, node: dict[str, Any], pointer: str, tag: tuple[str, str] | None = None
    ) -> tuple[Any, Convert | None]:
        required, converts = set(node.get("required", ())), []
        fields: list[Any] = []
        rename = {}
        for number, (name, child) in enumerate(node["properties"].items()):
            if tag and name == tag[0]:
                continue
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
            tag_field=tag and tag[0],
            tag=tag and tag[1],
        )
        return struct, _each_field(converts) if converts else None

    def type_array(self, node: dict[str, Any], pointer: str) -> tuple[Any, Convert | None]:
        if "prefixItems" in node:
            built = [self.node(n, f"{pointer}/{i}") for i, n in enumerate(node["prefixItems"])]
            return tuple[tuple(kind for kind, _ in built)], _each_place([c for _, c in built])  # type: ignore[misc]
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
    """A limit that msgspec or Python's `re` cannot express is left to the model process."""
    found = {ours: node[theirs] for theirs, ours in limits.items() if theirs in node}
    try:
        limited = Annotated[kind, Meta(**found)] if found else kind
        msgspec.json.Decoder(limited)
    except (TypeError, ValueError, re.error):
        return kind
    return limited


def _literal(node: dict[str, Any]) -> Any:
    values = node["enum"] if "enum" in node else [node["const"]]
    if all(isinstance(v, str | int | None) and not isinstance(v, bool) for v in values):
        return Literal[tuple(values)]
    return Any


def _lists(node: dict[str, Any], dtype: str) -> Any:
    """The nested lists of a tensor: element types and fixed lengths are checked by msgspec."""
    if node["type"] == "array":
        return _limited(list[_lists(node["items"], dtype)], node, LENGTH_OF_LIST)  # type: ignore[misc]
    kind = {"boolean": bool, "integer": int, "number": float}[node["type"]]
    return _limited(kind, tensors.limits(dtype), RANGE)


def _optional(convert: Convert | None) -> Convert | None:
    return convert and (lambda value: None if value is None else convert(value))


def _by_kind(converts: dict[type, Convert]) -> Convert | None:
    def convert(value: Any) -> Any:
        change = converts.get(type(value))
        return change(value) if change else value

    return convert if converts else None


def _each_place(converts: list[Convert | None]) -> Convert | None:
    def convert(values: tuple[Any, ...]) -> list[Any]:
        return [c(v) if c else v for c, v in zip(converts, values, strict=True)]

    return convert if any(converts) else None


def _each_field(converts: list[tuple[str, Convert]]) -> Convert:
    def convert(struct: Any) -> Any:
        for name, change in converts:
            value = getattr(struct, name)
            if value is not UNSET:
                setattr(struct, name, change(value))
        return struct

    return convert
