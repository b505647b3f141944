"""Workers come and go under load: who has to go finishes what it has, and no call is lost (F17)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from square import right, square

from headrace.orchestrator.local import LocalOrchestrator
from headrace.testing.house import TestHouse, until
from headrace.testing.load import OpenLoad, quantile

MODELS = square(0.03)
TOML = """
    [models.square]
    class = "models:Square"
    workers = 3
"""
SCALE_INS = 50
#: Asks for three workers, and then holds still until it is killed.
SCALER = """
import asyncio, sys, time
from headrace.orchestrator.local import LocalOrchestrator

async def scale():
    house = LocalOrchestrator(sys.argv[1])
    await house.scale("square", 3, "the forecast says so")
    await house.close()

asyncio.run(scale())
print("done", flush=True)
time.sleep(600)
"""


def url_of(house: TestHouse) -> str:
    [socket] = Path(tempfile.gettempdir()).glob(f"headrace-{house.name}-*/scale")
    return f"local://{socket}"


async def ready(house: TestHouse) -> int:
    """Workers that a gateway knows to be fit."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        return sum(worker["ready"] for worker in (await house.status())["square"]["workers"])
    return 0


async def all_ready(house: TestHouse, count: int) -> None:
    end = time.monotonic() + 30
    while await ready(house) != count:
        assert time.monotonic() < end, f"not {count} workers ready\n{house.tail()}"
        await asyncio.sleep(0.02)


async def test_no_call_is_lost_to_flapping(tmp_path: Path) -> None:
    """3 to 1 and back, again and again: some are told to go while they work, others while they
    start."""
    dice = random.Random(1)
    async with TestHouse(MODELS, TOML, tmp_path) as house:
        orchestrator = LocalOrchestrator(url_of(house), timeout_s=20.0)
        await all_ready(house, 3)
        async with OpenLoad(
            house.port, "square", itertools.count(), right=right, connections=80, per_second=80
        ) as calls:
            for change in range(SCALE_INS):
                await orchestrator.scale("square", 1, f"flap {change}")
                await asyncio.sleep(dice.uniform(0.0, 0.15))
                await orchestrator.scale("square", 3, f"flap {change}")
                if change % 2:
                    await asyncio.sleep(dice.uniform(0.0, 0.4))
                else:
                    await all_ready(house, 3)
            calls.stop()
        calls.ledger.all_right()
        assert calls.ledger.sent > 300
        assert quantile(calls.ledger.took_s, 0.5) < 2.0
        drained = [entry for entry in house.logged("left") if entry["role"] == "worker"]
        assert len(drained) >= SCALE_INS, "they left by themselves"
        # Those that were told to go have gone, and nobody started them again.
        await until(lambda: len(house.pids("worker")) == 3, 30.0, "three workers are left")
        assert house.logged("role ended") == []
        await orchestrator.close()


async def test_counts_outlive_who_asked(tmp_path: Path) -> None:
    """kill -9 of an autoscaler: the workers that it asked for work on."""
    async with TestHouse(MODELS, TOML.replace("workers = 3", "workers = 1"), tmp_path) as house:
        with subprocess.Popen(
            [sys.executable, "-c", SCALER, url_of(house)], stdout=subprocess.PIPE
        ) as scaler:
            assert scaler.stdout is not None
            assert await asyncio.to_thread(scaler.stdout.readline) == b"done\n"
            await all_ready(house, 3)
            workers = house.pids("worker")
            scaler.kill()
        async with OpenLoad(
            house.port, "square", range(100), right=right, connections=20, per_second=100
        ) as calls:
            pass
        calls.ledger.all_right(100)
        assert house.pids("worker") == workers
