"""Roles apart: two gateways, three workers, one broker; each leaves without being missed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from square import right

from headrace.house import free_port
from headrace.testing.house import RolesApart, patience
from headrace.testing.load import Load

MODELS = """
    import time
    from pathlib import Path
    import headrace

    def note(what: str) -> None:
        with (Path(__file__).parent / "batches.log").open("a") as log:
            log.write(what)

    class Square(headrace.Model):
        batching = headrace.Batching(max_size=8)

        def golden(self):
            return 3, 10

        def predict(self, items: list[int]) -> list[int]:
            note("b")
            time.sleep(0.02)
            note("e")
            return [n * n + 1 for n in items]
"""
TOML = """
    [models.square]
    class = "models:Square"
"""


@contextlib.asynccontextmanager
async def two_by_three(folder: Path) -> AsyncIterator[tuple[RolesApart, int]]:
    """Two gateways (the second on the port given along) and three workers, ready."""
    async with RolesApart(MODELS, TOML, folder) as house:
        other = free_port()
        house.gateway()
        house.gateway(other)
        for _ in range(3):
            house.worker("square")
        await house.workers_ready("square", 3)
        await house.ready(port=other)
        yield house, other


def load(port: int, start: int) -> Load:
    return Load(port, "square", itertools.count(start), right=right, connections=20)


async def answers(house: RolesApart, port: int) -> float:
    lines = (await house.get("/metrics", port)).body.decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("headrace_answers_total") and 'status="200"' in line
    )


async def test_each_answer_through_its_own_gateway(tmp_path: Path) -> None:
    """Both count ids from 1: an answer that went astray would be somebody else's."""
    async with two_by_three(tmp_path) as (house, other):
        async with load(house.port, 0) as one, load(other, 10**6) as two:
            await one.until(300)
            await two.until(300)
            one.stop()
            two.stop()
        one.ledger.all_right()
        two.ledger.all_right()
        assert await answers(house, house.port) == one.ledger.ok
        assert await answers(house, other) == two.ledger.ok
        assert await house.total("headrace_replies_unknown_total") == 0
        # The others' calls are known here: admission counts them.
        assert len((await house.status())["square"]["workers"]) == 3

        # Its own death concerns nobody but its callers.
        doomed = house.pids("gateway")[0]
        async with load(other, 0) as two:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                call = asyncio.create_task(house.call("square", 1))
                await two.until(20)
                await house.kill(doomed)
                await call
            assert await house.health() is None
            await two.until(300)
            two.stop()
        two.ledger.all_right()


async def test_a_gateway_drains(tmp_path: Path) -> None:
    """SIGTERM under load: each call that was sent on an open connection is answered; then the
    gateway is gone, with 0, and the other one serves on."""
    async with two_by_three(tmp_path) as (house, other):
        leaving = house.started[1]
        async with load(other, 0) as stays, load(house.port, 0) as goes:
            await goes.until(100)
            leaving.send_signal(signal.SIGTERM)
            goes.stop()  # no further calls; those open must be answered
            assert await asyncio.to_thread(leaving.wait, 10) == 0
            await stays.until(stays.ledger.done + 100)
            stays.stop()
        goes.ledger.all_right()
        stays.ledger.all_right()
        assert house.logged("draining") and house.logged("left")


async def test_a_gateway_answers_what_comes_on_open_connections_while_it_drains(
    tmp_path: Path,
) -> None:
    """Callers do not know of the SIGTERM and call on: whatever they sent before the connection was
    closed, said by `Connection: close`, is answered; no connection is just cut."""
    async with two_by_three(tmp_path) as (house, _):
        leaving = house.started[1]
        cut = 0
        for _ in range(3):
            async with load(house.port, 0) as goes:
                await goes.until(100)
                leaving.send_signal(signal.SIGTERM)
                await asyncio.to_thread(leaving.wait, 10)
                goes.stop()
            assert not goes.ledger.wrong and not goes.ledger.refused
            # After it, there is nobody to connect to: that much is no surprise to a caller.
            cut += sum("ConnectionRefused" not in why for _, why in goes.ledger.failed)
            leaving = house.gateway()
            await house.ready()
        assert cut == 0


async def test_workers_leave_under_load(tmp_path: Path) -> None:
    """SIGTERM of two of three workers, one after the other: each stops taking within 100 ms,
    finishes, replies and leaves with 0; no caller sees it."""
    async with two_by_three(tmp_path) as (house, other):
        async with load(house.port, 0) as one, load(other, 0) as two:
            await one.until(100)
            for number, worker in enumerate(house.started[3:5], 1):
                told = time.time()
                began = time.monotonic()
                worker.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(worker.wait, 10) == 0
                assert time.monotonic() - began < 3.0 * patience()
                draining = house.logged("draining")
                assert len(draining) == number
                assert seconds_of(draining[-1]["timestamp"]) - told < 0.1 * patience()
            await one.until(one.ledger.done + 200)
            one.stop()
            two.stop()
        one.ledger.all_right()
        two.ledger.all_right()
        # Given back, not abandoned: nothing waited for the broker's patience (3 s).
        assert max(one.ledger.took_s + two.ledger.took_s) < 2.5 * patience()
        await house.workers_ready("square", 1)
        batches = (tmp_path / "batches.log").read_text()
        assert batches.count("b") == batches.count("e") > 100, "a batch was cut short"


def seconds_of(timestamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(timestamp).timestamp()
