"""The stored jobs' part of the OpenAPI document: routes, headers, what is told of one."""

from __future__ import annotations

from typing import Any

from headrace.errors import (
    Conflict,
    DeadlineExceeded,
    Invalid,
    ModelFailed,
    NotFound,
    Refusal,
    Unavailable,
)
from headrace.gateway.openapi_house import (
    COUNT,
    MS,
    TEXT,
    Node,
    answer,
    array,
    record,
    ref,
    responses,
)
from headrace.gateway.prefer import MOST_WAIT_S
from headrace.httpapi.listing import LIMIT, MOST_LISTED
from headrace.records import State

TAG = {"name": "jobs", "description": "Stored jobs: they outlive their caller and any process"}
EXAMPLE_ID = "01a2040df71fd3fbce42115a703e8fe3"
TIME: Node = {"type": "number", "description": "Unix seconds, by the database's clock"}
TIME_OR_NULL: Node = {"type": ["number", "null"], "description": "Unix seconds"}
STATE: Node = {"type": "string", "enum": [state.value for state in State]}
ID: Node = {"type": "string", "pattern": "^[0-9a-f]{32}$", "examples": [EXAMPLE_ID]}
LINKS = record({"self": TEXT, "events": TEXT})

ACCEPTED = record(
    {"id": ID, "model": TEXT, "state": STATE, "request_id": TEXT, "links": LINKS},
    description="A job that is committed: it will be run, whatever dies.",
)
JOB = record(
    {
        "id": ID,
        "model": TEXT,
        "state": STATE,
        "priority": {"type": "string", "enum": ["interactive", "bulk"]},
        "attempt": COUNT | {"description": "Runs begun"},
        "tries": COUNT | {"description": "Runs that are held against it"},
        "max_attempts": COUNT | {"description": "So many tries, then it is dead"},
        "request_id": TEXT,
        "created": TIME,
        "deadline": TIME | {"description": "Not ended by then: expired"},
        "started": TIME_OR_NULL,
        "finished": TIME_OR_NULL,
        "links": LINKS,
    },
    {
        "version": TEXT | {"description": "Of the model that ran it last"},
        "executed_ms": MS,
        "problem": ref("schemas", "Problem"),
        "losses": array(record({
            "attempt": COUNT, "worker": TEXT, "at": TIME, "reason": TEXT,
        })) | {"description": "Runs that came to no result"},
        "result": {"description": "As the model's output; null: none (yet)"},
    },
    description="A stored job. `failed`: the input is to blame; `dead`: its tries are used up.",
)  # fmt: skip
SCHEMAS: Node = {"Job": JOB, "JobAccepted": ACCEPTED}

HEADERS: Node = {
    "Location": {"description": "Where the job is", "schema": TEXT},
    "PreferenceApplied": {
        "description": "respond-async: the job has not ended yet", "schema": TEXT,
    },
    "IdempotentReplayed": {
        "description": "The key was known: this is the answer of its first call",
        "schema": {"const": "true"},
    },
    "Job": {"description": "The stored job that gave this answer", "schema": ID},
    "JobResult": {
        "description": "Why the result did not come along, a problem code: try later",
        "schema": TEXT,
    },
}  # fmt: skip
PARAMETERS: Node = {
    "JobId": {"name": "id", "in": "path", "required": True, "schema": ID},
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A name of yours for the call: the same key with the same input is one job, "
        "however often it is sent; with another input it is 422 `idempotency-key-reuse`. It is "
        "known for as long as its job is kept.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "example": "scan-4711-17",
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "RFC 7240. `respond-async`: 202 and a stored job. `wait=N`: seconds to wait "
        f"for its end first, at most {MOST_WAIT_S:.0f}.",
        "schema": TEXT,
        "examples": {
            "wait": {"value": "wait=20"}, "both": {"value": "respond-async, wait=5"},
        },
    },
    "Priority": {
        "name": "Headrace-Priority",
        "in": "header",
        "description": "bulk: may wait while interactive jobs do.",
        "schema": {"type": "string", "enum": ["interactive", "bulk"], "default": "interactive"},
    },
    "JobLifeMs": {
        "name": "Headrace-Deadline-Ms",
        "in": "header",
        "description": "When the job expires: milliseconds from now, or a Unix time in "
        "milliseconds (from 10^11 on). At most the house's `jobs.max_ttl_s`.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 10**15 - 1},
        "example": 86_400_000,
    },
}  # fmt: skip

#: What any of these routes may refuse: the database may be away.
STORED: tuple[type[Refusal], ...] = (Unavailable,)
_REPLAYED = {"Idempotent-Replayed": ref("headers", "IdempotentReplayed")}


def accepted() -> Node:
    """202 of a submit."""
    found = answer("Stored: the job is committed", ref("schemas", "JobAccepted"))
    found["headers"] |= _REPLAYED | {
        "Location": ref("headers", "Location"),
        "Preference-Applied": ref("headers", "PreferenceApplied"),
    }
    found["content"]["application/json"]["example"] = {
        "id": EXAMPLE_ID, "model": "ocr", "state": "waiting", "request_id": "6050e3af95-2c",
        "links": {"self": f"/jobs/{EXAMPLE_ID}", "events": f"/jobs/{EXAMPLE_ID}/events"},
    }  # fmt: skip
    return found


def ended() -> Node:
    """200 of a submit: it ended while it was waited for, or its key's job has."""
    found = answer("The job at its end", ref("schemas", "Job"))
    found["headers"] |= _REPLAYED | {"Headrace-Result": ref("headers", "JobResult")}
    return found


def submit_parameters() -> list[Node]:
    names = ("IdempotencyKey", "Priority", "JobLifeMs", "Prefer", "RouteKey", "RequestId")
    return [ref("parameters", name) for name in names]


def of_a_predict(operation: Node) -> None:
    """What a predict may have besides: a key, a preference, and 202 for one that prefers it."""
    operation["parameters"] = [
        *operation["parameters"],
        *(ref("parameters", name) for name in ("IdempotencyKey", "Priority", "Prefer")),
    ]
    operation["responses"]["200"]["headers"] |= _REPLAYED | {"Headrace-Job": ref("headers", "Job")}
    operation["responses"] |= {"202": accepted(), "409": ref("responses", "Conflict")}


def paths() -> Node:
    job = answer("The job", ref("schemas", "Job"))
    one = ended()
    del one["headers"]["Idempotent-Replayed"]
    page = answer("One page", record({
        "jobs": array(ref("schemas", "Job")),
        "next": {"type": ["string", "null"], "description": "The cursor of the next page"},
    }))  # fmt: skip
    listed = _operation("listJobs", "Jobs, the newest first, without results", page, Invalid)
    listed["parameters"] = [
        _query("state", TEXT | {"description": "Several, by commas", "examples": ["failed,dead"]}),
        _query("model", TEXT),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED,
                         "default": LIMIT}),
        _query("cursor", TEXT),
    ]  # fmt: skip
    got = _operation("getJob", "One job, now or when it has ended", one, NotFound)
    got["parameters"] = [ref("parameters", "Prefer")]
    result = answer("The result, as the model's output", {})
    events = answer(
        "One `event: state` for each change, its data a Job without the result; then the end",
        TEXT, "text/event-stream",
    )  # fmt: skip
    removed = answer("It will be gone soon", record({"id": ID, "removed": TEXT, "links": LINKS}))
    given = {"parameters": [ref("parameters", "JobId")]}
    return {
        "/jobs": {"get": listed},
        "/jobs/{id}": given | {
            "get": got,
            "delete": _operation(
                "cancelJob", "Take it back; what a run under way comes to is dropped", job,
                NotFound, Conflict,
            ),
        },
        "/jobs/{id}/result": given | {"get": _operation(
            "getResult", "The result alone, or the problem that stands in its place", result,
            NotFound, Conflict, Invalid, ModelFailed, DeadlineExceeded,
        )},
        "/jobs/{id}/events": given | {"get": _operation(
            "followJob", "Its states as server-sent events", events, NotFound, Conflict
        )},
        "/jobs/{id}/replay": given | {"post": _later(_operation(
            "replayJob", "A dead job waits again, with all its tries", job, NotFound, Conflict
        ))},
        "/jobs/{id}/discard": given | {"post": _later(_operation(
            "discardJob", "Remove what has ended, with its input and result", removed, NotFound,
            Conflict,
        ))},
    }  # fmt: skip


def _operation(operation: str, summary: str, good: Node, *refusals: type[Refusal]) -> Node:
    return {
        "operationId": operation,
        "tags": [TAG["name"]],
        "summary": summary,
        "responses": responses(good, *refusals, *STORED),
    }


def _later(operation: Node) -> Node:
    """Its good answer is 202."""
    operation["responses"] = {"202": operation["responses"].pop("200")} | operation["responses"]
    return operation


def _query(name: str, schema: Node) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}
