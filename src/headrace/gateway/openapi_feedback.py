"""The feedback's part of the OpenAPI document."""

from __future__ import annotations

from headrace.errors import Invalid, NotFound, Unavailable
from headrace.gateway.feedback import MOST
from headrace.gateway.openapi_house import (
    COUNT,
    TEXT,
    WITH_BODY,
    Node,
    answer,
    record,
    ref,
    responses,
)
from headrace.monitoring import TEXT_MOST

TOLD: Node = record(
    {
        "label": {
            "type": ["boolean", "number", "string"],
            "maxLength": TEXT_MOST,
            "description": "What was right",
        }
    },
    {
        "request_id": TEXT | {"description": "Of the call; or `job_id`: one of them is needed"},
        "job_id": TEXT,
        "at": {"type": "number", "description": "When it was known, Unix seconds; now"},
    },
)
SCHEMAS: Node = {"Label": TOLD}


def paths() -> Node:
    label = ref("schemas", "Label")
    many = {"type": "array", "items": label, "minItems": 1, "maxItems": MOST}
    kept = answer("They are in the database", record({"model": TEXT, "labels": COUNT}))
    said = responses(kept, NotFound, Invalid, Unavailable, *WITH_BODY)
    said["202"] = said.pop("200")
    return {
        "/models/{name}/feedback": {
            "parameters": [ref("parameters", "ModelName")],
            "post": {
                "operationId": "tellLabels",
                "tags": ["house"],
                "summary": "What was right, told later",
                "description": "Of models with `models.NAME.monitor`: their quality is judged by"
                " the labels of the calls that were sampled.",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"oneOf": [label, many]}}},
                },
                "responses": said,
            },
        }
    }
