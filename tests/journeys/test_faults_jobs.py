"""Jobs that survive everything: whatever is killed, stopped or wiped, what was promised is done,
once and rightly, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest
from desk import Desk
from square import square

from headrace.testing.house import RolesApart, TestHouse, alive, patience, until
from headrace.testing.load import post
from headrace.testing.services import Postgres

MODELS = f"""{square(0.05)}
    class Slow(headrace.Model):
        \"\"\"A second for what is below 0.\"\"\"
        batching = headrace.Batching(max_size=4)

        def golden(self):
            return 3, 10

        def predict(self, items: list[int]) -> list[int]:
            time.sleep(1.0 if min(items) < 0 else 0.02)
            return [n * n + 1 for n in items]
"""
TOML = """
    [jobs]
    max_attempts = 10
    [models.square]
    class = "models:Square"
    workers = 2
"""
SLOW = """
    [models.slow]
    class = "models:Slow"
    workers = {workers}
"""
REQUEUE_S = 5.0


async def opened(house: TestHouse | RolesApart, model: str) -> Desk:
    """A desk, when the store is open and the first job is through."""
    desk = Desk(house.port)
    await desk.until(await desk.submit(model, 1))
    return desk


def kill_now(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def test_a_dead_workers_job_is_anothers_within_5_s(tmp_path: Path) -> None:
    took = []
    async with TestHouse(MODELS, SLOW.format(workers=2), tmp_path) as house:
        desk = await opened(house, "slow")
        for number in range(3):
            job = await desk.submit("slow", -1 - number)
            await desk.until(job, "running")
            await asyncio.sleep(0.3)
            owner = next(
                pid for pid in house.pids("worker")
                if f"-{pid}-" in owner_of(house, job)
            )  # fmt: skip
            await house.kill(owner)
            killed = time.monotonic()
            while (await desk.view(job))["attempt"] < 2:
                await asyncio.sleep(0.02)
            took.append(time.monotonic() - killed)
            view = await desk.until(job)
            assert view["state"] == "succeeded" and view["tries"] == 1
            await house.ready()
        print("requeue after SIGKILL of the worker: " + ", ".join(f"{t:.2f} s" for t in took))
        assert max(took) < REQUEUE_S * patience()


def owner_of(house: TestHouse | RolesApart, job: str) -> str:
    path = house.folder / ".headrace" / f"{house.name}.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        [(worker,)] = connection.execute("SELECT worker FROM jobs WHERE id = ?", (job,)).fetchall()
    return str(worker)


async def test_a_stopped_worker_is_overtaken_and_refused(tmp_path: Path) -> None:
    async with TestHouse(MODELS, SLOW.format(workers=2), tmp_path) as house:
        desk = await opened(house, "slow")
        job = await desk.submit("slow", -5)
        await desk.until(job, "running")
        stopped = next(p for p in house.pids("worker") if f"-{p}-" in owner_of(house, job))
        os.kill(stopped, signal.SIGSTOP)
        began = time.monotonic()
        view = await desk.until(job)
        print(f"a stopped worker's job ended after {time.monotonic() - began:.2f} s")
        assert (view["state"], view["result"], view["attempt"]) == ("succeeded", 26, 2)
        assert f"-{stopped}-" not in owner_of(house, job)
        os.kill(stopped, signal.SIGCONT)
        await until(
            lambda: bool(house.logged("ending refused") or house.logged("lease lost")),
            10.0, "the late write is refused",
        )  # fmt: skip
        after = await desk.view(job)
        assert after == view, "an end is the end"


async def test_a_broker_that_is_killed_and_wiped_loses_nothing(tmp_path: Path) -> None:
    async with RolesApart(MODELS, TOML, tmp_path) as house:
        house.gateway()
        house.worker("square")
        house._start([*roles(), "clerk", str(house.path)])
        await house.workers_ready("square", 1)
        desk = await opened(house, "square")
        await desk.many("square", list(range(300)), 16)
        [broker] = house.pids("broker")
        await house.kill(broker)
        shutil.rmtree(tmp_path / "broker", ignore_errors=True)
        late = asyncio.create_task(desk.submit("square", 1000))
        await asyncio.sleep(0.5)
        assert late.done(), "what is committed is promised, broker or no broker"
        house.broker()
        began = time.monotonic()
        await desk.all_right()
        print(f"all ended {time.monotonic() - began:.1f} s after the broker was back, empty")
        await stop_clerks(house)


def roles() -> list[str]:
    return [sys.executable, "-m", "headrace.roles"]


async def stop_clerks(house: RolesApart) -> None:
    for pid in house.pids("clerk"):
        os.kill(pid, signal.SIGTERM)
        await until(lambda pid=pid: not alive(pid), 20.0, "clerk left")


async def test_the_whole_house_dies_and_is_started_again(tmp_path: Path) -> None:
    """In the same folder: what was promised before is done after."""
    first = TestHouse(MODELS, TOML, tmp_path)
    await first.start()
    try:
        desk = await opened(first, "square")
        await desk.many("square", list(range(200)), 16)
        kill_now(sorted(first.commands()))
    finally:
        first._end_all()
        assert first.process is not None
        first.process.wait()
    second = TestHouse(MODELS, TOML, tmp_path)
    second.name = first.name
    second.environment |= {"HEADRACE_HOUSE__NAME": first.name}
    async with second:
        again = Desk(second.port)
        again.promised = desk.promised
        began = time.monotonic()
        views = await again.all_right()
        ended_after = sum(view["attempt"] > 1 for view in views.values())
        print(f"{ended_after} jobs ran again; all ended {time.monotonic() - began:.1f} s later")


STAGES = ["worker.taken", "worker.claimed", "worker.executing", "worker.finishing",
          "worker.finished"]  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
async def test_a_worker_killed_at_each_stage(stage: str, tmp_path: Path) -> None:
    async with RolesApart(MODELS, TOML, tmp_path) as house:
        house.gateway()
        house._start([*roles(), "clerk", str(house.path)])
        doomed = house.worker("square", failpoints=f"{stage}=kill@2")
        await house.workers_ready("square", 1)
        desk = Desk(house.port)
        await desk.many("square", list(range(30)), 4)
        await until(lambda: doomed.poll() is not None, 15.0, "killed")
        house.worker("square")
        views = await desk.all_right(40)
        attempts = Counter(view["attempt"] for view in views.values())
        print(f"{stage}: attempts {dict(attempts)}")
        assert max(attempts) <= 4
        await stop_clerks(house)


@pytest.mark.parametrize("stage", ["gateway.submitting", "gateway.submitted", "gateway.published"])
async def test_a_gateway_killed_at_each_stage(stage: str, tmp_path: Path) -> None:
    """With one key the client comes to one job, whenever the gateway died; another one answers."""
    async with RolesApart(MODELS, TOML, tmp_path) as house:
        doomed = house.gateway(HEADRACE_FAILPOINTS=f"{stage}=kill@3")
        house._start([*roles(), "clerk", str(house.path)])
        house.worker("square")
        await house.workers_ready("square", 1)
        desk = await opened(house, "square")
        await desk.until(await desk.submit("square", 2))
        kept = asyncio.create_task(desk.submit("square", 7))
        await until(lambda: doomed.poll() is not None, 10.0, "the gateway killed")
        house.gateway()
        await kept
        views = await desk.all_right()
        assert len(views) == 3
        ran = await house.total("headrace_worker_batch_size_count")
        assert len(all_jobs(house)) == 3, "one job for one key"
        print(f"{stage}: {ran:g} batches")
        await stop_clerks(house)


def all_jobs(house: RolesApart) -> list[str]:
    path = house.folder / ".headrace" / f"{house.name}.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [job for (job,) in connection.execute("SELECT id FROM jobs")]


async def test_a_keyed_predict_whose_gateway_died(tmp_path: Path) -> None:
    """The client that comes back with its key gets the result of the first run."""
    async with TestHouse(MODELS, SLOW.format(workers=1), tmp_path) as house:
        await opened(house, "slow")
        key = {"idempotency_key": "k"}
        call = asyncio.create_task(post(house.port, "/models/slow/predict", -9, **key))
        await asyncio.sleep(0.4)
        [gateway] = house.pids("gateway")
        await house.kill(gateway)
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await call
        await house.ready()
        answer = await post(house.port, "/models/slow/predict", -9, **key)
        assert answer.status == 200 and answer.json["result"] == 82
        assert answer.headers["idempotent-replayed"] == "true"
        view = await Desk(house.port).view(answer.headers["headrace-job"])
        assert view["attempt"] == 1


async def test_a_drain_charges_nobody(tmp_path: Path) -> None:
    """A worker is stopped in order again and again, in the middle of a flood: what it had in hand
    goes to another, and no run is held against a job."""
    async with TestHouse(MODELS, TOML, tmp_path) as house:
        desk = await opened(house, "square")
        submitting = asyncio.create_task(desk.many("square", list(range(300)), 8))
        for _ in range(4):
            await asyncio.sleep(0.3)
            pids = house.pids("worker")
            os.kill(pids[0], signal.SIGTERM)
            await until(lambda pid=pids[0]: not alive(pid), 20.0, "left")
            await until(lambda: len(house.pids("worker")) == 2, 20.0, "another came")
        await submitting
        views = await desk.all_right()
        assert {view["tries"] for view in views.values()} == {0}
        assert not [view for view in views.values() if view.get("losses")]


async def test_a_clerk_that_dies_in_mid_round(tmp_path: Path) -> None:
    for stage in ("clerk.looked", "clerk.published"):
        folder = tmp_path / stage
        folder.mkdir()
        async with RolesApart(MODELS, TOML, folder) as house:
            house.gateway()
            house._start([*roles(), "clerk", str(house.path)])
            await until_known(house)
            desk = Desk(house.port)
            # Nobody takes them yet: they are due.
            waiting = asyncio.create_task(desk.many("square", list(range(20))))
            command = [*roles(), "clerk", str(house.path)]
            await waiting
            await stop_clerks(house)
            doomed = house._start(command, {"HEADRACE_FAILPOINTS": f"{stage}=kill@1"})
            await until(lambda p=doomed: p.poll() is not None, 15.0, "clerk killed")
            house._start(command)
            house.worker("square")
            await house.workers_ready("square", 1)
            await desk.all_right(40)
            await stop_clerks(house)


async def until_known(house: RolesApart) -> None:
    """A gateway takes jobs for a model of which it has heard once."""
    worker = house.worker("square")
    await house.workers_ready("square", 1)
    worker.send_signal(signal.SIGTERM)
    await until(lambda: worker.poll() is not None, 20.0, "worker left")


async def test_a_database_that_dies_under_a_house(tmp_path: Path) -> None:
    """PostgreSQL is killed and started again while jobs run: submissions are refused at once and
    taken again, what was promised is done, and plain calls never notice."""
    with Postgres() as postgres:
        toml = f'[database]\nurl = "{postgres.url}"\n' + textwrap.dedent(TOML)
        async with TestHouse(MODELS, toml, tmp_path) as house:
            desk = await opened(house, "square")
            submitting = asyncio.create_task(desk.many("square", list(range(300)), 4))
            for _ in range(2):
                await asyncio.sleep(0.5)
                await asyncio.to_thread(postgres.stop, True)
                refused_s = []
                for _ in range(10):
                    began = time.monotonic()
                    answer = await post(house.port, "/models/square/jobs", 1)
                    refused_s.append(time.monotonic() - began)
                    assert (answer.status, answer.code) == (503, "storage-unavailable")
                    call = await house.call("square", 5)
                    assert call.status == 200 and call.json["result"] == 26
                await asyncio.to_thread(postgres.start)
                print(f"refused in {max(refused_s) * 1e3:.0f} ms at most")
            await submitting
            began = time.monotonic()
            views = await desk.all_right()
            attempts = Counter(view["attempt"] for view in views.values())
            print(f"attempts {dict(attempts)}, all ended {time.monotonic() - began:.1f} s later")
            assert len(house.logged("a request failed")) == 0, "none was an error of ours"
