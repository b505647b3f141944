"""A JSON schema -> words for people: `{left: image, right: image}`. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from headrace import images, tensors

_LIMITS = {
    "minimum": ">= {}",
    "maximum": "<= {}",
    "exclusiveMinimum": "> {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
    "minLength": "at least {} long",
    "maxLength": "at most {} long",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "pattern": "matches {}",
    "default": "{} by default",
}


class Field(NamedTuple):
    """One line: how deep, the field's name ("" at the top), its type, and what else is said."""

    depth: int
    name: str
    type: str
    note: str


def describe(schema: dict[str, Any]) -> list[Field]:
    """The fields of a schema, outer before inner."""
    return _Describer(schema.get("$defs", {})).fields(schema, 0, "", "")


def type_of(schema: dict[str, Any]) -> str:
    """A type in a few words."""
    return _Describer(schema.get("$defs", {})).words(schema)


class _Describer:
    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._open: list[str] = []

    def fields(self, node: dict[str, Any], depth: int, name: str, need: str) -> list[Field]:
        note = "; ".join(filter(None, [need, *_notes(node)]))
        found = [Field(depth, name, self.words(node), note)]
        ref, inner = self._record(node)
        if inner is None or ref in self._open:
            return found
        self._open.append(ref)
        required = inner.get("required", ())
        for child_name, child in inner.get("properties", {}).items():
            child_need = "" if child_name in required else "optional"
            found += self.fields(child, depth + 1, child_name, child_need)
        self._open.pop()
        return found

    def _record(self, node: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
        """The record in a node, through references, lists and options."""
        if "$ref" in node:
            name = node["$ref"].removeprefix("#/$defs/")
            _, inner = self._record(self._definitions.get(name, {}))
            return name, inner
        if node.get("properties"):
            return str(node.get("title", "")), node
        inner_nodes = [*node.get("anyOf", ()), node.get("items"), node.get("additionalProperties")]
        for inner_node in inner_nodes:
            if isinstance(inner_node, dict) and tensors.SCHEMA_KEY not in node:
                ref, inner = self._record(inner_node)
                if inner is not None:
                    return ref, inner
        return "", None

    def words(self, node: dict[str, Any]) -> str:
        if "$ref" in node:
            name = str(node["$ref"].removeprefix("#/$defs/"))
            inner = self._definitions.get(name, {})
            return name if inner.get("properties") else self.words(inner)
        if images.SCHEMA_KEY in node:
            return "image"
        if tensors.SCHEMA_KEY in node:
            tensor = node[tensors.SCHEMA_KEY]
            shape = " x ".join("any" if n < 0 else str(n) for n in tensor["shape"])
            return f"array of {shape or 'one'} {tensor['dtype']}"
        if "enum" in node or "const" in node:
            return " | ".join(map(repr, node.get("enum", [node.get("const")])))
        if "anyOf" in node:
            return " | ".join(self.words(option) for option in node["anyOf"])
        return self._plain(node)

    def _plain(self, node: dict[str, Any]) -> str:
        kind = node.get("type", "anything")
        if kind == "array":
            if "prefixItems" in node:
                return f"[{', '.join(self.words(item) for item in node['prefixItems'])}]"
            items = node.get("items")
            return f"list of {self.words(items)}" if isinstance(items, dict) else "list"
        if kind == "object":
            more = node.get("additionalProperties")
            if not node.get("properties") and isinstance(more, dict):
                return f"map of text to {self.words(more)}"
            return str(node.get("title", "object"))
        if kind == "string":
            return "bytes (base64)" if node.get("contentEncoding") else node.get("format", "text")
        return " | ".join(kind) if isinstance(kind, list) else str(kind)


def _notes(node: dict[str, Any]) -> list[str]:
    notes = [] if tensors.SCHEMA_KEY in node else [
        words.format(repr(node[key]) if key in ("default", "pattern") else node[key])
        for key, words in _LIMITS.items()
        if node.get(key) is not None
    ]  # fmt: skip
    return [*notes, *filter(None, [str(node.get("description", "")).partition("\n")[0]])]
