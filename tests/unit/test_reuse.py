"""Calls of equal content run once, each keeps its own deadline, and nobody has another's error."""

import asyncio
import json
import time

import pytest

from headrace.announce import Announcement
from headrace.errors import DeadlineExceeded, Problem, Refusal, Unavailable
from headrace.gateway.app import App
from headrace.gateway.reuse import Asked, Reuse, agreed_version, asked
from headrace.gateway.snapshot import ModelView, Snapshot
from headrace.jobs import Form, Outcome, Returned
from headrace.settings import GatewaySettings
from headrace.signature import Card
from headrace.telemetry.metrics import GatewayMetrics

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Jobs:
    """In place of dispatch: what was started, answered when the test says so."""

    def __init__(self):
        self.started, self.cancelled, self.by_workload = {}, [], {}
        self.workloads = []

    def start(self, model, request_id, body, *, deadline, form, on_outcome):
        number = len(self.started) + 1
        self.started[number] = (request_id, body, deadline, on_outcome)
        self.workloads.append(model)
        return number

    def cancel(self, number):
        self.cancelled.append(number)

    def answer(self, number, body=b"1", version="1", problem=None, by="m"):
        outcome = Outcome(number, time.time(), 0.1, 5.0, body, problem)
        self.started[number][3](outcome, Returned(by, version, "w", time.time(), [outcome]))

    def refuse(self, number, refusal):
        self.started[number][3](refusal, None)


class Call:
    """One caller: what it was told, and how that was come by."""

    def __init__(self, house, body=b"x", seconds=5.0, **more):
        self.told, self.how = None, None
        self.number = house.reuse.start(
            more.pop("view", house.view), more.pop("id", "r"), body,
            deadline=time.time() + seconds, form=more.pop("form", Form.JSON),
            tenant=more.pop("tenant", "default"),
            admit=more.pop("admit", lambda now: None), on_answer=self._on_answer, **more,
        )  # fmt: skip

    def _on_answer(self, outcome, returned, how=b""):
        assert self.told is None, "answered twice"
        self.told, self.how = outcome, how
        self.version = returned.version if returned else ""

    @property
    def result(self):
        return (self.told.body, self.how)


class House:
    def __init__(self, most=100, ttl_s=60.0, shared=None):
        self.jobs, self.metrics = Jobs(), GatewayMetrics()
        self.reuse = Reuse(
            {"m": ttl_s}, self.jobs, self.metrics, max_bytes=1 << 20, most=most, shared=shared
        )
        self.view = view("1")

    def count(self, how):
        return self.metrics.reuse.values.get(("m", how), 0)

    def is_empty(self):
        return not self.reuse._flights and not self.reuse._waiters


def news(worker, version, ready=True):
    card = Card("m", version, "", SCHEMA, {}, 8) if version else None
    return Announcement(worker, "m", ready, "", card, 1, 1, 0, 0, 0, True, 1.0, 1.0, 8)


def view(*versions):
    seen = ModelView("m")
    for number, version in enumerate(versions):
        seen.hear(news(f"w{number}", version), time.monotonic())
    return seen


@pytest.fixture
def house():
    return House()


# -- kept ------------------------------------------------------------------------------------------


async def test_the_second_call_is_a_hit(house):
    one = Call(house)
    assert one.told is None
    house.jobs.answer(1, b"7")
    assert one.result == (b"7", b"")
    two = Call(house)
    assert two.result == (b"7", b"hit") and two.told.executed_ms == 0
    assert two.version == "1"
    assert len(house.jobs.started) == 1
    assert (house.count("miss"), house.count("hit_memory")) == (1, 1)
    assert house.is_empty()


@pytest.mark.parametrize(
    "other",
    [{"body": b"y"}, {"tenant": "another"}, {"form": Form.CANONICAL}, {"view": view("2")}],
)
async def test_what_differs_is_run(house, other):
    Call(house)
    Call(house, **other)
    assert len(house.jobs.started) == 2, "nor do they wait for one another"
    house.jobs.answer(1)
    Call(house, **{**other, "body": other.get("body", b"x")})
    assert house.count("hit_memory") == 0


async def test_after_its_time_it_is_run_again():
    house = House(ttl_s=0.03)
    Call(house)
    house.jobs.answer(1)
    assert Call(house).how == b"hit"
    await asyncio.sleep(0.05)
    Call(house)
    assert len(house.jobs.started) == 2


@pytest.mark.parametrize("problem", [Problem(422, "face-too-small", "x"), Problem(500, "e", "x")])
async def test_problems_are_not_kept(house, problem):
    one = Call(house)
    house.jobs.answer(1, problem=problem)
    assert one.told.problem == problem
    Call(house)
    assert len(house.jobs.started) == 2


async def test_the_answer_is_kept_under_the_version_that_gave_it(house):
    """The workers are replaced while the job is under way."""
    one = Call(house)
    house.jobs.answer(1, b"new", version="2")
    assert one.version == "2"
    Call(house)
    assert len(house.jobs.started) == 2, "a worker of version 1 may still answer"
    assert Call(house, view=view("2")).result == (b"new", b"hit")


async def test_while_versions_differ_each_call_is_run_and_kept(house):
    both = view("1", "2")
    one, two = Call(house, view=both), Call(house, view=both)
    assert len(house.jobs.started) == 2
    house.jobs.answer(1, b"old", version="1")
    house.jobs.answer(2, b"new", version="2")
    assert (one.result, two.result) == ((b"old", b""), (b"new", b""))
    assert Call(house, view=view("1")).result == (b"old", b"hit")
    assert Call(house, view=view("2")).result == (b"new", b"hit")


def test_the_agreed_version_is_that_of_all_who_are_ready():
    assert agreed_version(view()) is None
    assert agreed_version(view("1", "1")) == "1"
    assert agreed_version(view("1", "2")) is None
    seen = view("1")
    seen.hear(news("w9", "2", ready=False), time.monotonic())
    assert agreed_version(seen) == "1"
    seen.hear(news("w9", None), time.monotonic())
    assert agreed_version(seen) == "1"


async def test_no_cache_looks_not_and_no_store_keeps_not(house):
    Call(house)
    house.jobs.answer(1, b"1")
    fresh = Call(house, asked=Asked(look=False))
    house.jobs.answer(2, b"2")
    assert fresh.result == (b"2", b"")
    assert Call(house).result == (b"2", b"hit"), "it replaced what was kept"
    assert Call(house, asked=Asked(keep=False)).result == (b"2", b"hit")

    Call(house, b"z", asked=Asked(keep=False))
    Call(house, b"z")
    assert len(house.jobs.started) == 4, "nobody waits for what must not be kept"
    house.jobs.answer(3)
    Call(house, b"z", asked=Asked(look=False, keep=False))
    assert len(house.jobs.started) == 5


class Request:
    method, query, id = b"POST", b"", "r-1"

    def __init__(self, body=b'{"n":1}', **headers):
        self.body, self.status = body, None
        self.headers = {b"content-type": b"application/json"}
        self.headers |= {name.replace("_", "-").encode(): v for name, v in headers.items()}

    def answer(self, status, body, head):
        self.status, self.head, self.json = status, head, json.loads(body)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"no-cache", (False, True)), (b"No-Store", (True, False)),
        (b"max-age=5, no-store ,no-cache", (False, False)), (b"nonsense", (True, True)),
    ],
)  # fmt: skip
def test_cache_control(value, expected):
    assert asked(Request(cache_control=value)) == expected
    assert asked(Request()) == (True, True)


# -- under way -------------------------------------------------------------------------------------


async def test_fifty_at_once_run_once(house):
    calls = [Call(house, id=f"r-{n}") for n in range(50)]
    assert len(house.jobs.started) == 1
    house.jobs.answer(1, b"7")
    assert [call.result for call in calls] == [(b"7", b""), *[(b"7", b"coalesced")] * 49]
    assert (house.count("miss"), house.count("coalesced")) == (1, 49)
    assert house.is_empty()


async def test_a_leader_that_leaves_takes_nobody_along(house):
    leader, follower = Call(house), Call(house)
    house.reuse.cancel(leader.number)
    house.reuse.cancel(leader.number)
    assert house.jobs.cancelled == []
    late = Call(house)
    house.jobs.answer(1)
    assert leader.told is None
    assert (follower.how, late.how) == (b"coalesced", b"coalesced")
    assert len(house.jobs.started) == 1


async def test_when_all_have_left_the_job_is_cancelled(house):
    one, two = Call(house), Call(house)
    house.reuse.cancel(two.number)
    assert house.jobs.cancelled == []
    house.reuse.cancel(one.number)
    assert house.jobs.cancelled == [1] and house.is_empty()
    Call(house)
    assert len(house.jobs.started) == 2


async def test_a_followers_deadline_is_its_own(house):
    leader, hasty = Call(house), Call(house, seconds=0.03)
    await asyncio.sleep(0.06)
    assert isinstance(hasty.told, DeadlineExceeded) and leader.told is None
    house.jobs.answer(1)
    assert leader.how == b""


async def test_the_leaders_deadline_ends_no_follower(house):
    """The job runs with the leader's; when that is over, the next one leads, with its own."""
    leader, one, two = Call(house, seconds=0.5), Call(house, id="r-1", seconds=9), Call(house)
    house.jobs.refuse(1, DeadlineExceeded("over"))
    assert isinstance(leader.told, DeadlineExceeded)
    assert one.told is None and two.told is None
    assert len(house.jobs.started) == 2
    request_id, _, deadline, _ = house.jobs.started[2]
    assert request_id == "r-1" and deadline > time.time() + 8
    house.jobs.answer(2)
    assert (one.how, two.how) == (b"", b"coalesced")


@pytest.mark.parametrize("how", ["problem", "refusal"])
async def test_a_failed_leader_fails_alone_and_the_rest_waits_no_third_time(house, how):
    def fail(number):
        if how == "problem":
            house.jobs.answer(number, problem=Problem(500, "model-failed", "x"))
        else:
            house.jobs.refuse(number, Unavailable("gone", code="storage-unavailable"))

    calls = [Call(house) for _ in range(5)]
    fail(1)
    assert [call.told is None for call in calls] == [False, True, True, True, True]
    assert len(house.jobs.started) == 2
    calls.append(Call(house))
    fail(2)
    assert len(house.jobs.started) == 6, "each on its own"
    assert [call.told is None for call in calls] == [False, False, True, True, True, True]
    for number in (3, 4, 5, 6):
        house.jobs.answer(number)
    assert [call.how for call in calls] == [b""] * 6
    assert house.is_empty()


async def test_422_is_said_of_the_input_and_so_to_all(house):
    problem = Problem(422, "face-too-small", "x")
    calls = [Call(house) for _ in range(3)]
    house.jobs.answer(1, problem=problem)
    assert [(call.told.problem, call.how) for call in calls] == [
        (problem, b""), (problem, b"coalesced"), (problem, b"coalesced"),
    ]  # fmt: skip
    assert len(house.jobs.started) == 1


async def test_admission_is_asked_of_who_leads_alone(house):
    def full(now):
        raise Unavailable("later", code="overloaded")

    refused = Call(house, admit=full)
    assert refused.told.code == "overloaded" and house.is_empty()
    leader, follower, hasty = Call(house), Call(house, admit=full), Call(house)
    house.jobs.answer(1, problem=Problem(500, "model-failed", "x"))
    assert leader.told.problem.status == 500
    assert follower.told.code == "overloaded", "now it would have to be run"
    assert hasty.told is None
    house.jobs.answer(2)
    assert hasty.how == b""
    assert Call(house, admit=full).how == b"hit", "what is kept needs no room"


async def test_no_more_wait_than_may():
    house = House(most=3)
    calls = [Call(house) for _ in range(4)]
    assert isinstance(calls[3].told, Refusal) and calls[3].told.code == "queue-full"
    house.jobs.answer(1)
    assert [call.how for call in calls] == [b"", b"coalesced", b"coalesced", b""]


# -- with a shared cache ---------------------------------------------------------------------------


class Shared:
    """In place of a guard over a cache: answers when the test says so."""

    def __init__(self):
        self.usable, self.kept, self.gets = True, {}, 0
        self.go = asyncio.Event()

    async def get(self, key):
        self.gets += 1
        await self.go.wait()
        return self.kept.get(key)

    async def put(self, key, value, ttl_s):
        self.kept[key] = value

    async def close(self):
        pass


async def turn():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_look_for_all_and_one_run_where_nothing_is_found():
    house = House(shared=Shared())
    calls = [Call(house) for _ in range(5)]
    await turn()
    assert (house.reuse._shared.gets, len(house.jobs.started)) == (1, 0)
    house.reuse._shared.go.set()
    await turn()
    assert len(house.jobs.started) == 1
    house.jobs.answer(1)
    await turn()
    assert [call.how for call in calls] == [b"", *[b"coalesced"] * 4]
    assert len(house.reuse._shared.kept) == 1
    await house.reuse.close()


async def test_found_for_all_who_wait():
    shared = Shared()
    shared.go.set()
    one, other = House(shared=shared), House(shared=shared)
    Call(one)
    await turn()
    one.jobs.answer(1, b"7")
    await turn()
    shared.go.clear()
    calls = [Call(other) for _ in range(3)]
    gone = Call(other)
    other.reuse.cancel(gone.number)
    shared.go.set()
    await turn()
    assert [call.result for call in calls] == [(b"7", b"hit")] * 3
    assert gone.told is None and other.jobs.started == {}
    assert (other.count("hit_shared"), other.count("miss")) == (3, 0)
    assert Call(other).how == b"hit" and other.count("hit_memory") == 1
    await other.reuse.close()


async def test_a_look_is_no_reason_to_miss_a_deadline():
    house = House(shared=Shared())
    hasty = Call(house, seconds=0.02)
    await asyncio.sleep(0.05)
    assert isinstance(hasty.told, DeadlineExceeded) and house.is_empty()
    house.reuse._shared.go.set()
    await turn()
    assert house.jobs.started == {}
    await house.reuse.close()


async def test_a_cache_that_is_down_is_not_asked():
    house = House(shared=Shared())
    house.reuse._shared.usable = False
    Call(house)
    assert len(house.jobs.started) == 1
    await house.reuse.close()


async def test_what_is_too_large_to_be_shared_is_kept_here():
    house = House(shared=Shared())
    house.reuse._shared.go.set()
    house.reuse._front._max_bytes = 1 << 28
    Call(house)
    await turn()
    house.jobs.answer(1, b"z" * 2_000_000)
    await turn()
    assert house.reuse._shared.kept == {}
    assert Call(house).how == b"hit"
    await house.reuse.close()


async def test_versions_side_by_side_share_nothing_whatever_they_call_themselves(house):
    other = ModelView("m", 1)
    other.hear(news("w1", "1"), time.monotonic())
    Call(house), Call(house, view=other)
    assert house.jobs.workloads == ["m", "m@1"]
    house.jobs.answer(1, b"7")
    house.jobs.answer(2, b"8", by="m@1")
    assert Call(house).result == (b"7", b"hit")
    assert Call(house, view=other).result == (b"8", b"hit")


async def test_what_was_moved_to_another_version_is_kept_for_none(house):
    other = ModelView("m", 1)
    other.hear(news("w1", "1"), time.monotonic())
    one = Call(house, view=other)
    house.jobs.answer(1, b"7", by="m")
    assert one.result == (b"7", b"")
    assert Call(house, view=other).told is None


# -- in the gateway --------------------------------------------------------------------------------


def app(house, **settings):
    snapshot = Snapshot("g", ["m"])
    snapshot.hear(news("w0", "1"))
    made = App(GatewaySettings(**settings), snapshot, house.jobs, house.metrics)
    made.reuse = house.reuse
    return made


def predict(app, **more):
    request = Request(**more)
    app.predict(request, app.snapshot.models["m"])
    return request


async def test_answers_are_marked_and_counted_apart(house):
    made = app(house)
    one, two = predict(made), predict(made)
    house.jobs.answer(1, b"7")
    three = predict(made)
    assert [r.json["result"] for r in (one, two, three)] == [7, 7, 7]
    assert [r.json.get("reuse") for r in (one, two, three)] == [None, "coalesced", "hit"]
    assert b"Headrace-Reuse" not in one.head
    assert b"\r\nHeadrace-Reuse: coalesced\r\n" in two.head
    assert b"\r\nHeadrace-Reuse: hit\r\n" in three.head
    for reused in (two, three):
        times = reused.json["timings"]
        assert times["executed_ms"] == times["gathered_ms"] == 0
        assert round(sum(list(times.values())[:-1]), 3) == times["total_ms"]
    stages = made.stages("m")
    stages.fold()
    assert stages.answered == 3, "they are answers all the same"
    assert sum(house.metrics.stage.of("m", "executed").counts) == 1
    assert sum(house.metrics.call.of("m").counts) == 1


async def test_a_shared_problem_is_marked(house):
    made = app(house)
    one, two = predict(made), predict(made)
    house.jobs.answer(1, problem=Problem(422, "face-too-small", "x"))
    assert (one.status, two.status) == (422, 422)
    assert b"Headrace-Reuse" not in one.head
    assert b"\r\nHeadrace-Reuse: coalesced\r\n" in two.head


async def test_models_that_do_not_reuse_are_as_ever(house):
    made = app(house)
    house.reuse.ttl_s = {"another": 1.0}
    for reuse in (house.reuse, None):
        made.reuse = reuse
        predict(made), predict(made)
    assert len(house.jobs.started) == 4
    for number in range(1, 5):
        house.jobs.answer(number)
    assert house.metrics.reuse.values == {}


async def test_a_hit_needs_no_room_and_no_ready_worker_is_no_hit(house, monkeypatch):
    made = app(house)
    predict(made)
    house.jobs.answer(1)
    house.jobs.by_workload["m"] = GatewaySettings().max_outstanding
    assert predict(made).status == 200
    assert predict(made, body=b'{"n":2}').json["code"] == "queue-full"
    house.jobs.by_workload["m"] = 0
    monkeypatch.setattr("headrace.gateway.snapshot.RECOVERY_S", 0.0)
    made.snapshot.hear(news("w0", "1", ready=False))
    assert predict(made).json["code"] == "model-not-ready"


async def test_a_model_that_nobody_has_described_is_refused_before_it_is_read(house):
    made = app(house)
    made.snapshot.models["m"] = made.snapshot._add("m")
    assert predict(made, body=b"not even JSON").json["code"] == "model-not-ready"


async def test_the_client_that_leaves(house):
    made = app(house)
    one, two = predict(made), predict(made)
    one.on_gone()
    house.jobs.answer(1)
    assert one.status is None and two.status == 200


async def test_tenants_share_nothing(house):
    """Neither what is kept nor what is under way; and who does not say who it is gets nothing."""
    made = app(house, tenant_header="X-Tenant")
    ones, others = predict(made, x_tenant=b"one"), predict(made, x_tenant=b"other")
    assert len(house.jobs.started) == 2
    house.jobs.answer(1, b"11")
    assert (ones.json["result"], others.status) == (11, None)
    assert predict(made, x_tenant=b"one").json["reuse"] == "hit"
    assert predict(made, x_tenant=b"third").status is None
    house.jobs.answer(2, b"22")
    assert others.json["result"] == 22
    assert predict(made).json["code"] == "tenant-invalid"


async def test_cache_control_is_heard(house):
    made = app(house)
    predict(made)
    house.jobs.answer(1)
    predict(made, cache_control=b"no-cache")
    assert len(house.jobs.started) == 2
    assert predict(made).json["reuse"] == "hit"
