"""One call as steps, without I/O: whoever runs it sends and waits, and hands back what came.

    Send -> outcome -> decide -> Wait -> Send -> outcome -> ... -> answer, or the error raised

The sync and the async client run the same steps.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from headrace.client.asks import Ask
from headrace.client.errors import CallFailed, DeadlinePassed
from headrace.client.read import refusal_of
from headrace.client.retry import Outcome, RetryBudget, decide

T = TypeVar("T")

CONNECT_S = 3.0  # to one address: the time left is better spent on another attempt
GRACE_S = 0.25  # beyond the deadline, for the house's own "504" to arrive: it says why


@dataclass(frozen=True, slots=True)
class Send:
    """The arguments of `httpx.Client.request`."""

    method: str
    url: str
    content: bytes | None
    headers: dict[str, str]
    extensions: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


Steps = Generator[Send | Wait, Outcome | None, T]


class TimeLeft(dict[str, float]):
    """httpx's timeouts are each for one phase (connect, write, read), so that a call could take
    several times as long. The transport asks for them as each phase begins: it gets what is left
    until `end` (of the monotonic clock)."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self._end = end

    def get(self, phase: str, default: Any = None) -> Any:
        left_s = max(0.001, self._end - time.monotonic())
        return min(left_s, CONNECT_S) if phase == "connect" else left_s


def attempts(ask: Ask[T], url: str, deadline_s: float, most: int, budget: RetryBudget) -> Steps[T]:
    """At most `most` times, until `deadline_s` seconds from now. Raises CallError."""
    end = time.monotonic() + deadline_s
    request_id = secrets.token_hex(8)  # the same for all attempts: the logs show them as one call
    budget.earn()
    attempt = 0
    while True:
        attempt += 1
        outcome = yield _send(ask, url, request_id, end)
        assert outcome is not None
        if isinstance(outcome, httpx.Response) and outcome.status_code in ask.answers:
            return ask.read(outcome)
        left_s = end - time.monotonic()
        wait_s = decide(outcome, attempt, most, left_s=left_s, budget=budget, dice=random.random())
        if wait_s is None:
            if isinstance(outcome, httpx.Response):
                raise refusal_of(outcome)
            raise _failure(outcome, url, attempt, request_id, end) from outcome
        yield Wait(wait_s)


def _send(ask: Ask[Any], url: str, request_id: str, end: float) -> Send:
    left_ms = max(1, round((end - time.monotonic()) * 1000))
    headers = {**ask.headers, "X-Request-Id": request_id}
    if ask.timed:
        headers["Headrace-Deadline-Ms"] = str(left_ms)
    if ask.body is not None:
        headers["Content-Type"] = ask.body.content_type
    content = None if ask.body is None else ask.body.data
    timeout = {"timeout": TimeLeft(end + GRACE_S)}
    return Send(ask.method, url + ask.path, content, headers, timeout)


def _failure(
    error: httpx.RequestError, url: str, attempt: int, request_id: str, end: float
) -> CallFailed:
    if isinstance(error, httpx.TimeoutException) and time.monotonic() >= end:
        return DeadlinePassed(f"no answer from {url} before the deadline", attempt, request_id)
    words = str(error) or type(error).__name__
    return CallFailed(f"{_what(error)} {url}: {words}", attempt, request_id)


def _what(error: httpx.RequestError) -> str:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "cannot connect to"
    return "no answer from"
