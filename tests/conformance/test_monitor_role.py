"""The monitor over a real database and real files: what stays, what a restart keeps, what is away;
and a whole house, whose world changes."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from headrace.broker.memory import MemoryBroker
from headrace.client import AsyncClient, CallRefused
from headrace.errors import Unavailable
from headrace.monitor.gather import gather
from headrace.monitor.report import report
from headrace.monitor.role import Monitoring, Watched
from headrace.monitoring import TO_MONITOR, Label, Monitor, Quality, Sample, Samples, samples_bytes
from headrace.objects.file import FileObjects
from headrace.objects.port import ObjectsDown
from headrace.records import new_id
from headrace.settings import ModelSettings, ObjectsSettings, Settings
from headrace.store.feedback import Feedback
from headrace.store.scaling import Scaling
from headrace.testing.house import TestHouse, patience

from .stored import opened

AT = 1_767_600_000.0
POLICY = Monitor(
    inputs=("x",), outputs=("y",), window_minutes=10.0, reference_hours=0.0, least=100,
    every_s=60.0, begins=2, ends=2, keep_hours=48.0,
    quality=Quality(prediction="y", accuracy_least=0.8, least=50),
)  # fmt: skip


class Door:
    def __init__(self, store):
        self.store, self.down = store, False

    async def open(self):
        if self.down:
            raise Unavailable("the database cannot be reached", code="storage-unavailable")
        return self.store


class Files(FileObjects):
    down = False

    async def put(self, name, data):
        if self.down:
            raise ObjectsDown("down")
        await super().put(name, data)


class Town:
    def __init__(self, folder, store):
        self.store, self.at, self.told = store, AT, []
        self.door, self.objects = Door(store), Files(f"file://{folder}/objects")
        self.scaling, self.feedback = Scaling(store.database), Feedback(store.database)
        self.draw = np.random.default_rng(1)
        self.calls = 0

    def monitoring(self, **more):
        models = {
            "wine": ModelSettings(target="m:M", monitor=POLICY),
            "other": ModelSettings("m:M"),
        }
        broker = MemoryBroker(f"memory://{new_id()}")
        settings = Settings(models=models, **more)
        made = Monitoring(
            settings, broker, self.door, self.objects, self.told.append, lambda: self.at
        )
        self.role = made
        self.watched = made.models["wine"]
        return made

    def hear(self, count, shift=0.0, version="1"):
        """Samples, whose ids it gives."""
        ids = [f"r-{self.calls + n}" for n in range(count)]
        self.calls += count
        xs = self.draw.normal(shift, size=count).tolist()
        samples = [
            Sample(i, self.at, 1.0, "", [x, "yes"]) for i, x in zip(ids, xs, strict=True)
        ]  # fmt: skip
        news = Samples("wine", version, ["in.x", "out.y"], samples, count)
        self.role._hear(samples_bytes(news))
        return ids

    async def label(self, ids, label):
        await self.feedback.put("wine", [Label(i, label, self.at, self.at) for i in ids])

    async def turn(self, after_s=60.0):
        self.at += after_s
        await self.role.turn(self.watched)
        return await self.watched.shelf.state()

    async def alarms(self, open_only=True):
        return {each.name: each for each in await self.scaling.alarms("wine", open_only=open_only)}


@pytest.fixture
async def town(tmp_path):
    async with opened(f"sqlite:///{tmp_path}/house.db") as store:
        made = Town(tmp_path, store)
        made.monitoring()
        yield made


async def test_drift_is_an_alarm_once_and_ends(town):
    town.hear(200)
    await town.turn()
    for _ in range(3):
        town.hear(200, shift=4.0)
        await town.turn(600)
    alarm = (await town.alarms())["drift"]
    assert "in.x: mean 4" in alarm.detail or "in.x: mean 3.9" in alarm.detail
    # Another version is compared with its own first calls; the old one is gone from the window.
    for _ in range(4):
        town.hear(200, shift=4.0, version="2")
        await town.turn(600)
    assert await town.alarms() == {}
    assert [(n.name, n.state) for n in town.told] == [("drift", "began"), ("drift", "ended")]


async def test_objects_that_answer_slowly_for_one_model_hold_up_no_other(town, monkeypatch):
    held = asyncio.Event()
    get = FileObjects.get

    async def slowly(self, name):
        if "wine" in name:
            await held.wait()
        return await get(self, name)

    monkeypatch.setattr(FileObjects, "get", slowly)
    beer = Watched("beer", POLICY, town.objects, True)
    town.role.models["beer"] = beer
    town.hear(200)
    await town.role.open()
    end_at = asyncio.get_running_loop().time() + 10 * patience()
    while await beer.shelf.state() is None:
        assert asyncio.get_running_loop().time() < end_at
        await asyncio.sleep(0.02)
    assert not town.watched.opened or town.watched.inbox, "wine waits"
    held.set()
    await town.role.drain()
    assert (await town.watched.shelf.state()) is not None


async def test_quality_by_labels_and_what_a_restart_keeps(town):
    ids = town.hear(100)
    await town.label(ids[:60], "no")
    await town.turn()
    await town.turn()
    assert "accuracy 0 (" in (await town.alarms())["quality"].detail
    await town.role.drain()
    town.monitoring()  # a new one, which has nothing in its memory
    await town.label(ids, "yes")
    state = await town.turn()
    assert state.quality[0].verdict == "good" and state.labels == 100
    await town.turn()
    assert await town.alarms() == {}, "the open alarm was known"
    town.hear(1)
    await town.turn()
    assert town.watched.watch.references["1"].profiles["1", ""].calls == 100, "as it was kept"


async def test_what_is_away_is_caught_up_with(town):
    ids = town.hear(100)
    town.objects.down = town.door.down = True
    await town.turn()
    assert await town.watched.shelf.state() is None
    town.hear(100)
    await town.turn()
    town.objects.down = town.door.down = False
    await town.label(ids, "no")
    state = await town.turn()
    assert state.samples == 200
    assert state.quality[0].verdict == "bad"
    rows = await town.watched.shelf.samples(0.0)
    assert sorted(row["id"] for row in rows) == sorted({f"r-{n}" for n in range(200)})
    assert rows[0]["values"]["out.y"] == "yes"


async def test_hours_whose_writing_failed_are_written_later(town, monkeypatch):
    town.hear(100)
    await town.turn()
    shelf = town.watched.shelf
    put_hour = shelf.put_hour

    async def full(of, profiles):
        town.hear(1)  # calls go on meanwhile
        await town.role._count(town.watched)
        raise ObjectsDown("no space left")

    monkeypatch.setattr(shelf, "put_hour", full)
    town.hear(100)
    await town.turn()
    monkeypatch.setattr(shelf, "put_hour", put_hour)
    await town.turn()
    hours = [await shelf.hour(of) for of in await shelf.hours()]
    assert sum(kept["1", ""].calls for kept in hours) == 201


async def test_what_cannot_be_read_is_nobodys_trouble(town):
    town.role._hear(b"of another release")
    town.hear(100)
    assert (await town.turn()).samples == 100


async def test_an_alarm_that_could_not_be_written_is_raised_at_the_next_look(town):
    town.hear(200)
    await town.turn()
    town.hear(200, shift=4.0)
    await town.turn(600)
    town.door.down = True
    town.hear(200, shift=4.0)
    await town.turn(60)
    assert town.told == []
    town.door.down = False
    town.hear(200, shift=4.0)
    await town.turn(60)
    assert "drift" in await town.alarms()


async def test_old_samples_go_and_so_does_all_when_it_is_to_be_forgotten(town):
    ids = town.hear(100)
    await town.label(ids, "yes")
    await town.turn()
    shelf = town.watched.shelf
    await town.role.write(town.watched)
    assert await shelf.hours() and len(await shelf.samples(0.0)) == 100
    await town.turn(49 * 3600)
    assert await shelf.hours() == [] and await shelf.samples(0.0) == []
    assert await town.feedback.since("wine", 0.0) == []
    assert await shelf.reference("1") is not None
    await shelf.forget()
    await town.turn()
    assert await shelf.reference("1") is None
    assert not town.watched.watch.references


async def test_rows_do_not_rest_where_what_rests_is_sealed(town, tmp_path):
    town.monitoring(objects=ObjectsSettings(keys="keys.toml"))
    ids = town.hear(100)
    await town.label(ids, "no")
    state = await town.turn()
    assert state.quality[0].verdict == "bad", "judged all the same"
    await town.role.write(town.watched)
    assert await town.watched.shelf.samples(0.0) == []


async def test_samples_come_over_the_broker(town):
    town.role._broker = broker = MemoryBroker(f"memory://{new_id()}")
    await broker.open()
    await town.role.open()
    for model in ("other", "wine"):
        one = Samples(model, "1", ["in.x", "out.y"], [Sample("a", AT, 1.0, "", [1.0, "b"])], 7)
        broker.send(TO_MONITOR, samples_bytes(one))
    while not town.watched.watch.samples:
        await asyncio.sleep(0.01)
    await town.role.drain()
    assert town.watched.watch.calls == 7
    assert len(await town.watched.shelf.samples(0.0)) == 1, "written as it leaves"
    await broker.close()


async def test_labels_of_many_at_one_time_are_all_read(town, monkeypatch):
    await town.label([f"r-{n}" for n in range(120)], 1.0)
    await town.label(["r-0"], 2.0)
    found = await town.feedback.since("wine", AT)
    assert len(found) == 120
    assert {label.id: label.label for label in found}["r-0"] == 2.0
    assert await town.feedback.since("other", 0.0) == []


async def test_the_report_says_what_was_found_and_needs_nothing(town):
    ids = town.hear(200)
    await town.label(ids, "yes")
    await town.turn()
    town.hear(300, shift=4.0)
    await town.turn(3600)
    await town.role.write(town.watched)
    state = await town.watched.shelf.state()
    labels = await town.feedback.since("wine", 0.0)
    seen = await gather(town.watched.shelf, POLICY, state, labels, 0.0)
    assert [(each.version, each.segment) for each in seen] == [("1", "")]
    [x, _] = seen[0].fields
    assert len(x.psi) == 2 and x.psi[0].value < 0.1 and x.psi[1].value > 1
    assert seen[0].quality["accuracy"][0].value == 1.0
    page = report(state, POLICY, seen, [("drift", AT, "<in.x> & more")])
    assert "in.x: mean" in page and "&lt;in.x&gt; &amp; more" in page
    assert page.count("<svg") == page.count("</svg>") >= 5
    assert "http" not in page and "<script" not in page


# -- a whole house ---------------------------------------------------------------------------------

MODELS = """
    from dataclasses import dataclass
    import headrace

    @dataclass
    class Out:
        big: str

    @dataclass
    class In:
        x: float
        name: str = ""

    class Big(headrace.Model):
        version = "5"
        batching = headrace.Batching(max_size=16)

        def golden(self):
            return In(2.0), Out("yes")

        def predict(self, items: list[In]) -> list[Out]:
            return [Out("yes" if item.x > 0 else "no") for item in items]
"""
TOML = """
    [models.big]
    class = "models:Big"

    [models.big.monitor]
    inputs = ["x"]
    outputs = ["big"]
    samples_per_minute = 60000
    window_minutes = 0.1
    reference_hours = 0
    least = 100
    every_s = 0.5
    begins = 2
    quality = {prediction = "big", accuracy_least = 0.9, least = 50}

    [models.plain]
    class = "models:Big"
"""


async def calls(client, shift, count=150):
    draw = random.Random(count)
    inputs = [{"x": draw.gauss(shift, 1), "name": "Ann Other"} for _ in range(count)]
    answers = await asyncio.gather(*(client.predict("big", given) for given in inputs))
    # What is right turned with the world: above `shift`, not above 0.
    return {
        answer.request_id: "yes" if given["x"] > shift else "no"
        for answer, given in zip(answers, inputs, strict=True)
    }


async def test_a_house_whose_world_changes(tmp_path):
    async with TestHouse(MODELS, TOML, tmp_path) as house, AsyncClient(house.url) as client:
        await house.ready()
        labels = await calls(client, 0.0)
        assert await client.feedback("big", labels) == 150
        with pytest.raises(CallRefused) as refused:
            await client.feedback("plain", labels)
        assert refused.value.code == "model-not-watched"
        with pytest.raises(CallRefused) as refused:
            await client.feedback("big", {"": "yes"})
        assert refused.value.code == "validation-failed"
        async with asyncio.timeout(60 * patience()):
            while {each["name"] for each in house.logged("alarm")} < {"drift", "quality"}:
                labels = await calls(client, 4.0)
                await client.feedback("big", labels)
                await asyncio.sleep(0.3)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and "monitor" in path.parts]
    assert any(path.suffix == ".parquet" for path in kept)
    assert not any(b"Ann Other" in path.read_bytes() for path in kept), "only what was named"
