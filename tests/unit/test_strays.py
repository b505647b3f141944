"""Jobs of a version that nobody runs, or whose process they end: another one gets them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from headrace.announce import Announcement
from headrace.broker.memory import MemoryBroker
from headrace.clerk.follow import Follow
from headrace.clerk.strays import Strays as ClerkStrays
from headrace.deployments import WHOLE, Route, Share, workload_of
from headrace.dispatch import Dispatch
from headrace.errors import Problem
from headrace.gateway import strays
from headrace.gateway.snapshot import Snapshot
from headrace.gateway.strays import Strays
from headrace.jobs import Form, Outcome, Returned, parcel_bytes, read_parcel, stored_job
from headrace.objects.memory import MemoryObjects
from headrace.records import Priority, new_job_id, queue_name
from headrace.signature import Card

ANY = {"type": "integer"}

JOB, OTHER = new_job_id(5_000), new_job_id(5_000)


class Recorder(MemoryBroker):
    """Remembers what was published where."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.published: list[tuple[str, int]] = []

    def publish(self, model: str, job: bytes, refused: Any) -> None:
        self.published += [(model, each.id) for each in read_parcel(job)]


class Bench:
    def __init__(self, name: str) -> None:
        self.broker = Recorder(f"memory://{name}")
        self.dispatch = Dispatch(self.broker, MemoryObjects(f"memory://{name}"), 1_000)
        self.snapshot = Snapshot("here", ["wine"])
        self.moved: list[tuple[str, int]] = []
        self.strays = Strays(self.snapshot, self.dispatch, lambda *said: self.moved.append(said))
        self.dispatch.instead = self.strays.poisoned
        self.ended: list[Any] = []

    def worker(self, version: int, ready: bool = True) -> None:
        card = Card("wine", str(version), "", ANY, ANY, 1)
        self.snapshot.hear(Announcement(
            f"w-{version}", "wine", ready, "", card, 1, int(ready), 0, 0, 0, True, 1.0, 1.0, 1,
            version=version,
        ))  # fmt: skip

    def call(self, workload: str) -> int:
        return self.dispatch.start(
            workload,
            "r-1",
            b"x",
            deadline=time.time() + 9,
            form=Form.JSON,
            on_outcome=lambda outcome, _: self.ended.append(outcome),
        )

    def answer(self, number: int, problem: Problem | None = None) -> None:
        outcome = Outcome(number, time.time(), 0.0, 1.0, b"1", problem)
        self.dispatch._finish(number, outcome, Returned("wine@3", "3", "w", time.time(), []))

    @property
    def published(self) -> list[tuple[str, int]]:
        self.dispatch._flush()
        return self.broker.published


@pytest.fixture
async def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(strays, "PATIENCE_S", 0.0)
    made = Bench(request.node.name)
    for version in (3, 4):
        made.worker(version)
    made.snapshot.hear(Route("wine", 1, (Share(3, 9_000), Share(4, 1_000))))
    return made


async def test_who_is_ready_keeps_its_jobs(bench: Bench) -> None:
    for workload in ("wine@3", "wine@4", "beer"):
        bench.call(workload)
    bench.strays.look()
    assert bench.published == [("wine@3", 1), ("wine@4", 2), ("beer", 3)]
    assert bench.moved == []


async def test_jobs_of_a_version_without_workers_go_to_the_one_that_stands_by(bench: Bench) -> None:
    first, second = bench.call("wine@4"), bench.call("wine@4")
    bench.worker(4, ready=False)
    bench.strays.look()
    assert bench.published == [
        ("wine@4", 1), ("wine@4", 2), ("wine@3", 1), ("wine@3", 2),
    ]  # fmt: skip
    assert bench.moved == [("wine@4", 2)]
    assert bench.dispatch.by_workload == {"wine@4": 0, "wine@3": 2}
    bench.answer(second)
    bench.answer(first)
    bench.answer(first)
    assert [outcome.id for outcome in bench.ended] == [second, first]
    assert bench.dispatch.unknown == 1, "it ran there, too"
    assert bench.dispatch.by_workload == {"wine@4": 0, "wine@3": 0}


async def test_jobs_of_a_version_that_was_taken_out(bench: Bench) -> None:
    bench.call("wine@4")
    bench.snapshot.hear(Route("wine", 2, (Share(3, WHOLE),)))
    bench.strays.look()
    assert bench.published[-1] == ("wine@3", 1)


async def test_nobody_is_there_to_take_them(bench: Bench) -> None:
    bench.call("wine@4")
    for version in (3, 4):
        bench.worker(version, ready=False)
    bench.strays.look()
    assert bench.published == [("wine@4", 1)]
    bench.worker(3)
    bench.strays.look()
    assert bench.published[-1] == ("wine@3", 1)


async def test_patience(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "PATIENCE_S", 60.0)
    bench.call("wine@4")
    bench.worker(4, ready=False)
    bench.strays.look()
    bench.strays.look()
    assert bench.published == [("wine@4", 1)]


async def test_what_ends_every_process_of_a_new_version_is_tried_where_it_stood_before(
    bench: Bench,
) -> None:
    poison = Problem(422, "poison-input", "the model process ended each of 3 times")
    first, second = bench.call("wine@4"), bench.call("wine@3")
    bench.answer(first, poison)
    assert bench.ended == [] and bench.published[-1] == ("wine@3", first)
    bench.answer(second, poison)
    assert [outcome.problem for outcome in bench.ended] == [poison]
    bench.answer(first, poison)
    assert [outcome.id for outcome in bench.ended] == [second, first], "now it is the input"
    assert bench.moved == [("wine@4", 1)]


async def test_other_problems_are_the_callers(bench: Bench) -> None:
    bench.answer(bench.call("wine@4"), Problem(500, "model-failed", "it raised"))
    assert len(bench.ended) == 1


# -- the clerk's -----------------------------------------------------------------------------------


def test_a_clerk_knows_which_queues_are_left() -> None:
    follow = Follow()
    assert (follow.workload("wine", JOB), follow.workloads("wine")) == ("wine", ["wine"])
    follow.hear(Route("wine", 2, (Share(3, 0), Share(4, WHOLE))))
    assert follow.knows("wine") and follow.left() == []
    assert follow.workload("wine", JOB) == "wine@4"
    assert follow.workloads("wine") == ["wine@3", "wine@4"]
    follow.hear(Route("wine", 1, (Share(3, WHOLE),)))
    assert follow.workload("wine", JOB) == "wine@4", "that one was late"
    follow.hear(Route("wine", 3, (Share(4, WHOLE),)))
    assert follow.left() == ["wine@3"]
    follow.forget("wine@3")
    assert follow.left() == []


async def test_what_lies_in_a_left_queue_is_put_into_another(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.clerk.strays.PATIENCE_S", 0.0)
    broker, follow = MemoryBroker(f"memory://{request.node.name}"), Follow()
    await broker.open()
    for version in (3, 4):
        for priority in Priority:
            await broker.ensure(queue_name(workload_of("wine", version), priority))
    follow.hear(Route("wine", 1, (Share(3, WHOLE),)))
    follow.hear(Route("wine", 2, (Share(4, WHOLE),)))
    parcel = parcel_bytes([stored_job(JOB, time.time()), stored_job(OTHER, time.time())])
    broker.publish("wine@3+bulk", parcel, lambda refusal: pytest.fail(refusal.detail))
    looks = ClerkStrays(broker, follow)
    await looks.look()
    got: list[Any] = []
    intake = await broker.take("wine@4+bulk", got.append)
    intake.want(5)
    for _ in range(50):
        if got:
            break
        await looks.look()
        await asyncio.sleep(0.005)
    assert [job.stored for job in read_parcel(got[0].data)] == [JOB, OTHER]
    assert (await broker.depth("wine@3+bulk")).waiting == 0
    await looks.close()
    await intake.close()
    await broker.close()
