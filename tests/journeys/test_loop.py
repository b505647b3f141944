"""The whole loop as real processes: trained, promoted, served; the world changes; trained again,
and in production through a canary, without a hand on it. And one that was trained on wrong labels,
which stays out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headrace.retraining import Training
from headrace.settings import load
from headrace.store.deploying import Deploying
from headrace.store.engine import Database
from headrace.store.retraining import Trainings
from headrace.store.scaling import Scaling
from headrace.testing.house import TestHouse, patience
from headrace.testing.load import Answer, Connection, post

#: A model of one number, as safetensors: what a training takes is the house's, not the model's.
MODELS = """
    import json
    import struct
    from dataclasses import dataclass
    from pathlib import Path

    import headrace

    def write(folder: Path, middle: float) -> None:
        tensor = {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}
        head = json.dumps({"middle": tensor}).encode()
        head += b" " * (-len(head) % 8)
        data = struct.pack("<Q", len(head)) + head + struct.pack("<d", middle)
        (folder / "model.safetensors").write_bytes(data)

    @dataclass
    class Order:
        amount: float

    @dataclass
    class Answer:
        paid: str

    class Paid(headrace.Model):
        "Will an order be paid?"
        version = "0"
        batching = headrace.Batching(max_size=16)

        def load(self, files: Path) -> None:
            [self.middle] = struct.unpack("<d", (files / "model.safetensors").read_bytes()[-8:])

        def predict(self, orders: list[Order]) -> list[Answer]:
            return [Answer("yes" if each.amount > self.middle else "no") for each in orders]
"""
PIPELINE = """
import json
from pathlib import Path

from models import Order, Paid, write

from headrace.pipeline import Gates, Metric, Pipeline

HERE = Path(__file__).parent


def is_held_out(row: list[float]) -> bool:
    return round(row[0] * 1e6) % 2 == 1


class Payments(Pipeline):
    model = Paid
    gates = Gates(metrics=(Metric("accuracy", worse_by=0.02),))

    def extract(self) -> list[list[float]]:
        rows = (HERE / "world.jsonl").read_text().splitlines()[-80:]
        return [json.loads(row) for row in rows]

    def train(self, rows: list[list[float]], folder: Path) -> None:
        rows = sorted(row for row in rows if not is_held_out(row))
        wrong = [(sum(paid != (n >= at) for n, (_, paid) in enumerate(rows)), at)
                 for at in range(len(rows) + 1)]
        at = min(wrong)[1]
        write(folder, (rows[max(at - 1, 0)][0] + rows[min(at, len(rows) - 1)][0]) / 2)

    def evaluate(self, rows: list[list[float]], model: Paid) -> dict[str, float]:
        rows = [row for row in rows if is_held_out(row)]
        said = model.predict([Order(amount) for amount, _ in rows])
        right = [(each.paid == "yes") == bool(paid) for each, (_, paid) in zip(said, rows)]
        return {"accuracy": sum(right) / len(right)}

    def examples(self, rows: list[list[float]]) -> list[Order]:
        return [Order(0.01), Order(0.99)]
"""
#: A retrained model answers otherwise on purpose: the gate of predictions would be in its way.
TOML = """
    [models.paid]
    class = "models:Paid"
    files = "first"

    [models.paid.deploy]
    steps = [50.0]
    hold_s = 1.0
    wait_s = 60.0
    keep_s = 1.0
    gates = {least_calls = 30, latency_times = 50.0, predictions = 1.0}

    [models.paid.monitor]
    outputs = ["paid"]
    samples_per_minute = 60_000
    least = 1_000
    every_s = 1.0
    begins = 1
    ends = 1
    quality = {prediction = "paid", accuracy_least = 0.85, least = 50, window_hours = 0.002}

    [models.paid.retrain]
    pipeline = "pipeline:Payments"
    alarms = ["quality"]
    cool_down_s = 10.0
    budget = {runs = 20}
    then = "promote"
"""
PER_SECOND = 60
SOME_S = 60.0

pytestmark = pytest.mark.timeout(300)


class World:
    """Orders, and whether they are paid: those above a bound, until the bound moves."""

    def __init__(self, folder: Path) -> None:
        self.bound, self.labels_wrong = 0.3, False
        self._random = random.Random(5)
        self._path = folder / "world.jsonl"

    def order(self) -> float:
        return round(self._random.random(), 6)

    def truth(self, amount: float) -> bool:
        return amount > self.bound

    def label(self, amount: float) -> bool:
        """What people write down of it: it is what training and monitoring get to know."""
        wrong = (
            self.labels_wrong and round(amount * 1e6) % 2 == 0
        )  # what is trained on, in PIPELINE
        said = self.truth(amount) != wrong
        with self._path.open("a") as rows:
            rows.write(json.dumps([amount, float(said)]) + "\n")
        return said


class Callers:
    """They call at a steady pace, and tell what the right answer would have been."""

    def __init__(self, house: TestHouse, world: World) -> None:
        self.house, self.world = house, world
        self.called = 0
        self.bad: list[Answer] = []
        self.versions: dict[str, int] = {}
        self.first: dict[str, float] = {}
        #: of the last calls: was the answer true?
        self.right: deque[bool] = deque(maxlen=60)
        #: Labels that nobody was told of yet.
        self.labels: list[dict[str, str]] = []

    async def call(self, connection: Connection) -> None:
        amount = self.world.order()
        body = json.dumps({"amount": amount}).encode()
        answer = await connection.call("/models/paid/predict", body)
        self.called += 1
        if answer.status != 200:
            self.bad.append(answer)
            return
        version = answer.json["version"]
        self.versions[version] = self.versions.get(version, 0) + 1
        self.first.setdefault(version, time.time())
        paid = answer.json["result"]["paid"] == "yes"
        self.right.append(paid == self.world.truth(amount))
        label = "yes" if self.world.label(amount) else "no"
        self.labels.append({"request_id": answer.json["request_id"], "label": label})

    async def keep_calling(self) -> None:
        at = time.monotonic()
        async with Connection(self.house.port) as connection:
            while True:
                await self.call(connection)
                at = max(at + 1 / PER_SECOND, time.monotonic() - 1)
                await asyncio.sleep(max(0.0, at - time.monotonic()))

    async def keep_telling(self) -> None:
        """What was right, half a second later."""
        while True:
            told, self.labels = self.labels, []
            if told:
                answer = await post(self.house.port, "/models/paid/feedback", told)
                assert answer.status == 202, answer
            await asyncio.sleep(0.5)


class Books:
    """What the house has written down."""

    def __init__(self, database: Database) -> None:
        self.trainings = Trainings(database)
        self.deploying, self.alarms = Deploying(database), Scaling(database)

    async def ended(self) -> list[Training]:
        return [each for each in await self.trainings.of("paid") if each.ended]

    async def stable(self) -> int | None:
        """Where nothing is rolled out any more."""
        if await self.deploying.open_rollout("paid"):
            return None
        return await self.deploying.stable("paid")


async def until(true: Any, what: str, house: TestHouse, wait_s: float = SOME_S) -> float:
    began = time.monotonic()
    while not await true():
        assert time.monotonic() - began < wait_s * patience(), f"{what}\n{house.tail(100)}"
        await asyncio.sleep(0.1)
    return time.monotonic() - began


@contextlib.asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[tuple[TestHouse, World, Callers, Books]]:
    (folder / "first").mkdir()
    world = World(folder)
    for _ in range(100):
        world.label(world.order())
    house = TestHouse(MODELS, TOML, folder, wait_ready=False)
    (folder / "pipeline.py").write_text(PIPELINE)
    ran(house, "-c", "import pathlib, models; models.write(pathlib.Path('first'), 0.35)")
    async with house:
        await house.ready()
        database = Database(load(house.path, environment=house.environment).database_url())
        callers, books = Callers(house, world), Books(database)
        try:
            async with asyncio.TaskGroup() as group:  # who fails ends the others
                beside = [
                    group.create_task(callers.keep_calling()),
                    group.create_task(callers.keep_telling()),
                ]
                yield house, world, callers, books
                for task in beside:
                    task.cancel()
        finally:
            await database.close()


def ran(house: TestHouse, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=house.folder, env=house.environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_the_loop_closes_by_itself_and_a_worse_model_stays_out(tmp_path):
    async with scene(tmp_path) as (house, world, callers, books):
        await the_story(house, world, callers, books)
    assert not callers.bad, callers.bad[:3]


async def the_story(house: TestHouse, world: World, callers: Callers, books: Books) -> None:
    headrace = ("-m", "headrace")
    file = ("-f", str(house.path))

    # By hand, once: trained, registered, promoted, and served.
    run = json.loads(
        await asyncio.to_thread(
            ran, house, *headrace, "train", "pipeline:Payments", "--json", *file
        )
    )
    assert (run["state"], run["version"]) == ("succeeded", "1")
    reason = ("--reason", "the first")
    await asyncio.to_thread(ran, house, *headrace, "promote", "paid", "1", *reason, *file)

    async def serves_the_first() -> bool:
        return "1" in callers.versions

    await until(serves_the_first, "version 1 answers", house)
    [moved] = [each for each in await books.deploying.entries("paid") if each.outcome == "done"]
    first_answer_s = callers.first["1"] - moved.at

    async def first_is_stable() -> bool:
        return await books.stable() == 1 and sum(callers.right) >= 57

    await until(first_is_stable, "version 1 is in production", house)
    assert await books.trainings.of("paid") == [], "nothing was wrong"

    # The world changes. From here on nobody touches anything.
    world.bound = 0.7
    changed = time.monotonic()

    async def is_promoted() -> bool:
        return any(each.state == "promoted" for each in await books.ended())

    await until(is_promoted, "trained again, and promoted", house)
    trained_s = time.monotonic() - changed
    training = next(each for each in await books.ended() if each.state == "promoted")
    assert training.before == 1 and training.reason.startswith("alarm quality since")

    async def is_right_again() -> bool:
        stable = await books.stable()
        return stable not in (None, 0, 1) and sum(callers.right) >= 57

    await until(is_right_again, "in production, and right again", house)
    closed_s = time.monotonic() - changed
    [rollout, *_] = [
        each for each in await books.deploying.rollouts("paid")
        if each.to_version == training.version
    ]  # fmt: skip
    assert (rollout.state, rollout.strategy, rollout.from_version) == ("done", "canary", 1)
    moves = await books.deploying.entries("paid")
    [by_itself] = [
        each for each in moves if each.outcome == "done" and each.to == training.version
    ]  # fmt: skip
    assert by_itself.author == "headrace" and training.run in by_itself.reason

    # People write down wrong labels of what is trained on, and right ones of what is held out: what
    # comes of it is worse than what is in production, which alone keeps it out.
    async def calm() -> bool:
        return not await books.alarms.alarms("paid", open_only=True) and not [
            each for each in await books.trainings.of("paid") if each.ended is None
        ]

    await until(calm, "the alarm is over", house)
    production, before = await books.stable(), len(await books.ended())
    world.labels_wrong = True

    async def is_out() -> bool:
        return len(await books.ended()) > before

    await until(is_out, "trained on wrong labels", house)
    out = (await books.ended())[0]
    assert out.state == "out", out
    assert f"worse than version {production}'s" in out.outcome, out
    assert "on the same data; 0.02 worse is allowed" in out.outcome, out
    assert await books.stable() == production
    assert sum(callers.right) >= 57, "what is in production is right as before"
    print(
        f"promoted -> first answer {first_answer_s:.1f} s; world changed -> promoted"
        f" {trained_s:.1f} s -> in production {closed_s:.1f} s; {callers.called} calls,"
        f" {callers.versions}"
    )
