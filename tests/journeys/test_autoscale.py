"""Workers follow the traffic, and really start and stop; a hand is obeyed; a dead autoscaler is not
missed. A minute of the policy lasts a second (see `headrace.testing.paced`)."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from desk import Desk
from square import right, square

from headrace.settings import load
from headrace.store.engine import Database
from headrace.store.scaling import Scaling
from headrace.testing.house import TestHouse, until
from headrace.testing.load import Load, OpenLoad, post

MODELS = square(0.04, max_size=1)
#: 40 ms are 2.4 s of the policy's clock; 25 calls a second are 25 of its minute.
TOML = """
    [autoscale]
    mode = "shadow"

    [models.square]
    class = "models:Square"

    [models.square.scale]
    least = 1
    most = 5
    cycle_min = 2
    node = {workers = 1, service_s = 2.4, start_s = 120}
    target = {slo_s = 60, service_p95_s = 3}
"""
SPEED = 60
SOME_S = 40.0  # for what takes some seconds on a quiet machine


class Paced:
    """A house, and its autoscaler on the fast clock, which acts; the house's own only watches."""

    def __init__(self, house: TestHouse) -> None:
        self.house = house
        self.since = time.time()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        [gateway] = self.house.pids("gateway")
        told = Path(f"/proc/{gateway}/environ").read_bytes().decode().split("\0")
        given = dict(each.split("=", 1) for each in told if each.startswith("HEADRACE_"))
        command = [sys.executable, "-m", "headrace.testing.paced", str(self.house.path)]
        with self.house.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, str(SPEED), str(self.since), str(self.since)],
                env=os.environ | given | {"HEADRACE_AUTOSCALE__MODE": "act"},
                cwd=self.house.folder,
                stdout=log,
                stderr=log,
            )

    def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(20)

    def now(self) -> float:
        return self.since + (time.time() - self.since) * SPEED

    async def workers(self, fit: set[int], what: str) -> None:
        """Until so many are there, no more and no less, those that have to go being gone."""
        await until(lambda: len(self.house.pids("worker")) in fit, SOME_S, what)


@contextlib.asynccontextmanager
async def scaling(house: TestHouse) -> AsyncIterator[Scaling]:
    database = Database(load(house.path, environment=house.environment).database_url())
    try:
        yield Scaling(database)
    finally:
        await database.close()


async def test_workers_follow_traffic_and_hands_and_outlive_their_autoscaler(tmp_path):
    async with TestHouse(MODELS, TOML, tmp_path) as house, scaling(house) as books:
        paced = Paced(house)
        paced.start()
        try:
            await the_day_of(house, paced, books)
        finally:
            if paced.process and paced.process.poll() is None:
                assert paced.end(signal.SIGTERM) == 0
        assert house.logged("watching"), "the house has an autoscaler of its own"


async def test_nobody_works_where_nobody_calls_and_who_calls_is_answered(tmp_path):
    """Scaled to zero and back, twice: a stored job waits for the worker that comes for it."""
    at_night = TOML.replace("least = 1", "least = 0")
    async with TestHouse(MODELS, at_night, tmp_path) as house, scaling(house) as books:
        paced, desk = Paced(house), Desk(house.port)
        paced.start()
        try:
            for turn in range(2):
                await paced.workers({0}, "nobody is left")
                began = time.monotonic()
                view = await desk.until(await desk.submit("square", turn), wait_s=SOME_S)
                assert view["state"] == "succeeded", view
                print(f"from nobody to an answer: {time.monotonic() - began:.1f} s")
                await paced.workers({1, 2}, "somebody came")
                await house_has_ready(house, 1)
                answer = await post(house.port, "/models/square/predict", 7)
                assert answer.status == 200 and answer.json["result"] == 50
            made = [each for each in await books.decisions("square", 500) if each.applied == "yes"]
            assert {0, 1} <= {each.count for each in made}
        finally:
            assert paced.end(signal.SIGTERM) == 0


async def the_day_of(house: TestHouse, paced: Paced, books: Scaling) -> None:
    load_ = OpenLoad(
        house.port, "square", itertools.count(), right=right, connections=200, per_second=55
    )
    async with load_:
        # 55 calls a second are three workers' work, with little to spare.
        await paced.workers({3, 4, 5}, "workers are added")
        await house_has_ready(house, 3)
        made = [each for each in await books.decisions("square", 500) if each.applied == "yes"]
        raised = next(each for each in made if each.count > each.asked)
        assert "calls/s" in raised.reason and raised.inputs["rate"] > 0

        at = paced.now()
        hand = {"author": "ann", "reason": "a test", "at": at, "expires": at + 86_400}
        await books.set_override("square", "set", 5, **hand)
        await paced.workers({5}, "five, as ann wants")
        await house_has_ready(house, 5)

        assert paced.end(signal.SIGKILL) == -signal.SIGKILL
        workers = house.pids("worker")
        done = load_.ledger.done
        await load_.until(done + 50, SOME_S)
        assert house.pids("worker") == workers, "who was there goes on"

        load_.stop()
    load_.ledger.all_right()
    assert await books.starts("square"), "start-up times were measured"

    last = (await books.decisions("square", 1))[0].minute
    await books.set_override("square", "set", 1, **(hand | {"at": at + 1}))
    paced.start()
    await paced.workers({1}, "one, as ann wants now, from a new autoscaler")
    assert (await books.decisions("square", 1))[0].minute > last
    async with Load(house.port, "square", range(20), right=right, connections=4) as calm:
        pass
    calm.ledger.all_right(20)


async def house_has_ready(house: TestHouse, count: int) -> None:
    began = time.monotonic()
    while time.monotonic() - began < SOME_S:
        if sum(worker["ready"] for worker in (await house.status())["square"]["workers"]) >= count:
            return
    raise AssertionError(f"{count} workers are not ready\n{house.tail()}")
