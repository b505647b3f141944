"""Versions come and go under load: promoted, broken in every way, rolled back. No call is lost
(F16), every answer names who gave it, and a bad version never has more than its share."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from desk import Desk

from headrace.deployments import Rollout
from headrace.registry import choose
from headrace.registry.inspect import inspect
from headrace.settings import load
from headrace.store.deploying import Deploying
from headrace.store.engine import Database
from headrace.testing.house import TestHouse, patience
from headrace.testing.load import Answer, Ledger, OpenLoad, quantile

MODELS = """
    import json, os, time
    from typing import Any
    import headrace

    class Tiny(headrace.Model):
        version = "ours"
        batching = headrace.Batching(max_size=16)

        def load(self, files):
            self.is_ = json.loads((files / "is.json").read_text())
            if self.is_.get("ends") == "loading":
                raise RuntimeError("these weights are for another machine")

        def predict(self, items: list[int]) -> list[dict[str, Any]]:
            if self.is_.get("ends") == "predicting":
                os._exit(3)
            time.sleep(self.is_["s"])
            return [self.one(n) for n in items]

        def one(self, n):
            if n % 10 < self.is_.get("raises", 0):
                return ValueError(n)
            return {"of": [n, self.is_["mark"]], "kind": n % 7}
"""
TOML = """
    [models.tiny]
    class = "models:Tiny"
    files = "ours"
    workers = 2

    [models.tiny.deploy]
    steps = [10, 50]
    hold_s = 2
    wait_s = 10
    ready_s = 25
    keep_s = 1

    [models.tiny.deploy.gates]
    least_calls = 40
"""
BATCH_S = 0.01
PER_SECOND = 300.0
CALLS = 20_000
#: What is wrong with a version, in the order of their coming, from 3 on.
BAD: dict[str, dict[str, Any]] = {
    "loading": {"ends": "loading"},
    "predicting": {"ends": "predicting"},
    "slow": {"s": 5 * BATCH_S},
    "tampered": {},
}
#: What a version calls itself in its answers: the settings' own files first.
MARKS = {"ours": 0} | {str(number): number for number in range(1, 9)}


class Told(Ledger):
    """Who answered what when: the house is not believed."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[float, str, float]] = []  # when, by which version, how long

    def enter(self, given: Any, answer: Answer, took_s: float, right: Callable[..., bool]) -> None:
        super().enter(given, answer, took_s, right)
        if answer.status == 200:
            version, result = answer.json["version"], answer.json["result"]
            if result["of"][1] != MARKS[version]:
                self.wrong.append((given, answer.json))
            self.answers.append((time.monotonic(), version, took_s))

    def first(self, version: str) -> float:
        return next(at for at, by, _ in self.answers if by == version)

    def between(self, since: float, to: float) -> list[tuple[float, str, float]]:
        return [each for each in self.answers if since <= each[0] < to]


class Scene:
    """A house, its registry and what deploy wrote of it."""

    def __init__(self, house: TestHouse, told: Told) -> None:
        self.house, self.told = house, told
        settings = load(house.path)
        self.desk = choose.desk(settings)
        self.state = settings.state()
        url = f"sqlite:///{self.state}/{house.name}.db"
        self.database = Database(url, connections=1, timeout_s=20.0)
        self.deploying = Deploying(self.database)

    async def register(self, **what: Any) -> int:
        """A version that is so; its number is its mark, unless it says another."""
        known = len(await self.desk.registry.versions("tiny"))
        folder = self.house.folder / f"made-{known + 1}"
        write(folder, {"mark": known + 1, "s": BATCH_S} | what)
        (folder / "manifest.json").write_text(
            json.dumps({"model": "tiny", "format": "safetensors", "tags": {"of": str(known + 1)}})
        )
        version = await self.desk.registry.register(inspect(folder, self.desk.rules))
        assert version.number == known + 1
        return version.number

    async def promote(self, number: int) -> float:
        await self.desk.registry.point("tiny", "production", number)
        return time.monotonic()

    async def ended(self, number: int, wait_s: float) -> tuple[Rollout, float]:
        """The rollout to that version, over; how long that took."""
        began = time.monotonic()
        last = None
        while time.monotonic() - began < wait_s * patience():
            for last in await self.deploying.rollouts("tiny", 10):
                if last.to_version == number and not last.is_open:
                    return last, time.monotonic() - began
            await asyncio.sleep(0.1)
        raise AssertionError(f"rollout to {number} not over: {last}\n{self.house.tail()}")

    async def names(self, number: int, wait_s: float = 10.0) -> None:
        """Until the alias names that version, as it does again after a rollback."""
        began = time.monotonic()
        while (await self.desk.registry.state())["tiny"]["production"] != number:
            assert time.monotonic() - began < wait_s * patience(), self.house.tail()
            await asyncio.sleep(0.05)

    async def at_step(self, number: int, wait_s: float = 30.0) -> None:
        """Until that version has a share of the calls."""
        began = time.monotonic()
        while time.monotonic() - began < wait_s * patience():
            route = await self.deploying.route("tiny")
            if route and any(s.version == number and s.of_whole for s in route.shares):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{number} gets no calls\n{self.house.tail()}")

    async def serves(self, number: int, wait_s: float = 30.0) -> float:
        """Until it has all calls, and nothing is open."""
        began = time.monotonic()
        route = None
        while time.monotonic() - began < wait_s * patience():
            route = await self.deploying.route("tiny")
            alone = route and [s.version for s in route.shares if s.of_whole] == [number]
            if alone and await self.deploying.open_rollout("tiny") is None:
                return time.monotonic() - began
            await asyncio.sleep(0.1)
        raise AssertionError(f"{number} does not serve: {route}\n{self.house.tail()}")


def write(folder: Path, what: dict[str, Any]) -> None:
    """Files as `Tiny` loads them, with weights that nobody reads."""
    folder.mkdir()
    (folder / "is.json").write_text(json.dumps(what))
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "w.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))


@asynccontextmanager
async def calls(house: TestHouse) -> AsyncIterator[Told]:
    """At a steady rate, as long as this lasts."""
    load = OpenLoad(
        house.port,
        "tiny",
        itertools.count(),
        right=lambda given, result: result["of"][0] == given,
        connections=80,
        per_second=PER_SECOND,
        deadline_ms=15_000,
    )
    told = load.ledger = Told()
    async with load:
        yield told
        load.stop()


async def zero_failed(on: Scene) -> None:
    """Good ones come through, bad ones do not, and nobody who calls is told of either."""
    told = on.told
    await asyncio.sleep(3)
    calm = time.monotonic()
    took = {}

    first = await on.register()
    at = await on.promote(first)
    await on.serves(first)
    took["first"] = told.first("1") - at

    good = await on.register()
    at = await on.promote(good)
    rollout, _ = await on.ended(good, 60)
    assert rollout.state == "done", rollout.why
    took["good"] = told.first("2") - at
    good_to = time.monotonic()

    bad: dict[str, tuple[Rollout, float, float, float]] = {}
    for name, what in BAD.items():
        number = await on.register(**what)
        if name == "tampered":
            of = on.state / "registry" / "tiny" / str(number) / "files" / "w.safetensors"
            of.chmod(0o644)
            of.write_bytes(of.read_bytes()[:-1] + b"x")
        at = await on.promote(number)
        rollout, seconds = await on.ended(number, 60)
        bad[name] = rollout, seconds, at, time.monotonic()
        assert rollout.state == "rolled-back", (name, rollout)
        await on.names(good)
    by_hand = await on.register()
    await on.promote(by_hand)
    await on.at_step(by_hand)
    await on.deploying.order("tiny", "rollback", author="ops", reason="a hunch", at=time.time())
    rollout, seconds = await on.ended(by_hand, 30)
    assert (rollout.state, seconds < 30 * patience()) == ("rolled-back", True), rollout
    await on.serves(good)

    while told.sent < CALLS:
        await asyncio.sleep(0.1)
    still = quantile([t for _, _, t in told.between(0, calm)], 0.99)
    during = quantile([t for _, _, t in told.between(calm, good_to)], 0.99)
    print(f"first answer of a promoted version after {took}")
    print(f"p99: {still * 1000:.0f} ms before, {during * 1000:.0f} ms while good ones came")
    for name, (rollout, seconds, since, to) in bad.items():
        by = Counter(version for _, version, _ in told.between(since, to))
        share = by[str(rollout.to_version)] / sum(by.values())
        print(f"{name}: back after {seconds:.1f} s, {share:.1%} of the calls; {rollout.why}")
        assert seconds < 30 * patience()
        assert share <= 0.1 * 1.5
    assert {version for _, version, _ in told.answers} == {"ours", "1", "2", "5", "7"}
    assert took["first"] < 10 * patience() and took["good"] < 10 * patience()
    assert during <= 1.5 * still + patience(), "on a machine that others use, too"


async def jobs(on: Scene, every_s: float = 0.25) -> None:
    """Stored ones, until it is cancelled: they go the way of the calls."""
    desk = Desk(on.house.port)
    try:
        for number in itertools.count():
            await desk.submit("tiny", number)
            await asyncio.sleep(every_s)
    except asyncio.CancelledError:
        views = await desk.all_ended(60 * patience())
        states = Counter(view["state"] for view in views.values())
        assert states == {"succeeded": len(desk.promised)}, states
        print(f"stored jobs: {Counter(view['version'] for view in views.values())}")


async def raising(on: Scene) -> None:
    """What a version refuses, nobody else can answer: its share of the callers bears it."""
    async with calls(on.house) as told:
        number = await on.register(raises=3)
        await on.promote(number)
        rollout, seconds = await on.ended(number, 60)
        assert rollout.state == "rolled-back" and rollout.why.startswith("errors"), rollout.why
        await on.serves(2)
    assert not told.failed and not told.wrong and seconds < 30 * patience()
    assert set(told.refused) == {"500 model-failed"}, told.refused
    assert sum(told.refused.values()) < told.sent * 0.1 * 0.3 * 2


@pytest.mark.timeout(400)
async def test_no_call_fails_whatever_is_rolled_out(tmp_path: Path) -> None:
    write(tmp_path / "ours", {"mark": 0, "s": BATCH_S})
    async with TestHouse(MODELS, TOML, tmp_path) as house:
        async with calls(house) as told:
            on = Scene(house, told)
            stored = asyncio.create_task(jobs(on))
            try:
                await zero_failed(on)
            finally:
                stored.cancel()
                await stored
        told.all_right()
        await raising(on)
        await on.database.close()
