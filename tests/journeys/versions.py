"""A model whose versions come and go under load, for journeys: what it is, who calls it, and what
its registry and deploy's database say."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

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
#: Its own table; what deploy does with it is each journey's.
TINY = """
    [models.tiny]
    class = "models:Tiny"
    files = "ours"
    workers = 2
"""
BATCH_S = 0.01


def marks(most: int) -> dict[str, int]:
    """What the settings' own files and the versions up to `most` call themselves in answers."""
    return {"ours": 0} | {str(number): number for number in range(1, most + 1)}


class Told(Ledger):
    """Who answered what when: the house is not believed."""

    def __init__(self, marks: dict[str, int]) -> None:
        """`marks`: what each version calls itself in its answers."""
        super().__init__()
        self.marks = marks
        self.answers: list[tuple[float, str, float]] = []  # when, by which version, how long

    def enter(self, given: Any, answer: Answer, took_s: float, right: Callable[..., bool]) -> None:
        super().enter(given, answer, took_s, right)
        if answer.status == 200:
            version, result = answer.json["version"], answer.json["result"]
            if result["of"][1] != self.marks[version]:
                self.wrong.append((given, answer.json))
            self.answers.append((time.monotonic(), version, took_s))

    def p99(self, since: float, to: float) -> float:
        """In seconds, as it is in most of the seconds between: the median of theirs."""
        seconds: dict[int, list[float]] = {}
        for at, _, took_s in self.between(since, to):
            seconds.setdefault(int(at - since), []).append(took_s)
        return median(quantile(each, 0.99) for each in seconds.values())

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

    async def close(self) -> None:
        await self.database.close()
        await self.desk.registry.close()

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
async def calls(house: TestHouse, marks: dict[str, int], per_second: float) -> AsyncIterator[Told]:
    """At a steady rate, as long as this lasts."""
    load = OpenLoad(
        house.port,
        "tiny",
        itertools.count(),
        right=lambda given, result: result["of"][0] == given,
        connections=80,
        per_second=per_second,
        deadline_ms=15_000,
    )
    told = load.ledger = Told(marks)
    async with load:
        yield told
        load.stop()
