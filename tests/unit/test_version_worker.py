"""A worker of a version, before it has one: what it says, and that it tries again."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from headrace.broker.memory import MemoryBroker
from headrace.deploy import change
from headrace.gateway.role import Gateway
from headrace.objects.memory import MemoryObjects
from headrace.registry import choose
from headrace.registry.inspect import inspect
from headrace.registry.refusals import Rejected
from headrace.roles import named
from headrace.settings import DatabaseSettings, JobsSettings, ModelSettings, Settings, SettingsError
from headrace.store.deploying import Deploying
from headrace.store.door import StoreDoor
from headrace.store.migrate import migrate
from headrace.worker import role
from headrace.worker.artifact import Placed, place_of
from headrace.worker.role import Worker

SETTINGS = ModelSettings(target="models:Ours", files="ours", slots=2)


def worker(name: str, place: Any) -> Worker:
    return Worker(
        "wine", SETTINGS, "/tmp", MemoryBroker(f"memory://{name}"),
        MemoryObjects(f"memory://{name}"), StoreDoor(Settings()), JobsSettings(),
        version=3, place=place,
    )  # fmt: skip


async def test_why_it_is_not_there_is_announced_until_it_is(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role, "PLACE_AGAIN_S", (0.0,))
    answers = iter([Rejected("wine 3: other bytes"), OSError(28, "No space left"), None])
    said: list[str] = []

    async def place() -> Placed:
        said.append(made.announcement().reason)
        error = next(answers)
        if error:
            raise error
        return Placed("/kept/3", "theirs:Model", True, [])

    made = worker(request.node.name, place)
    assert (made.workload, made.announcement().version) == ("wine@3", 3)
    assert made.id.startswith("wine@3-")
    spawned: list[Any] = []

    async def spawn(slot: Any) -> None:
        spawned.append(slot.start)

    monkeypatch.setattr("headrace.worker.execute.Slot.spawn", spawn)
    await made._fetch(place)
    assert said[0] == "loading"
    assert said[1] == "artifact-rejected: wine 3: other bytes"
    assert said[2].startswith("OSError: [Errno 28]")
    assert made.announcement().reason == "loading" and not made.announcement().ready
    assert [(start.files, start.model, start.code) for start in spawned] == [
        ("/kept/3", "theirs:Model", True)
    ] * 2
    assert [start.slot for start in spawned] == [0, 1]


def test_without_a_class_of_its_own_the_settings_serve() -> None:
    start = worker("w", None)._slots[0].start
    of = Worker._of(Placed("/kept/3", "", False, []), start)
    assert (of.files, of.model, of.code, of.folder) == ("/kept/3", "models:Ours", False, "/tmp")


@pytest.fixture
async def desk(tmp_path: Path) -> choose.Desk:
    """A registry with one version of wine."""
    desk, made = choose.desk(Settings(folder=str(tmp_path))), tmp_path / "made"
    made.mkdir()
    head = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (made / "w.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    manifest = {"model": "wine", "format": "safetensors", "target": "theirs:Model",
                "golden": [{"input": 1, "output": 2}]}  # fmt: skip
    (made / "manifest.json").write_text(json.dumps(manifest))
    await desk.registry.register(inspect(made, desk.rules))
    return desk


async def test_a_version_comes_from_the_registry(desk: choose.Desk, tmp_path: Path) -> None:
    """Also where no database says what was decided."""
    door = StoreDoor(Settings(folder=str(tmp_path)), waits=False)
    placed = await place_of(desk, door, "wine", 1)()
    made = tmp_path / "made" / "w.safetensors"
    assert (Path(placed.files) / "w.safetensors").read_bytes() == made.read_bytes()
    assert (placed.target, placed.code) == ("theirs:Model", False)
    assert [call.output for call in placed.golden] == [2]
    await door.close()


async def test_without_a_database_it_comes_all_the_same(desk: choose.Desk, tmp_path: Path) -> None:
    """As in an image, whose user may write no file beside the settings."""
    (tmp_path / "file").write_text("")
    nowhere = Settings(database=DatabaseSettings(url=f"sqlite:///{tmp_path}/file/house.db"))
    placed = await place_of(desk, StoreDoor(nowhere), "wine", 1)()
    assert placed.target == "theirs:Model"


async def test_a_worker_takes_what_deploy_decided_and_nothing_else(
    desk: choose.Desk, tmp_path: Path
) -> None:
    settings = Settings(folder=str(tmp_path))
    door = StoreDoor(settings, waits=False)
    database = (await door.open()).database
    await migrate(database)
    deploying = Deploying(database)
    place = place_of(desk, door, "wine", 1)
    assert await deploying.commit(change.placed("wine", 1, "sha256:" + "0" * 64, 1, time.time()))
    with pytest.raises(Rejected, match="when it was deployed"):
        await place()
    await door.close()


def test_who_is_meant() -> None:
    settings = Settings(models={"wine": SETTINGS})
    assert named(settings, ["wine", "wine@3"]) == [("wine", 0), ("wine", 3)]
    for wrong in (["beer"], ["wine@0"], ["wine@x"], []):
        with pytest.raises(SettingsError, match="expected one of wine"):
            named(settings, wrong)


# -- a gateway beside a deploy that is silent ------------------------------------------------------


async def test_a_gateway_asks_the_store_for_routes_that_nobody_says(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.deployments import WHOLE, Deploy, Route, Share
    from headrace.gateway import role as gateway_role
    from headrace.store import deploying

    monkeypatch.setattr(gateway_role, "ASK_ROUTES_S", 0.0)
    tries = iter([OSError("away"), None])

    class Door:
        database = None

        def trouble(self) -> dict[Any, float]:
            return {}

        async def open(self) -> Door:
            error = next(tries)
            if error:
                raise error
            return self

    async def routes(self: Any) -> list[Route]:
        return [Route("wine", 7, (Share(3, WHOLE),))]

    monkeypatch.setattr(deploying.Deploying, "routes", routes)
    name = request.node.name
    deployed = ModelSettings(target="models:Ours", deploy=Deploy())
    gateway = Gateway(
        Settings(models={"wine": deployed, "beer": SETTINGS}),
        MemoryBroker(f"memory://{name}"), MemoryObjects(f"memory://{name}"), Door(),  # type: ignore[arg-type]
    )  # fmt: skip
    await asyncio.wait_for(gateway._ask_routes(), 5)
    assert gateway.snapshot.models["wine"].queue == "wine@3"
    assert gateway.snapshot.models["beer"].queue == "beer"


async def test_the_way_to_the_store_is_opened_while_the_model_loads(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening it takes 0.3 s, on a busy machine two: a worker's first stored job would wait for
    that, with its lease running. A gateway, whose start it would delay, opens it later."""
    opened: list[str] = []

    async def spawn(slot: Any) -> None:
        opened.append("loading")

    async def open_(door: Any) -> None:
        opened.append("open")

    monkeypatch.setattr("headrace.worker.execute.Slot.spawn", spawn)
    monkeypatch.setattr(StoreDoor, "open", open_)
    broker = MemoryBroker(f"memory://{request.node.name}")
    await broker.open()
    made = Worker(
        "wine", SETTINGS, "/tmp", broker, MemoryObjects(f"memory://{request.node.name}"),
        StoreDoor(Settings()), JobsSettings(),
    )  # fmt: skip
    await made.open()
    for _ in range(10):
        await asyncio.sleep(0)
    assert opened == ["loading"] * SETTINGS.slots + ["open"], "nobody asked for it"
    for task in made._tasks:
        task.cancel()
    await asyncio.gather(*made._tasks, return_exceptions=True)
    await broker.close()
