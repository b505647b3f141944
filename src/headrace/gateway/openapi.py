"""The cards of the models -> an OpenAPI 3.1 document.

A model's schemas become components: its definition `Pair` is `face-match.Pair`, its input and
output `face-match-input` and `face-match-output`. No model's name has a dot, so none collide.
"""

from __future__ import annotations

import re
from typing import Any

from headrace import images
from headrace.gateway import openapi_feedback as feedback
from headrace.gateway import openapi_house as house
from headrace.gateway import openapi_jobs as jobs
from headrace.gateway import openapi_webhooks as webhooks
from headrace.gateway.openapi_house import Node, array, record, ref
from headrace.signature import Card

DEFS = "#/$defs/"
#: Keys whose value is data, not a schema; and those whose values are schemas by name.
DATA = frozenset({"const", "default", "enum", "example", "examples"})
BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas"})


def openapi(cards: list[Card]) -> dict[str, Any]:
    from headrace import __version__

    paths = house.paths() | jobs.paths() | webhooks.paths() | feedback.paths()
    components = house.components()
    components["schemas"] |= jobs.SCHEMAS | webhooks.SCHEMAS | feedback.SCHEMAS
    components["headers"] |= jobs.HEADERS
    components["parameters"] |= jobs.PARAMETERS
    for card in cards:
        components["schemas"] |= _schemas(card)
        paths |= _paths(card)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": __version__, "description": house.INFO},
        "servers": [{"url": "/"}],
        "tags": [
            *({"name": card.name, "description": card.description} for card in cards),
            jobs.TAG,
            webhooks.TAG,
            {"name": "house", "description": "What is served"},
            {"name": "health", "description": "For probes and load balancers"},
            {"name": "open-inference-protocol", "description": "For its existing clients"},
        ],
        "paths": paths,
        "components": components,
    }


# -- schemas ---------------------------------------------------------------------------------------


def _schemas(card: Card) -> Node:
    """Both schemas of a model, their $defs hoisted."""
    given, made = card.input.get("$defs", {}), card.output.get("$defs", {})
    one_meaning = all(made[name] == given[name] for name in given.keys() & made.keys())
    return {
        **_hoisted(f"{card.name}-input", card.input, f"{card.name}."),
        **_hoisted(
            f"{card.name}-output", card.output, f"{card.name}." + "output." * (not one_meaning)
        ),
    }


def _hoisted(root: str, schema: Node, prefix: str) -> Node:
    names = {name: prefix + _component(name) for name in schema.get("$defs", {})}
    found = {names[name]: _renamed(node, names) for name, node in schema.get("$defs", {}).items()}
    found[root] = _renamed({k: v for k, v in schema.items() if k != "$defs"}, names)
    return found


def _component(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _renamed(node: Any, names: dict[str, str]) -> Any:
    """A schema with its $refs pointing at the components; data in it stays as it is."""
    if isinstance(node, list):
        return [_renamed(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: _renamed_value(key, value, names) for key, value in node.items()}


def _renamed_value(key: str, value: Any, names: dict[str, str]) -> Any:
    if key in DATA:
        return value
    if key in BY_NAME and isinstance(value, dict):
        return {name: _renamed(node, names) for name, node in value.items()}
    if key == "$ref":
        return _target(value, names)
    if key == "mapping" and isinstance(value, dict):  # of a discriminator
        return {name: _target(target, names) for name, target in value.items()}
    return _renamed(value, names)


def _target(pointer: Any, names: dict[str, str]) -> Any:
    if not isinstance(pointer, str) or not pointer.startswith(DEFS):
        return pointer
    name = pointer.removeprefix(DEFS).replace("~1", "/").replace("~0", "~")
    return f"#/components/schemas/{names.get(name, _component(name))}"


# -- operations ------------------------------------------------------------------------------------


def _paths(card: Card) -> Node:
    headers = [
        ref("parameters", "DeadlineMs"),
        ref("parameters", "RouteKey"),
        ref("parameters", "RequestId"),
    ]
    given = ref("schemas", f"{card.name}-input")
    summary = card.description.partition("\n")[0] or card.name

    def operation(suffix: str, summary: str, about: str, content: Node, answer: Node) -> Node:
        return {"post": {
            "operationId": f"{card.name}-{suffix}",
            "tags": [card.name],
            "summary": summary,
            "description": about,
            "parameters": headers,
            "requestBody": {"required": True, "content": content},
            "responses": house.responses(answer, *house.WITH_BODY, *house.OF_A_MODEL),
        }}  # fmt: skip

    predict = operation("predict", summary, card.description, _bodies(card), _answer(card))
    jobs.of_a_predict(predict["post"])
    submit = operation(
        "submit",
        f"{summary} (stored)",
        f"{card.description}\n\nAnswered as soon as the job is committed; the result is fetched "
        "later, or waited for.".lstrip(),
        _bodies(card),
        jobs.ended(),
    )
    submit["post"]["parameters"] = jobs.submit_parameters()
    submit["post"]["responses"]["202"] = jobs.accepted()
    return {
        f"/models/{card.name}/predict": predict,
        f"/models/{card.name}/jobs": submit,
        f"/models/{card.name}/predict-many": operation(
            "predict-many",
            f"{summary} (many)",
            f"{card.description}\n\nAn array of inputs; one outcome each, in the same order. A bad "
            "input does not fail its neighbours.".lstrip(),
            {"application/json": {"schema": array(given) | {"minItems": 1}}},
            _answer_many(card),
        ),
    }  # fmt: skip


def _bodies(card: Card) -> Node:
    """What `read` takes: JSON always; a form and raw bytes where there are images."""
    content: Node = {"application/json": {"schema": ref("schemas", f"{card.name}-input")}}
    root = resolved(card.input, card.input)
    if images.SCHEMA_KEY in root:
        content["multipart/form-data"] = _form(card, {"properties": {"image": root}})
        content |= {media_type: {} for media_type in images.MEDIA_TYPES}
    elif any(_is_binary(_plain(n, card.input)) for n in root.get("properties", {}).values()):
        content["multipart/form-data"] = _form(card, root)
    return content


def _form(card: Card, root: Node) -> Node:
    """One part a property: bytes as they are, in place of base64; all else as in JSON."""
    names = {name: f"{card.name}.{_component(name)}" for name in card.input.get("$defs", {})}
    properties, encoding = {}, {}
    for name, node in root["properties"].items():
        plain = _plain(node, card.input)
        if images.SCHEMA_KEY in plain:
            properties[name] = {"contentMediaType": "image/*"}
            encoding[name] = {"contentType": ", ".join(images.MEDIA_TYPES)}
        elif _is_binary(plain):
            properties[name] = {"contentMediaType": "application/octet-stream"}
        else:
            properties[name] = _renamed(node, names)
    required = root.get("required", list(properties) if len(properties) == 1 else [])
    schema = {"type": "object", "properties": properties, "required": required}
    return {"schema": schema, "encoding": encoding} if encoding else {"schema": schema}


def _plain(node: Node, schema: Node) -> Node:
    """A node resolved, and without the null of an optional one: a form leaves the part out."""
    node = resolved(node, schema)
    real = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
    return resolved(real[0], schema) if len(real) == 1 else node


def _is_binary(node: Node) -> bool:
    return node.get("contentEncoding") == "base64"


def resolved(node: Node, schema: Node) -> Node:
    """A node, or the definition that it refers to."""
    seen: set[str] = set()
    while str(node.get("$ref", "")).startswith(DEFS) and node["$ref"] not in seen:
        seen.add(node["$ref"])
        node = schema.get("$defs", {}).get(node["$ref"].removeprefix(DEFS), {})
    return node


def _envelope(card: Card) -> Node:
    return {
        "model": {"const": card.name},
        "version": house.TEXT | {"examples": [card.version]},
        "request_id": house.TEXT,
    }


def _answer(card: Card) -> Node:
    result = {"result": ref("schemas", f"{card.name}-output")}
    timings = {"timings": ref("schemas", "Timings")}
    reuse = {"reuse": house.REUSE}
    found = house.answer("The result", record(result | _envelope(card) | timings, reuse))
    found["headers"]["Server-Timing"] = ref("headers", "ServerTiming")
    found["headers"]["Headrace-Reuse"] = ref("headers", "Reuse")
    return found


def _answer_many(card: Card) -> Node:
    result = {"result": ref("schemas", f"{card.name}-output")}
    good = record({"status": {"const": 200}} | result | {"timings": ref("schemas", "Timings")})
    bad = record({"status": PROBLEM_STATUS, "problem": ref("schemas", "Problem")})
    outcomes = {"results": array({"oneOf": [good, bad]})}
    return house.answer("One outcome for each input", record(outcomes | _envelope(card)))


PROBLEM_STATUS: Node = {"type": "integer", "minimum": 400, "maximum": 599}
