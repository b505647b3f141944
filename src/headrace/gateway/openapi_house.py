"""What every house's OpenAPI document holds, whatever its models: the fixed routes, the problems,
the headers. `openapi` adds the models."""

from __future__ import annotations

from typing import Any

from headrace.errors import (
    PROBLEM_TYPE,
    BadRequest,
    Conflict,
    DeadlineExceeded,
    HeadersTooLarge,
    Invalid,
    LengthRequired,
    MethodNotAllowed,
    ModelFailed,
    NotAcceptable,
    NotFound,
    PayloadTooLarge,
    Refusal,
    RequestTimeout,
    Unavailable,
    UnsupportedMediaType,
    UriTooLong,
)

Node = dict[str, Any]

#: What any route may answer, what one with a body may, and what one that runs a model may.
ANYWHERE: tuple[type[Refusal], ...] = (
    BadRequest,
    MethodNotAllowed,
    RequestTimeout,
    UriTooLong,
    HeadersTooLarge,
)
WITH_BODY: tuple[type[Refusal], ...] = (
    NotAcceptable,
    LengthRequired,
    PayloadTooLarge,
    UnsupportedMediaType,
)
OF_A_MODEL: tuple[type[Refusal], ...] = (
    NotFound,
    Invalid,
    ModelFailed,
    Unavailable,
    DeadlineExceeded,
)

MEANINGS: dict[type[Refusal], str] = {
    BadRequest: "The bytes cannot be read: framing, JSON, a header.",
    NotFound: "No such path, model or version.",
    MethodNotAllowed: "The path has other methods: see `Allow`.",
    NotAcceptable: "Answers are `application/json`.",
    Conflict: "Not in the state that the thing is in: `detail` says which.",
    RequestTimeout: "The request did not arrive in time.",
    LengthRequired: "A body needs `Content-Length` or chunked encoding.",
    PayloadTooLarge: "The body, or what it decompresses to, is over the limit.",
    UriTooLong: "The URL is over the limit.",
    UnsupportedMediaType: "A type or encoding of the body that is not taken here.",
    Invalid: "Readable, but not what the model takes: `errors` points at the fields.",
    HeadersTooLarge: "Too many headers, or one is too large.",
    ModelFailed: "The model raised an error on this input.",
    Unavailable: "Not now: the queue is longer than the deadline, or no worker is ready.",
    DeadlineExceeded: "The deadline passed before there was an answer.",
}

TEXT: Node = {"type": "string"}
FLAG: Node = {"type": "boolean"}
COUNT: Node = {"type": "integer", "minimum": 0}
MS: Node = {"type": "number", "minimum": 0}

INFO = """\
Every model below answers typed calls. Say with `Headrace-Deadline-Ms` how long an answer is of use:
a call is answered inside its deadline or told why not. Every answer carries its `timings`: they
add up to the total. What may take longer than a caller waits is submitted as a job: it is stored
before it is answered, and run whatever dies meanwhile. Errors are problem details (RFC 9457).
`HEAD` works wherever `GET` does, but for a stream of events."""


def ref(kind: str, name: str) -> Node:
    return {"$ref": f"#/components/{kind}/{name}"}


def record(required: Node, optional: Node | None = None, **more: Any) -> Node:
    """The schema of an object."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(required), **more}


def array(items: Node) -> Node:
    return {"type": "array", "items": items}


def responses(good: Node, *refusals: type[Refusal]) -> Node:
    """`good` under 200, and each refusal's response, by status."""
    kinds = sorted({*ANYWHERE, *refusals}, key=lambda kind: kind.status)
    return {"200": good} | {str(k.status): ref("responses", k.__name__) for k in kinds}


def answer(description: str, schema: Node, media_type: str = "application/json") -> Node:
    headers = {"X-Request-Id": ref("headers", "RequestId")}
    if media_type != "application/json":
        headers = {}
    content = {media_type: {"schema": schema}}
    return {"description": description, "headers": headers, "content": content}


def components() -> Node:
    """Without the models' schemas."""
    return {
        "schemas": {
            "Problem": PROBLEM, "FieldError": FIELD_ERROR, "Timings": TIMINGS, "Model": MODEL,
            "House": HOUSE, "Readiness": READINESS, "Live": record({"live": FLAG}),
            "V2Tensor": V2_TENSOR, "V2Input": V2_INPUT, "V2Output": V2_OUTPUT,
            "V2Metadata": V2_METADATA, "V2Server": V2_SERVER,
            "V2Readiness": record({"ready": FLAG}, {"name": TEXT}),
        },
        "headers": HEADERS,
        "parameters": PARAMETERS,
        "responses": {kind.__name__: _refusal(kind, text) for kind, text in MEANINGS.items()},
    }  # fmt: skip


def _refusal(kind: type[Refusal], description: str) -> Node:
    headers = {"X-Request-Id": ref("headers", "RequestId")}
    if kind is Unavailable:
        headers["Retry-After"] = ref("headers", "RetryAfter")
    if kind is MethodNotAllowed:
        headers["Allow"] = ref("headers", "Allow")
    content = {"application/problem+json": {"schema": ref("schemas", "Problem")}}
    return {"description": description, "headers": headers, "content": content}


FIELD_ERROR = record(
    {
        "pointer": TEXT | {"description": "RFC 6901: where in the input", "examples": ["/age"]},
        "code": TEXT,
        "detail": TEXT,
    },
    description="One place in the input that is wrong.",
)
PROBLEM = record(
    {
        "type": {"type": "string", "format": "uri", "examples": [PROBLEM_TYPE + "empty-body"]},
        "title": TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": TEXT | {"description": "For people; may change"},
        "instance": TEXT | {"examples": ["/requests/3f2a-1"]},
        "code": TEXT | {"description": "For programs; stable", "examples": ["validation-failed"]},
    },
    {
        "errors": array(ref("schemas", "FieldError")),
        "retry_after_s": {"type": "integer", "minimum": 1, "description": "As Retry-After"},
        "error": TEXT | {"description": "Below /v2 only: `detail`, where its clients look"},
    },
    description="Why a call has no result (RFC 9457).",
)
STAGES = ("read", "queued", "gathered", "features", "executed", "returned", "total")
TIMINGS = record(
    {f"{stage}_ms": MS for stage in STAGES},
    description="Milliseconds in each stage of the way; the stages add up to `total_ms`.",
)
MODEL = record(
    {
        "name": TEXT,
        "version": TEXT,
        "description": TEXT,
        "ready": FLAG | {"description": "A worker is there whose golden call came out right"},
        "reason": TEXT | {"description": "Why it is not ready"},
        "max_size": {"type": "integer", "minimum": 1, "description": "Items in one batch"},
        "input": {"type": ["object", "null"], "description": "JSON schema"},
        "output": {"type": ["object", "null"], "description": "JSON schema"},
    }
)
HOUSE = record(
    {
        "gateway": TEXT,
        "ready": FLAG,
        "draining": FLAG,
        "models": array({
            "allOf": [ref("schemas", "Model"), record({
                "outstanding": COUNT | {"description": "Calls that this gateway waits for"},
                "elsewhere": COUNT | {"description": "Calls that other gateways wait for"},
                "per_second": MS | {"description": "Items a second in full batches; 0: unknown"},
                "workers": array({"type": "object"}),
            }, {
                "jobs_waiting": COUNT | {"description": "Stored jobs that wait, if known"},
            })],
        }),
    }
)  # fmt: skip
READINESS = record({
    "ready": FLAG,
    "models": {
        "type": "object",
        "additionalProperties": record({"ready": FLAG, "reason": TEXT}),
    },
})  # fmt: skip

REUSE: Node = {
    "type": "string",
    "enum": ["hit", "coalesced"],
    "description": "Where the model was not run for this call: a kept result, or that of a "
    "call of equal content under way",
}
HEADERS: Node = {
    "RequestId": {"description": "Yours, where you sent one, else ours", "schema": TEXT},
    "ServerTiming": {
        "description": "The timings, for browsers",
        "schema": TEXT,
        "example": "read;dur=0.1, queued;dur=0.4, gathered;dur=0.0, executed;dur=1.2",
    },
    "Reuse": {"description": "As `reuse` in the body", "schema": REUSE},
    "RetryAfter": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}},
    "Allow": {"description": "The methods of the path", "schema": TEXT},
}
PARAMETERS: Node = {
    "DeadlineMs": {
        "name": "Headrace-Deadline-Ms",
        "in": "header",
        "description": "How long an answer is of use: milliseconds from now, or a Unix time in "
        "milliseconds (from 10^11 on). Clamped to the house's longest.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 10**15 - 1},
        "example": 2000,
    },
    "RouteKey": {
        "name": "Headrace-Route-Key",
        "in": "header",
        "description": "Calls and stored jobs with the same one, a user's id say, are answered by "
        "the same version while several are served.",
        "schema": TEXT,
    },
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "A name for the request: in the answer, in the logs.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"},
    },
    "ModelName": {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
    },
    "ModelVersion": {"name": "version", "in": "path", "required": True, "schema": TEXT},
}

V2_TENSOR = record(
    {
        "name": TEXT,
        "datatype": TEXT | {"examples": ["FP32", "INT64", "BYTES"]},
        "shape": array({"type": "integer"}),
    },
    {"data": {"type": "array"}, "parameters": {"type": "object"}},
)
V2_INPUT = record(
    {"inputs": array(ref("schemas", "V2Tensor"))},
    {"id": TEXT, "parameters": {"type": "object"}, "outputs": array({"type": "object"})},
)
V2_OUTPUT = record(
    {"model_name": TEXT, "outputs": array(ref("schemas", "V2Tensor"))},
    {"model_version": TEXT, "id": TEXT, "parameters": {"type": "object"}},
)
V2_SERVER = record({"name": TEXT, "version": TEXT, "extensions": array(TEXT)})
V2_METADATA = record(
    {"name": TEXT},
    {
        "versions": array(TEXT),
        "platform": TEXT,
        "inputs": array(ref("schemas", "V2Tensor")),
        "outputs": array(ref("schemas", "V2Tensor")),
    },
)


def get(operation: str, tag: str, summary: str, good: Node, *refusals: type[Refusal]) -> Node:
    return {
        "operationId": operation,
        "tags": [tag],
        "summary": summary,
        "responses": responses(good, *refusals),
    }


def paths() -> Node:
    """The routes that every house has."""
    ready = get(
        "isReady", "health", "Is every model proven ready?",
        answer("Yes", ref("schemas", "Readiness")),
    )  # fmt: skip
    ready["responses"]["503"] = answer("Not yet, or draining", ref("schemas", "Readiness"))
    page = answer("A page for people", TEXT, "text/html")
    return {
        "/": {"get": get("start", "house", "The docs page", page)},
        "/docs": {"get": get("docs", "house", "The docs page", page)},
        "/openapi.json": {
            "get": get(
                "openapi", "house", "This document", answer("OpenAPI 3.1", {"type": "object"})
            )
        },
        "/models": {
            "get": get(
                "listModels", "house", "What is served",
                answer("The models", record({"models": array(ref("schemas", "Model"))})),
            )
        },
        "/models/{name}": {
            "get": get(
                "getModel", "house", "One model", answer("The model", ref("schemas", "Model")),
                NotFound,
            ),
            "parameters": [ref("parameters", "ModelName")],
        },
        "/status": {
            "get": get(
                "status", "house", "All that this gateway knows of the house",
                answer("The house", ref("schemas", "House")),
            )
        },
        "/health/live": {
            "get": get(
                "isLive", "health", "Does this process answer?",
                answer("Yes", ref("schemas", "Live")),
            )
        },
        "/health/ready": {"get": ready},
        "/metrics": {
            "get": get(
                "metrics", "house", "Metrics for Prometheus",
                answer("Prometheus text format", TEXT, "text/plain"),
            )
        },
        **v2_paths(),
    }  # fmt: skip


def v2_paths() -> Node:
    """The Open Inference Protocol, briefly: its own specification says the rest."""
    metadata = answer("The metadata", ref("schemas", "V2Metadata"))
    server = answer("The server", ref("schemas", "V2Server"))
    live = answer("Yes", ref("schemas", "Live"))
    found: Node = {
        "/v2": {"get": _v2("v2Server", "The server's name and version", server)},
        "/v2/health/live": {"get": _v2("v2Live", "Does the server live?", live)},
        "/v2/health/ready": {"get": _v2_ready("v2Ready", "Are all models ready?")},
    }
    for path, suffix, names in (
        ("/v2/models/{name}", "", ["ModelName"]),
        ("/v2/models/{name}/versions/{version}", "Version", ["ModelName", "ModelVersion"]),
    ):
        given = {"parameters": [ref("parameters", name) for name in names]}
        found[path] = given | {
            "get": _v2(f"v2Model{suffix}", "A model's tensors", metadata, NotFound)
        }
        found[f"{path}/ready"] = given | {
            "get": _v2_ready(f"v2ModelReady{suffix}", "Is it ready?", NotFound)
        }
        found[f"{path}/infer"] = given | {"post": _v2_infer(f"v2Infer{suffix}")}
    return found


def _v2(operation: str, summary: str, good: Node, *refusals: type[Refusal]) -> Node:
    return get(operation, "open-inference-protocol", summary, good, *refusals)


def _v2_ready(operation: str, summary: str, *refusals: type[Refusal]) -> Node:
    found = _v2(operation, summary, answer("Yes", ref("schemas", "V2Readiness")), *refusals)
    found["responses"]["503"] = answer("Not yet", ref("schemas", "V2Readiness"))
    return found


def _v2_infer(operation: str) -> Node:
    result = answer("The outputs", ref("schemas", "V2Output"))
    result["content"]["application/octet-stream"] = {}
    return _v2(operation, "Tensors in, tensors out", result, *WITH_BODY, *OF_A_MODEL) | {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": ref("schemas", "V2Input")},
                "application/octet-stream": {},  # with the binary tensor extension
            },
        }
    }
