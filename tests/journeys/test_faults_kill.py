"""Workers and model processes die in mid-batch: nobody who called notices."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path

import pytest
from square import right, square

from headrace.testing.house import RolesApart, TestHouse, patience
from headrace.testing.load import Load

MODELS = square(0.02)
TOML = """
    [models.square]
    class = "models:Square"
    workers = {workers}
"""


async def test_1000_calls_20_kills(tmp_path: Path) -> None:
    """Kills come at times and to processes drawn by chance, while calls are open; each next one
    when the one before has been made good, so that all 20 hit a house that works."""
    dice = random.Random(2024)
    kills = {"worker": 0, "model": 0}
    numbers = iter(range(10**9))
    async with TestHouse(MODELS, TOML.format(workers=2), tmp_path) as house:
        async with Load(house.port, "square", numbers, right=right, connections=40) as load:
            for _ in range(20):
                await asyncio.sleep(dice.uniform(0.05, 0.4))
                role = dice.choice(("worker", "model"))
                pids = house.pids(role)
                while not pids:  # all of them are being started again
                    await asyncio.sleep(0.02)
                    pids = house.pids(role)
                assert load.ledger.sent > load.ledger.done, "no call was open"
                await house.kill(dice.choice(pids))
                kills[role] += 1
            await load.until(1000)
            load.stop()
        assert kills["worker"] >= 5 and kills["model"] >= 5, kills
        assert load.ledger.ok >= 1000
        load.ledger.all_right()
        assert await house.total("headrace_worker_redeliveries_total") > 0
        assert len(house.logged("role ended")) == kills["worker"]
        assert len(house.logged("model process gone")) > 0


STAGES = ("worker.taken", "worker.executing", "worker.replied", "child.executing")


@pytest.mark.parametrize("stage", STAGES)
async def test_killed_at_each_stage(stage: str, tmp_path: Path) -> None:
    """One worker dies at the third passing of the stage; another has its jobs within 5 s."""
    async with RolesApart(MODELS, TOML.format(workers=1), tmp_path) as house:
        house.gateway()
        doomed = house.worker("square", failpoints=f"{stage}=kill@3")
        await house.workers_ready("square", 1)
        [first] = house.pids("model")
        house.worker("square")
        await house.workers_ready("square", 2)
        async with Load(house.port, "square", range(200), right=right, connections=40) as load:
            await load.until(200)
        load.ledger.all_right(200)
        assert first not in house.pids("model")
        if stage == "child.executing":
            assert doomed.poll() is None
            assert house.logged("model process gone", "SIGKILL")
        else:
            assert doomed.wait(5) == -signal.SIGKILL
            assert await house.total("headrace_worker_redeliveries_total") > 0
        if stage == "worker.replied":  # answered, then run and answered once more
            assert await house.total("headrace_replies_unknown_total") > 0
        assert max(load.ledger.took_s) < 5.0 * patience(), max(load.ledger.took_s)


async def test_a_killed_workers_job_is_answered_within_5_s(tmp_path: Path) -> None:
    """Each call is taken by a worker that dies of it."""
    async with RolesApart(MODELS, TOML.format(workers=1), tmp_path) as house:
        house.gateway()
        took_s = []
        for number in range(2):
            doomed = house.worker("square", failpoints="worker.taken=kill@1")
            await house.workers_ready("square", 1)
            call = asyncio.create_task(house.call("square", number))
            assert await asyncio.to_thread(doomed.wait, 5) == -signal.SIGKILL
            died = time.monotonic()
            heir = house.worker("square")
            answer = await call
            took_s.append(time.monotonic() - died)
            assert (answer.status, answer.json["result"]) == (200, number * number + 1)
            heir.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(heir.wait, 10) == 0
        assert max(took_s) <= 5.0 * patience(), took_s
