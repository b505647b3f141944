"""What can be asked of a house: method, path, body, and how its reply is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import httpx

from headrace.client.answers import Answer, JobPage, Readiness, ServedModel, Status
from headrace.client.read import Found, answer_of, answers_of, found_of, read_as
from headrace.client.write import Body, body_of, many_of

T = TypeVar("T")

ROUTE_KEY = "Headrace-Route-Key"


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """`answers`: the statuses that are answers; all others are refusals. `timed`: the house is told
    how long the caller waits."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    body: Body | None = None
    answers: tuple[int, ...] = (200,)
    headers: Mapping[str, str] = field(default_factory=dict)
    timed: bool = True


def predict(
    model: str, input: Any, kind: Any, key: str | None = None, route_key: str | None = None
) -> Ask[Answer[Any]]:
    path = f"/models/{quote(model, safe='')}/predict"
    headers = _given({"Idempotency-Key": key, ROUTE_KEY: route_key})
    return Ask("POST", path, lambda reply: answer_of(reply, kind), body_of(input), headers=headers)


def predict_many(
    model: str, inputs: Iterable[Any], kind: Any, route_key: str | None = None
) -> Ask[list[Any]]:
    path, headers = f"/models/{quote(model, safe='')}/predict-many", _given({ROUTE_KEY: route_key})
    return Ask("POST", path, lambda reply: answers_of(reply, kind), many_of(list(inputs)),
               headers=headers)  # fmt: skip


def feedback(model: str, labels: Mapping[str, Any], at: float | None) -> Ask[int]:
    """Safe to send again: of one call the last label counts."""
    path = f"/models/{quote(model, safe='')}/feedback"
    when = {} if at is None else {"at": at}
    told = [{"request_id": call, "label": label} | when for call, label in labels.items()]
    return Ask("POST", path, lambda reply: read_as(reply, dict[str, Any])["labels"], body_of(told),
               answers=(202,), timed=False)  # fmt: skip


def models() -> Ask[list[ServedModel]]:
    return Ask(
        "GET", "/models", lambda reply: read_as(reply, dict[str, list[ServedModel]])["models"]
    )


def model(name: str) -> Ask[ServedModel]:
    path = f"/models/{quote(name, safe='')}"
    return Ask("GET", path, lambda reply: read_as(reply, ServedModel))


def ready() -> Ask[Readiness]:
    """503 is an answer here: not ready, and why."""
    return Ask("GET", "/health/ready", lambda reply: read_as(reply, Readiness), answers=(200, 503))


def status() -> Ask[Status]:
    return Ask("GET", "/status", lambda reply: read_as(reply, Status))


# -- stored jobs -----------------------------------------------------------------------------------


def submit(
    model: str,
    input: Any,
    key: str,
    priority: str,
    ttl_s: float | None,
    route_key: str | None = None,
) -> Ask[Found]:
    """The key makes it safe to send again. 200: the key stands for a job that has ended."""
    path = f"/models/{quote(model, safe='')}/jobs"
    life_ms = None if ttl_s is None else str(max(1, round(ttl_s * 1000)))
    headers = _given({
        "Idempotency-Key": key,
        "Headrace-Priority": priority,
        "Headrace-Deadline-Ms": life_ms,
        ROUTE_KEY: route_key,
    })  # fmt: skip
    return Ask("POST", path, found_of, body_of(input), (200, 202), headers, timed=False)


def job(id: str, wait_s: float = 0) -> Ask[Found]:
    headers = {"Prefer": f"wait={max(1, int(wait_s))}"} if wait_s > 0 else {}
    return Ask("GET", _job(id), found_of, headers=headers, timed=False)


def result(id: str) -> Ask[bytes]:
    """The result alone, as JSON. A job that has none refuses with the reason."""
    return Ask("GET", f"{_job(id)}/result", lambda reply: reply.content, timed=False)


def jobs(states: Iterable[str], model: str, limit: int, cursor: str | None) -> Ask[JobPage]:
    query = {"limit": str(limit), "state": ",".join(states), "model": model, "cursor": cursor or ""}
    given = urlencode({name: value for name, value in query.items() if value})
    return Ask("GET", f"/jobs?{given}", lambda reply: read_as(reply, JobPage), timed=False)


def cancel(id: str) -> Ask[Found]:
    return Ask("DELETE", _job(id), found_of, timed=False)


def replay(id: str) -> Ask[Found]:
    return Ask("POST", f"{_job(id)}/replay", found_of, answers=(202,), timed=False)


def discard(id: str) -> Ask[None]:
    return Ask("POST", f"{_job(id)}/discard", lambda _: None, answers=(202,), timed=False)


def query_of(**given: object) -> str:
    """Of what is not None."""
    return "?" + urlencode(_given(given))


def _given(values: Mapping[str, T | None]) -> dict[str, T]:
    return {name: value for name, value in values.items() if value is not None}


def _job(id: str) -> str:
    return f"/jobs/{quote(id, safe='')}"
