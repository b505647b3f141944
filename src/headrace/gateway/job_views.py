"""A stored job -> JSON for its owner."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.httpapi.answer import problem_json
from headrace.records import Lost, Record

_json = msgspec.json.Encoder().encode


def links(job_id: str) -> dict[str, str]:
    return {"self": f"/jobs/{job_id}", "events": f"/jobs/{job_id}/events"}


def accepted(job_id: str, model: str, state: str, request_id: str) -> dict[str, Any]:
    """The body of a 202."""
    return {"id": job_id, "model": model, "state": state, "request_id": request_id,
            "links": links(job_id)}  # fmt: skip


def job_view(record: Record) -> dict[str, Any]:
    """Without its result. Times are Unix seconds."""
    view: dict[str, Any] = {
        "id": record.id,
        "model": record.model,
        "state": record.state.value,
        "priority": record.priority.name.lower(),
        "attempt": record.attempt,
        "tries": record.tries,
        "max_attempts": record.max_attempts,
        "request_id": record.request_id,
        "created": record.created,
        "deadline": record.deadline,
        "started": record.started,
        "finished": record.finished,
    }
    if record.version:
        view["version"] = record.version
        view["executed_ms"] = round(record.executed_ms, 3)
    if record.problem:
        view["problem"] = problem_json(record.problem, record.request_id)
    return view | {"links": links(record.id)}


def job_json(record: Record, result: bytes | None, losses: list[Lost] | None = None) -> bytes:
    """`result`: JSON already; None where there is none (yet)."""
    view = job_view(record)
    if losses:
        view["losses"] = [msgspec.to_builtins(loss) for loss in losses]
    return _json(view | {"result": msgspec.Raw(result) if result else None})
