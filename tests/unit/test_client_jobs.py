"""Stored jobs by both clients: what is sent, how long they are waited for, how they end."""

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from headrace.client import AsyncClient, CallRefused, Client, DeadlinePassed
from headrace.client.ended import PAUSE_S, POLL_S

URL = "http://house.test"
ID = "01a2040df71fd3fbce42115a703e8fe3"
PROBLEM = {"status": 500, "code": "model-failed", "detail": "it raised", "title": "Failed"}


def view(state: str = "waiting", **more: Any) -> dict[str, Any]:
    return {"id": ID, "model": "m", "state": state, "request_id": "r1", "later": 1} | more


def reply(state: str = "waiting", status: int = 200, **more: Any) -> httpx.Response:
    return httpx.Response(status, json=view(state, **more))


def refused(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"status": status, "code": code, "detail": "no"})


class Played:
    """Answers in turn, or by a function; an exception is raised. Keeps the requests."""

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

    def sent(self) -> list[str]:
        return [f"{r.method} {r.url.raw_path.decode()}" for r in self.requests]


Do = Callable[[Played, Callable[[Any], Any]], Any]


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Do:
    """do(played, lambda client: client.submit("m", 1)) by either client; waits take no time."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("headrace.client.face.time.sleep", slept.append)
    monkeypatch.setattr("headrace.client.face.asyncio.sleep", sleep)

    def by_sync(played: Played, act: Callable[[Any], Any]) -> Any:
        with Client(URL, transport=played.transport) as client:
            found = act(client)
            return list(found) if inspect.isgenerator(found) else found

    def by_async(played: Played, act: Callable[[Any], Any]) -> Any:
        async def call() -> Any:
            async with AsyncClient(URL, transport=played.transport) as client:
                found = act(client)
                if inspect.isasyncgen(found):
                    return [each async for each in found]
                return await found

        return asyncio.run(call())

    chosen: Do = by_sync if request.param == "sync" else by_async
    chosen.slept = slept  # type: ignore[attr-defined]
    return chosen


def result(timeout_s: float | None = None, kind: Any = None) -> Callable[[Any], Any]:
    """job(ID).result(timeout_s), for both clients."""

    def act(client: Any) -> Any:
        if isinstance(client, Client):
            return client.job(ID, result_type=kind).result(timeout_s)

        async def later() -> Any:
            return await (await client.job(ID, result_type=kind)).result(timeout_s)

        return later()

    return act


# -- submit ----------------------------------------------------------------------------------------


def test_a_submit(do: Do) -> None:
    played = Played(reply(status=202))
    job = do(played, lambda client: client.submit("m", {"x": 1}, priority="bulk", ttl_s=90))
    assert (job.id, job.state, job.ended, job.view.model) == (ID, "waiting", False, "m")
    [request] = played.requests
    assert played.sent() == ["POST /models/m/jobs"] and request.content == b'{"x":1}'
    assert request.headers["headrace-priority"] == "bulk"
    assert request.headers["headrace-deadline-ms"] == "90000"
    assert len(request.headers["idempotency-key"]) == 32


def test_a_submit_without_a_time_to_live_has_the_houses(do: Do) -> None:
    played = Played(reply(status=202))
    do(played, lambda client: client.submit("m", 1))
    assert "headrace-deadline-ms" not in played.requests[0].headers


def test_a_submit_that_is_sent_again_has_the_same_key(do: Do) -> None:
    played = Played(httpx.ReadError("reset"), refused(503, "storage-unavailable"), reply())
    job = do(played, lambda client: client.submit("m", 1))
    assert job.id == ID
    assert len({request.headers["idempotency-key"] for request in played.requests}) == 1


def test_two_submits_have_two_keys(do: Do) -> None:
    keys = set()
    for _ in range(2):
        played = Played(reply(status=202))
        do(played, lambda client: client.submit("m", 1))
        keys.add(played.requests[0].headers["idempotency-key"])
    assert len(keys) == 2


def test_a_key_of_ones_own(do: Do) -> None:
    played = Played(reply("succeeded", result=2))
    job = do(played, lambda client: client.submit("m", 1, idempotency_key="order-7"))
    assert played.requests[0].headers["idempotency-key"] == "order-7"
    assert job.state == "succeeded"  # the key's job has ended already


def test_a_key_that_was_used_for_another_call(do: Do) -> None:
    with pytest.raises(CallRefused) as caught:
        do(Played(refused(422, "idempotency-key-reuse")), lambda client: client.submit("m", 1))
    assert caught.value.code == "idempotency-key-reuse"


def test_a_predict_with_a_key(do: Do) -> None:
    answer = httpx.Response(200, json={"result": 2, "model": "m"})
    played = Played(httpx.ReadError("reset"), answer)
    got = do(played, lambda client: client.predict("m", 1, idempotency_key="k"))
    assert got.result == 2
    assert [request.headers["idempotency-key"] for request in played.requests] == ["k", "k"]


def test_a_predict_has_no_key_of_its_own(do: Do) -> None:
    played = Played(httpx.Response(200, json={"result": 2}))
    do(played, lambda client: client.predict("m", 1))
    assert "idempotency-key" not in played.requests[0].headers


@pytest.mark.parametrize("more", [{}, {"route_key": "user-7"}])
def test_calls_and_jobs_of_one_user(do: Do, more: dict[str, str]) -> None:
    asked: list[tuple[Any, dict[str, Any]]] = [
        (lambda client: client.predict("m", 1, **more), {"result": 2}),
        (
            lambda client: client.predict_many("m", [1], **more),
            {"results": [{"status": 200, "result": 2}]},
        ),
    ]
    for ask, answer in asked:
        played = Played(httpx.Response(200, json=answer))
        do(played, ask)
        assert played.requests[0].headers.get("headrace-route-key") == more.get("route_key")
    played = Played(reply(status=202))
    do(played, lambda client: client.submit("m", 1, **more))
    assert played.requests[0].headers.get("headrace-route-key") == more.get("route_key")


# -- until it has ended ----------------------------------------------------------------------------


@dataclass
class Score:
    same: bool


def test_a_result_is_polled_for(do: Do) -> None:
    played = Played(reply(), reply("running"), reply("succeeded", result={"same": True}))
    assert do(played, result(kind=Score)) == Score(same=True)
    assert played.sent() == [f"GET /jobs/{ID}"] * 3
    assert "prefer" not in played.requests[0].headers
    assert played.requests[1].headers["prefer"] == f"wait={POLL_S:.0f}"


def test_an_early_answer_without_an_end_is_not_asked_again_at_once(do: Do) -> None:
    played = Played(reply(), reply("running"), reply("succeeded", result=1))
    do(played, result())
    assert do.slept == [PAUSE_S]  # type: ignore[attr-defined]


def test_a_null_is_a_result(do: Do) -> None:
    played = Played(reply("succeeded", result=None))
    assert do(played, result()) is None
    assert len(played.requests) == 1


def test_a_result_that_did_not_come_with_the_job_is_fetched(do: Do) -> None:
    held_back = httpx.Response(
        200,
        json=view("succeeded", result=None),
        headers={"Headrace-Result": "artifact-unavailable"},
    )
    played = Played(held_back, httpx.Response(200, json=[1, 2]))
    assert do(played, result()) == [1, 2]
    assert played.sent()[1] == f"GET /jobs/{ID}/result"


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [("dead", 500, "model-failed"), ("cancelled", 409, "job-cancelled"),
     ("expired", 504, "deadline-exceeded"), ("failed", 422, "too-small")],
)  # fmt: skip
def test_a_job_without_a_result_says_why(do: Do, state: str, status: int, code: str) -> None:
    with pytest.raises(CallRefused) as caught:
        do(Played(reply(state), refused(status, code)), result())
    assert (caught.value.status, caught.value.code) == (status, code)


def test_a_house_that_is_away_is_asked_again(do: Do) -> None:
    away = [httpx.ConnectError("refused")] * 3 + [refused(503, "storage-unavailable")] * 3
    played = Played(reply(), *away, reply("succeeded", result=1))
    assert do(played, result()) == 1


def test_a_job_that_is_gone_is_not_asked_for_again(do: Do) -> None:
    with pytest.raises(CallRefused) as caught:
        do(Played(reply(), refused(404, "job-not-found")), result())
    assert caught.value.code == "job-not-found"


def test_patience_ends(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("headrace.client.ended.time.monotonic", lambda: now[0])

    def still_waiting(request: httpx.Request) -> httpx.Response:
        waited = request.headers.get("prefer", "wait=0").removeprefix("wait=")
        waits.append(int(waited))
        now[0] += int(waited)
        return reply("running")

    waits: list[int] = []
    played = Played()
    played.transport = httpx.MockTransport(still_waiting)
    with pytest.raises(DeadlinePassed, match="has not ended in 50 s: it was running"):
        do(played, result(timeout_s=50))
    assert waits == [0, 20, 20, 10]


def test_no_patience_at_all(do: Do) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlinePassed):
        do(Played(reply()), result(timeout_s=0))
    assert time.monotonic() - began < 1


# -- lists and changes -----------------------------------------------------------------------------


def test_a_list_is_read_page_by_page(do: Do) -> None:
    first = httpx.Response(200, json={"jobs": [view("dead", problem=PROBLEM)], "next": "c/1"})
    last = httpx.Response(200, json={"jobs": [view("failed")], "next": None})
    played = Played(first, last)
    found = do(played, lambda client: client.jobs(state=("dead", "failed"), model="m", page=1))
    assert [job.state for job in found] == ["dead", "failed"]
    assert found[0].view.problem.code == "model-failed"
    assert played.sent() == [
        "GET /jobs?limit=1&state=dead%2Cfailed&model=m",
        "GET /jobs?limit=1&state=dead%2Cfailed&model=m&cursor=c%2F1",
    ]


def test_a_state_alone(do: Do) -> None:
    played = Played(httpx.Response(200, json={"jobs": [], "next": None}))
    assert do(played, lambda client: client.jobs(state="dead")) == []
    assert played.sent() == ["GET /jobs?limit=200&state=dead"]


def test_a_job_is_waited_for_once(do: Do) -> None:
    played = Played(reply("running"))
    job = do(played, lambda client: client.job(ID, wait_s=7))
    assert job.state == "running" and played.requests[0].headers["prefer"] == "wait=7"


@pytest.mark.parametrize(
    ("method", "status", "sent"),
    [
        ("cancel", 200, f"DELETE /jobs/{ID}"),
        ("replay", 202, f"POST /jobs/{ID}/replay"),
        ("discard", 202, f"POST /jobs/{ID}/discard"),
    ],
)
def test_a_job_is_changed(do: Do, method: str, status: int, sent: str) -> None:
    played = Played(reply("cancelled", status))
    found = do(played, lambda client: getattr(client, method)(ID))
    assert played.sent() == [sent]
    assert found is None if method == "discard" else found.id == ID


@pytest.mark.parametrize("method", ["cancel", "replay", "discard"])
def test_a_change_that_cannot_be(do: Do, method: str) -> None:
    with pytest.raises(CallRefused) as caught:
        do(Played(refused(409, "job-ended")), lambda client: getattr(client, method)(ID))
    assert caught.value.status == 409


def test_an_id_that_is_none_stays_one_part_of_the_path(do: Do) -> None:
    played = Played(refused(404, "job-not-found"))
    with pytest.raises(CallRefused):
        do(played, lambda client: client.job("../status?x"))
    assert played.sent() == ["GET /jobs/..%2Fstatus%3Fx"]


def test_losses_are_told(do: Do) -> None:
    losses = [{"attempt": 1, "worker": "w", "at": 1.5, "reason": "it died"}]
    played = Played(reply("dead", losses=losses))
    job = do(played, lambda client: client.job(ID))
    assert job.view.losses[0].reason == "it died"
    assert ID in repr(job) and json.loads(played.requests[0].content or b"null") is None
