"""The webhooks' part of the OpenAPI document: their routes, and what they send."""

from __future__ import annotations

from typing import Any

from headrace.errors import Conflict, Invalid, NotFound, Refusal, Unavailable
from headrace.gateway.openapi_house import (
    COUNT,
    FLAG,
    TEXT,
    WITH_BODY,
    Node,
    answer,
    array,
    record,
    ref,
    responses,
)
from headrace.gateway.webhooks import MOST_OVERLAP_S, OVERLAP_S
from headrace.httpapi.listing import LIMIT, MOST_LISTED
from headrace.records import EVENTS

TAG = {"name": "webhooks", "description": "Where you are told of the ends of jobs"}
TIME: Node = {"type": "number", "description": "Unix seconds"}
TIME_OR_NULL: Node = {"type": ["number", "null"], "description": "Unix seconds"}
EVENT: Node = {"type": "string", "enum": sorted(EVENTS)}
ID: Node = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
SIGNED = """\
Signed as Standard Webhooks: `webhook-id` (the same when it is sent again), `webhook-timestamp`,
`webhook-signature` over the raw body. Answer with any 2xx, soon; 410 switches the webhook off; all
else is tried again for three days."""

WEBHOOK: Node = record(
    {
        "id": TEXT,
        "url": TEXT,
        "events": array(EVENT),
        "enabled": FLAG | {"description": "False: switched off, `note` says why"},
        "created": TIME,
        "failing_since": TIME_OR_NULL | {"description": "Since when no delivery was taken"},
        "note": TEXT,
        "old_secret_until": TIME_OR_NULL | {"description": "Until then two secrets sign"},
    }
)
DELIVERY: Node = record(
    {
        "id": TEXT | {"description": "The webhook-id"},
        "event": TEXT,
        "job_id": TEXT,
        "state": {"type": "string", "enum": ["waiting", "delivered", "failed", "dropped"]},
        "tries": COUNT,
        "created": TIME,
        "due": TIME_OR_NULL | {"description": "When it is tried next"},
        "last_status": {"type": ["integer", "null"]},
        "last_error": TEXT,
    }
)
EVENT_BODY: Node = record(
    {
        "type": {"type": "string", "enum": [*sorted(EVENTS - {"*"}), "webhook.test"]},
        "timestamp": TIME,
        "data": record({}, {
            "id": TEXT | {"description": "The job"},
            "model": TEXT, "state": TEXT, "version": TEXT, "href": TEXT,
            "webhook": TEXT | {"description": "Of a test event alone"},
        }),
    }
)  # fmt: skip
SECRET: Node = TEXT | {"description": "Shown here alone", "examples": ["whsec_C2FVsBQIhrscChlQ"]}

SCHEMAS: Node = {"Webhook": WEBHOOK, "Delivery": DELIVERY, "WebhookEvent": EVENT_BODY}


def paths() -> Node:
    hook = ref("schemas", "Webhook")
    with_secret = {"allOf": [hook, record({"secret": SECRET})]}
    registration = record(
        {"url": TEXT | {"description": "https://, to a public address"}},
        {"events": array(EVENT) | {"default": ["*"]}, "note": TEXT | {"maxLength": 200}},
    )
    overlap = {"type": "number", "minimum": 0, "maximum": MOST_OVERLAP_S, "default": OVERLAP_S}
    added = _operation(
        "addWebhook", "Be told of the ends of jobs", answer("With its secret", with_secret),
        Invalid, Conflict, *WITH_BODY, body=registration,
    )  # fmt: skip
    added["callbacks"] = {"event": {"{$request.body#/url}": {"post": {
        "summary": "What is sent",
        "description": SIGNED,
        "requestBody": {"content": {
            "application/json": {"schema": ref("schemas", "WebhookEvent")}
        }},
        "responses": {"2XX": {"description": "Taken"}},
    }}}}  # fmt: skip
    listed = _operation(
        "listWebhooks", "All of yours", answer("Them", record({"webhooks": array(hook)}))
    )
    rotated = _operation(
        "rotateWebhook", "A new secret; the old one signs, too, for a while",
        answer("With its new secret", with_secret), NotFound, Invalid, *WITH_BODY,
        body=record({}, {"overlap_s": overlap}),
    )  # fmt: skip
    rotated["requestBody"]["required"] = False
    tested = _operation(
        "testWebhook", "A test event, sent as all others are",
        answer("On its way", record({"id": TEXT, "links": {"type": "object"}})),
        NotFound, Conflict,
    )  # fmt: skip
    tested["responses"]["202"] = tested["responses"].pop("200")
    sent = record({"deliveries": array(ref("schemas", "Delivery")), "next": {
        "type": ["string", "null"], "description": "The cursor of the next page",
    }})  # fmt: skip
    deliveries = _operation(
        "listDeliveries", "What was sent, newest first", answer("They", sent), NotFound, Invalid
    )
    deliveries["parameters"] = [
        _query("limit", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED,
                         "default": LIMIT}),
        _query("cursor", TEXT),
    ]  # fmt: skip
    removed = answer("Gone", record({"id": TEXT, "removed": FLAG}))
    return {
        "/webhooks": {"get": listed, "post": added},
        "/webhooks/{id}": {
            "parameters": [ID],
            "get": _operation("getWebhook", "One", answer("It", hook), NotFound),
            "delete": _operation(
                "removeWebhook", "Remove it, with what waits for it", removed, NotFound
            ),
        },
        "/webhooks/{id}/rotate": {"parameters": [ID], "post": rotated},
        "/webhooks/{id}/test": {"parameters": [ID], "post": tested},
        "/webhooks/{id}/deliveries": {"parameters": [ID], "get": deliveries},
    }


def _operation(
    operation: str, summary: str, good: Node, *refusals: type[Refusal], body: Node | None = None
) -> Node:
    found: dict[str, Any] = {
        "operationId": operation,
        "tags": [TAG["name"]],
        "summary": summary,
        "responses": responses(good, *refusals, Unavailable),
    }
    if body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return found


def _query(name: str, schema: Node) -> Node:
    return {"name": name, "in": "query", "schema": schema}
