"""What can be asked of a house: method, path, body, and how its reply is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from headrace.client.answers import Answer, Readiness, ServedModel, Status
from headrace.client.read import answer_of, answers_of, read_as
from headrace.client.write import Body, body_of, many_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """`answers`: the statuses that are answers; all others are refusals."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    body: Body | None = None
    answers: tuple[int, ...] = (200,)


def predict(model: str, input: Any, kind: Any) -> Ask[Answer[Any]]:
    path = f"/models/{quote(model, safe='')}/predict"
    return Ask("POST", path, lambda reply: answer_of(reply, kind), body_of(input))


def predict_many(model: str, inputs: Iterable[Any], kind: Any) -> Ask[list[Any]]:
    path = f"/models/{quote(model, safe='')}/predict-many"
    return Ask("POST", path, lambda reply: answers_of(reply, kind), many_of(list(inputs)))


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
