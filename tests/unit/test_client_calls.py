"""Whole calls over a transport of the tests' own: retries, deadlines, answers, refusals."""

import asyncio
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Annotated, Any

import httpx
import msgspec
import numpy as np
import pydantic
import pytest

import headrace
from headrace.client import (
    AnswerUnreadable,
    AsyncClient,
    CallError,
    CallFailed,
    CallRefused,
    Client,
    DeadlinePassed,
    FieldError,
    RetryBudget,
)
from headrace.client.read import retry_after_of

TIMINGS = {"read_ms": 0.1, "queued_ms": 0.4, "executed_ms": 2.0, "total_ms": 2.5, "later_ms": 9}
URL = "http://house.test"


def answer(result: Any, **more: Any) -> httpx.Response:
    body = {
        "result": result,
        "model": "m",
        "version": "7",
        "request_id": "r1",
        "timings": TIMINGS,
    }
    return httpx.Response(200, json=body | more)


def problem(status: int, code: str, retry_after: str = "", **more: Any) -> httpx.Response:
    headers = {"X-Request-Id": "r2"} | ({"Retry-After": retry_after} if retry_after else {})
    return httpx.Response(
        status, json={"status": status, "code": code, "detail": "no"} | more, headers=headers
    )


class Played:
    """Answers in turn; an exception is raised. Keeps the requests."""

    def __init__(self, *outcomes: httpx.Response | Exception) -> None:
        self.requests: list[httpx.Request] = []
        self._outcomes: Iterator[httpx.Response | Exception] = iter(outcomes)
        self.transport = httpx.MockTransport(self._next)

    def _next(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """ask(played, "predict", "m", 1, deadline_s=2) by either client; waits take no time."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("headrace.client.face.time.sleep", slept.append)
    monkeypatch.setattr("headrace.client.face.asyncio.sleep", sleep)

    def by_sync(played: Played, method: str, *args: Any, **kwargs: Any) -> Any:
        settings = kwargs.pop("settings", {})
        with Client(URL, transport=played.transport, **settings) as client:
            return getattr(client, method)(*args, **kwargs)

    def by_async(played: Played, method: str, *args: Any, **kwargs: Any) -> Any:
        settings = kwargs.pop("settings", {})

        async def call() -> Any:
            async with AsyncClient(URL, transport=played.transport, **settings) as client:
                return await getattr(client, method)(*args, **kwargs)

        return asyncio.run(call())

    chosen: Ask = by_sync if request.param == "sync" else by_async
    chosen.slept = slept  # type: ignore[attr-defined]
    return chosen


def test_an_answer(ask: Ask) -> None:
    played = Played(answer({"a": [1, 2.5]}))
    got = ask(played, "predict", "m", {"x": 1})
    assert got.result == {"a": [1, 2.5]}
    assert (got.model, got.version, got.request_id) == ("m", "7", "r1")
    assert got.timings.total_ms == 2.5 and got.timings.stages()["executed"] == 2.0
    [request] = played.requests
    assert (request.method, str(request.url)) == ("POST", f"{URL}/models/m/predict")
    assert request.headers["content-type"] == "application/json"
    assert request.content == b'{"x":1}'


@dataclass
class Score:
    same: bool
    score: float


class ScoreStruct(msgspec.Struct):
    same: bool
    score: float


class ScorePydantic(pydantic.BaseModel):
    same: bool
    score: float


@pytest.mark.parametrize("kind", [Score, ScoreStruct, ScorePydantic])
def test_a_typed_answer(ask: Ask, kind: Any) -> None:
    got = ask(Played(answer({"same": True, "score": 1})), "predict", "m", 1, result_type=kind)
    assert got.result == kind(same=True, score=1.0)


def test_a_typed_array(ask: Ask) -> None:
    kind = Annotated[np.ndarray, headrace.Tensor("float64", (2,))]
    got = ask(Played(answer([1.0, 2.0])), "predict", "m", 1, result_type=kind)
    assert isinstance(got.result, np.ndarray) and got.result.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("kind", "result"), [(Score, {"same": 3}), (ScorePydantic, {"same": "?"}), (int, "x")]
)
def test_an_answer_of_another_type(ask: Ask, kind: Any, result: Any) -> None:
    with pytest.raises(AnswerUnreadable, match=f"is not {kind.__name__}") as caught:
        ask(Played(answer(result)), "predict", "m", 1, result_type=kind)
    assert caught.value.request_id == "r1"


def test_an_answer_that_no_house_gave(ask: Ask) -> None:
    with pytest.raises(AnswerUnreadable):
        ask(Played(httpx.Response(200, text="<html>")), "predict", "m", 1)


def test_a_refusal(ask: Ask) -> None:
    errors = [{"pointer": "/rows/0", "code": "validation-failed", "detail": "Expected int"}]
    played = Played(problem(422, "validation-failed", errors=errors))
    with pytest.raises(CallRefused) as caught:
        ask(played, "predict", "m", 1)
    refusal = caught.value
    assert (refusal.status, refusal.code, refusal.detail) == (422, "validation-failed", "no")
    assert refusal.errors == [FieldError("/rows/0", "validation-failed", "Expected int")]
    assert refusal.retry_after_s is None and refusal.request_id == "r2"
    assert str(refusal) == "422 validation-failed: no\n  /rows/0: Expected int"
    assert len(played.requests) == 1


def test_a_refusal_by_a_proxy(ask: Ask) -> None:
    played = Played(httpx.Response(403, text="<h1>Forbidden</h1>"))
    with pytest.raises(CallRefused, match="Forbidden") as caught:
        ask(played, "predict", "m", 1)
    assert caught.value.code == "http-403"


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b'{"errors": 3}', b'"text"'])
def test_a_refusal_that_cannot_be_read_is_still_one(ask: Ask, body: bytes) -> None:
    with pytest.raises(CallRefused) as caught:
        ask(Played(httpx.Response(400, content=body)), "predict", "m", 1)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "first",
    [
        lambda: problem(503, "not-ready"),
        lambda: problem(429, "too-many"),
        lambda: httpx.Response(502, text="bad gateway"),
        lambda: httpx.ConnectError("refused"),
        lambda: httpx.RemoteProtocolError("closed"),
        lambda: httpx.ReadError("reset"),
    ],
)
def test_what_may_pass_is_tried_again(
    ask: Ask, first: Callable[[], httpx.Response | Exception]
) -> None:
    played = Played(first(), answer(3))
    assert ask(played, "predict", "m", 1).result == 3
    ids = {request.headers["x-request-id"] for request in played.requests}
    assert len(played.requests) == 2 and len(ids) == 1  # one call, two attempts


@pytest.mark.parametrize("status", [400, 404, 422, 500, 504])
def test_what_will_not_pass_is_not(ask: Ask, status: int) -> None:
    played = Played(problem(status, "no"))
    with pytest.raises(CallRefused):
        ask(played, "predict", "m", 1)
    assert len(played.requests) == 1


def test_three_attempts_then_the_refusal(ask: Ask) -> None:
    played = Played(*[problem(503, "not-ready", "1")] * 3)
    with pytest.raises(CallRefused) as caught:
        ask(played, "predict", "m", 1)
    assert caught.value.retry_after_s == 1.0
    assert len(played.requests) == 3
    assert all(1.0 <= seconds <= 1.2 for seconds in ask.slept)  # type: ignore[attr-defined]


def test_no_retries(ask: Ask) -> None:
    played = Played(httpx.ConnectError("refused"))
    with pytest.raises(CallFailed, match=r"cannot connect to http://house\.test: refused$"):
        ask(played, "predict", "m", 1, settings={"retries": 0})


def test_three_attempts_then_the_failure(ask: Ask) -> None:
    with pytest.raises(CallFailed, match="3 attempts") as caught:
        ask(Played(*[httpx.ReadError("reset")] * 3), "predict", "m", 1)
    assert isinstance(caught.value.__cause__, httpx.ReadError)
    assert caught.value.attempts == 3 and caught.value.request_id


def test_an_empty_budget_ends_retries(ask: Ask) -> None:
    budget = RetryBudget(share=0.0, reserve=1.0)
    played = Played(httpx.ReadError("reset"), httpx.ReadError("reset"))
    with pytest.raises(CallFailed, match="2 attempts"):
        ask(played, "predict", "m", 1, settings={"retry_budget": budget})


def test_each_attempt_has_what_is_left_of_the_deadline(ask: Ask) -> None:
    played = Played(problem(503, "busy"), answer(1))
    ask(played, "predict", "m", 1, deadline_s=5.0)
    first, second = (int(r.headers["headrace-deadline-ms"]) for r in played.requests)
    assert 4000 < second <= first <= 5000
    timeout = played.requests[0].extensions["timeout"]
    assert 4.0 < timeout.get("read") <= 5.25 and timeout.get("connect") <= 3.0


def test_a_retry_after_the_deadline_is_not_made(ask: Ask) -> None:
    played = Played(problem(503, "busy", "30"))
    with pytest.raises(CallRefused) as caught:
        ask(played, "predict", "m", 1, deadline_s=2.0)
    assert caught.value.retry_after_s == 30.0 and len(played.requests) == 1


def test_lateness_is_told_apart(ask: Ask) -> None:
    class Late(Played):
        def _next(self, request: httpx.Request) -> httpx.Response:
            end = time.monotonic() + 0.02
            while time.monotonic() < end:
                pass
            raise httpx.ReadTimeout("late")

    with pytest.raises(DeadlinePassed, match="before the deadline"):
        ask(Late(), "predict", "m", 1, deadline_s=0.01)


def test_many(ask: Ask) -> None:
    results = {
        "results": [
            {"status": 200, "result": 3},
            {"status": 422, "problem": {"status": 422, "code": "odd", "detail": "an odd one"}},
        ]
    }
    played = Played(httpx.Response(200, json=results, headers={"X-Request-Id": "r9"}))
    three, odd = ask(played, "predict_many", "m", iter([1, 2]), result_type=int)
    assert three == 3
    assert isinstance(odd, CallRefused) and (odd.code, odd.request_id) == ("odd", "r9")
    assert played.requests[0].url.path == "/models/m/predict-many"
    assert played.requests[0].content == b"[1,2]"


def test_pages(ask: Ask) -> None:
    page = {"name": "m", "version": "1", "ready": True, "input": {"type": "integer"}, "new": 1}
    [one] = ask(Played(httpx.Response(200, json={"models": [page]})), "models")
    assert (one.name, one.ready, one.input) == ("m", True, {"type": "integer"})
    assert ask(Played(httpx.Response(200, json=page)), "model", "m") == one
    workers = [{"worker": "w", "slots": 2, "slots_ready": 1}]
    body = {"gateway": "g", "ready": False, "models": [page | {"workers": workers}]}
    status = ask(Played(httpx.Response(200, json=body)), "status")
    assert status.models[0].workers[0].slots == 2


def test_not_ready_is_an_answer(ask: Ask) -> None:
    body = {"ready": False, "models": {"m": {"ready": False, "reason": "loading"}}}
    played = Played(httpx.Response(503, json=body))
    ready = ask(played, "ready")
    assert not ready and ready.models["m"].reason == "loading"


def test_a_name_is_one_part_of_the_path(ask: Ask) -> None:
    played = Played(answer(1))
    ask(played, "predict", "a/../b?c", 1)
    assert played.requests[0].url.raw_path == b"/models/a%2F..%2Fb%3Fc/predict"


def test_headers_of_ones_own(ask: Ask) -> None:
    played = Played(answer(1))
    ask(played, "predict", "m", 1, settings={"headers": {"Authorization": "Bearer x"}})
    assert played.requests[0].headers["authorization"] == "Bearer x"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_cannot_be_meant(kind: Any) -> None:
    with pytest.raises(ValueError, match="expected http://"):
        kind("127.0.0.1:8100")
    with pytest.raises(ValueError, match="above 0"):
        kind(URL, deadline_s=0)


def test_a_deadline_of_a_call_is_checked(ask: Ask) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ask(Played(), "predict", "m", 1, deadline_s=-1)


def test_retry_after_as_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for given, expected in (
        (format_datetime(now + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(now - timedelta(seconds=90), usegmt=True), 0.0),
        ("7", 7.0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ):
        reply = httpx.Response(503, headers={"Retry-After": given})
        assert retry_after_of(reply, now) == expected


def test_errors_survive_pickling() -> None:
    refusal = CallRefused(422, "c", "d", [FieldError("/a", "c", "d")], 1.5, "r")
    failure = DeadlinePassed("late", 2, "r")
    for error in (refusal, failure, AnswerUnreadable("no", "r")):
        again: CallError = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error) and again.request_id == "r"
        assert type(again) is type(error)
