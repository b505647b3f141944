"""The retrainer over a real database, registry and tracker: two at once, and what is interrupted.

The runs themselves are records that the test writes: tests/journeys/test_loop.py runs real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

from headrace.announce import LOOK, TO_DEPLOY
from headrace.broker.memory import MemoryBroker
from headrace.deployments import Deploy
from headrace.errors import Unavailable
from headrace.house import free_port
from headrace.pipeline.durable import Engine
from headrace.pipeline.gates import Verdict
from headrace.pipeline.place import place
from headrace.pipeline.seam import trigger
from headrace.pipeline.serve import command_for, serve
from headrace.records import new_id
from headrace.registry.choose import desk
from headrace.registry.promote import promote, register
from headrace.registry.version import MANIFEST
from headrace.retrain.role import Retrainer
from headrace.retraining import Budget, Retrain
from headrace.settings import ModelSettings, RegistrySettings, Settings
from headrace.store.deploying import Deploying
from headrace.store.retraining import Trainings
from headrace.store.scaling import Scaling

from .stored import opened

ONNX = Path(__file__).parents[2] / "examples" / "quickstart" / "model.onnx"
AT = 1_767_600_000.0
POLICY = Retrain(
    pipeline="wines:Wines", params={"seed": 3}, alarms=("quality",), then="promote",
    cool_down_s=100.0, budget=Budget(runs=5),
)  # fmt: skip


SLOW = """
import time
import headrace
from headrace.pipeline import Pipeline

class Nothing(headrace.Model):
    def predict(self, xs: list[float]) -> list[float]:
        return xs

class Slow(Pipeline):
    model = Nothing

    def extract(self) -> list[float]:
        time.sleep(120)
"""


class Door:
    def __init__(self, store):
        self.store = store

    async def open(self):
        if self.store is None:
            raise Unavailable("the database cannot be reached", code="storage-unavailable")
        return self.store


class Town:
    """A store, a registry with two versions, and retrainers whose clock is the test's."""

    def __init__(self, folder, store):
        self.folder, self.store, self.at = folder, store, AT
        self.trainings, self.scaling = Trainings(store.database), Scaling(store.database)
        self.told, self.heard = [], []
        model = ModelSettings(target="m:M", deploy=Deploy(), retrain=POLICY)
        self.settings = Settings(folder=str(folder), models={"wine": model})
        self.place = place(self.settings)
        self.broker = MemoryBroker(f"memory://{new_id()}")

    def retrainer(self, **changes):
        settings = self.settings
        if changes:
            wine = settings.models["wine"]
            policy = msgspec.structs.replace(POLICY, **changes)
            wine = msgspec.structs.replace(wine, retrain=policy)
            settings = msgspec.structs.replace(settings, models={"wine": wine})
        role = Retrainer(
            settings, "", self.broker, Door(self.store), self.told.append, lambda: self.at
        )
        role._place = self.place  # and nobody serves
        return role

    async def version(self, files="other", **more):
        """Registers another one; its number."""
        folder = self.folder / new_id()
        folder.mkdir()
        (folder / "model.onnx").write_bytes(ONNX.read_bytes())
        if files == "other":
            (folder / "words.txt").write_text(folder.name)
        manifest = {"model": "wine", "format": "onnx", "tags": {"n": folder.name}} | more
        (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
        async with self.registry() as at:
            return (await register(at.registry, folder, at.rules)).number

    async def points(self, number):
        async with self.registry() as at:
            await promote(
                at.registry, at.audit, "wine", number, author="ann", reason="because"
            )  # fmt: skip

    async def production(self):
        async with self.registry() as at:
            return (await at.registry.state())["wine"].get("production")

    @contextlib.asynccontextmanager
    async def registry(self):
        at = desk(self.settings)
        await at.registry.open()
        try:
            yield at
        finally:
            await at.registry.close()

    async def alarm(self, detail="accuracy 0.7"):
        return await self.scaling.begin_alarm("wine", "quality", self.at, detail)

    def ran(self, run_id, state, **more):
        run = self.place.tracker.get(run_id)
        run.state, run.began, run.ended = state, self.at, self.at + 60
        for name, value in more.items():
            setattr(run, name, value)
        self.place.tracker.write(run)

    async def last(self):
        return (await self.trainings.of("wine", 1))[0]


@pytest.fixture
async def town(tmp_path):
    async with opened(f"sqlite:///{tmp_path}/house.db") as store:
        made = Town(tmp_path, store)
        await made.broker.open()
        await made.broker.listen(TO_DEPLOY, made.heard.append)
        await made.version()
        await made.points(1)
        yield made
        await made.broker.close()


async def test_an_alarm_is_one_run_whoever_of_two_sees_it_first(town):
    one, other = town.retrainer(), town.retrainer()
    await one.look()
    assert await town.trainings.of("wine") == [], "nothing is wrong yet"
    await town.alarm()
    await asyncio.gather(one.look(), other.look())
    [training] = await town.trainings.of("wine")
    assert "alarm quality since" in training.reason and "accuracy 0.7" in training.reason
    assert (training.before, training.state) == (1, "asked")
    [run] = town.place.tracker.runs(10)
    assert (run.id, run.asked_by, run.asked) == (training.run, "retrain", {"seed": 3})
    [notice] = town.told
    assert (notice.kind, notice.state, notice.name) == ("retraining", "started", run.id)

    # What passed its gates is promoted in the name of headrace, once.
    town.ran(run.id, "succeeded", version=str(await town.version()))
    await asyncio.gather(one.look(), other.look())
    assert await town.production() == 2 and LOOK in town.heard
    ended = await town.last()
    assert (ended.state, ended.version, ended.took_s) == ("promoted", 2, 60.0)
    done = [each for each in await Deploying(town.store.database).entries("wine")
            if each.outcome == "done"]  # fmt: skip
    assert {(each.author, each.to) for each in done} == {("headrace", 2)}
    assert run.id in done[0].reason and "accuracy 0.7" in done[0].reason
    assert [each.state for each in town.told] == ["started", "promoted"]

    # The alarm that stays on waits for the cool-down, and has a run of its own then.
    town.at += 120
    await one.look()
    assert len(await town.trainings.of("wine")) == 1
    town.at += 100
    await one.look()
    assert len(await town.trainings.of("wine")) == 2


async def asked(town, role):
    await town.alarm()
    await role.look()
    return (await town.last()).run


async def test_a_worse_model_stays_out_and_people_are_told_why(town):
    role = town.retrainer()
    run = await asked(town, role)
    shut = Verdict("accuracy", False, "accuracy is 0.6, at least 0.9 is wanted", 0.6)
    town.ran(run, "refused", verdicts=[shut])
    await role.look()
    training = await town.last()
    assert (training.state, training.outcome) == (
        "out", "it stays out: accuracy is 0.6, at least 0.9 is wanted",
    )  # fmt: skip
    assert await town.production() == 1
    assert town.told[-1].state == "out" and "0.6" in town.told[-1].text


async def test_where_a_person_was_quicker_the_version_is_not_promoted(town):
    role = town.retrainer()
    run = await asked(town, role)
    mine, theirs = await town.version(), await town.version()
    town.ran(run, "succeeded", version=str(mine))
    await town.points(theirs)
    await role.look()
    training = await town.last()
    assert (training.state, training.version) == ("registered", mine)
    assert "not promoted: production of wine is 3 by now, not 1" in training.outcome
    assert await town.production() == theirs


async def test_register_alone_leaves_production_as_it_is(town):
    role = town.retrainer(then="register")
    run = await asked(town, role)
    town.ran(run, "succeeded", version=str(await town.version()))
    await role.look()
    assert (await town.last()).state == "registered" and await town.production() == 1


async def test_what_is_as_good_as_the_same_is_not_rolled_out(town):
    await town.points(await town.version("the same"))
    role = town.retrainer()
    run = await asked(town, role)
    town.ran(run, "succeeded", version=str(await town.version("the same")))
    await role.look()
    training = await town.last()
    assert (training.state, training.before, training.version) == ("registered", 2, 3)
    assert "its files are those of version 2 in production" in training.outcome
    assert await town.production() == 2


async def test_a_retrainer_that_died_between_two_writes_is_followed_up(town):
    role = town.retrainer()
    await asked(town, role)
    training = await town.last()
    for path in (town.folder / ".headrace" / "runs" / training.run).glob("*"):
        path.unlink()  # as if the run had never been asked for
    await town.retrainer().look()
    assert town.place.tracker.get(training.run).state == "waiting"
    # It was promoted, and whoever did it could not write that down here.
    version = await town.version()
    town.ran(training.run, "succeeded", version=str(version))
    end = Trainings.end
    try:
        Trainings.end = lambda *_: (_ for _ in ()).throw(KeyError("killed"))
        await role.look()
        assert await town.production() == version
        await town.points(1)  # it was rolled back meanwhile
    finally:
        Trainings.end = end
    await town.retrainer().look()
    assert (await town.last()).state == "promoted"
    assert await town.production() == 1, "it is not promoted a second time"


async def test_a_run_that_takes_too_long_is_ended(town):
    """By who serves it: with the process that it is."""
    (town.folder / "slow.py").write_text(SLOW)
    run = trigger(town.place, "slow:Slow", town.folder, {}, asked_by="retrain")
    file = town.folder / "headrace.toml"
    file.write_text("")
    ended = lambda: town.place.tracker.get(run.id).state == "failed"  # noqa: E731

    def serves():
        with Engine(town.place).open() as engine:
            serve(engine, command_for(str(file)), ended, 0.05, lambda run: 4.0)

    await asyncio.to_thread(serves)
    found = town.place.tracker.get(run.id)
    assert found.problem.startswith("it took longer than 4 s, in")


async def test_without_the_database_or_the_registry_nothing_begins_and_nothing_breaks(town):
    role = town.retrainer()
    await town.alarm()
    role._door.store = None
    await role.look()
    role._door.store = town.store
    registry = RegistrySettings(url=f"mlflow://127.0.0.1:{free_port()}", timeout_s=1)
    role._settings = msgspec.structs.replace(town.settings, registry=registry)
    await role.look()
    assert await town.trainings.of("wine") == []
    role._settings = town.settings
    await role.look()
    assert len(await town.trainings.of("wine")) == 1
