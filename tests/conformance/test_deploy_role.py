"""The deploy role over a real database and a real registry: from the alias to the routes and back,
two at once, and what is away. Workers and a gateway are played by the test."""

import asyncio
import contextlib
import json
import struct
import time

import pytest
from msgspec import structs

from headrace.announce import (
    LOOK,
    TO_DEPLOY,
    TO_GATEWAYS,
    Announcement,
    Evidence,
    Outstanding,
    announcement_bytes,
    evidence_bytes,
    read_announcement,
)
from headrace.broker.memory import MemoryBroker
from headrace.deploy.role import DeployRole
from headrace.deployments import WHOLE, Deploy, Gates, Route, Share, parted
from headrace.errors import NotFound, Unavailable
from headrace.orchestrator.port import Status
from headrace.records import new_id
from headrace.registry.choose import desk
from headrace.registry.promote import promote, register
from headrace.registry.rules import Rules
from headrace.settings import House, ModelSettings, Settings
from headrace.store.deploying import Deploying
from headrace.store.scaling import Made, Scaling
from headrace.testing.house import patience

from .stored import opened

WITHIN_S = 15.0
FAST = Deploy(
    steps=(25.0,), hold_s=0.3, wait_s=30.0, ready_s=20.0, keep_s=0.2, gates=Gates(least_calls=20)
)


class Hands:
    """An orchestrator: whoever is asked for is there at once. Versions have no workload before one
    is made."""

    def __init__(self):
        self.counts, self.down = {"wine": 0}, False

    async def status(self, workload):
        if self.down:
            raise Unavailable("the orchestrator is down")
        if workload not in self.counts:
            raise NotFound(f"no workload {workload}")
        count = self.counts[workload]
        return Status(count, count, None, False, "")

    async def scale(self, workload, count, reason, seen=None):
        if self.down:
            raise Unavailable("the orchestrator is down")
        if workload not in self.counts:
            raise NotFound(f"no workload {workload}")
        self.counts[workload] = count

    async def create(self, workload, count, reason):
        if self.down:
            raise Unavailable("the orchestrator is down")
        self.counts[workload] = count

    async def remove(self, workload, reason):
        if self.down:
            raise Unavailable("the orchestrator is down")
        assert parted(workload)[1], "what versions are made like"
        self.counts.pop(workload, None)


class Door:
    """To the store; `away`: the database is."""

    def __init__(self, store):
        self.store, self.away = store, False

    async def open(self):
        if self.away:
            raise Unavailable("the database cannot be reached", code="storage-unavailable")
        return self.store


class Town:
    def __init__(self, store, folder):
        self.store, self.deploying = store, Deploying(store.database)
        self.scaling = Scaling(store.database)
        self.folder, self.hands, self.told = folder, Hands(), []
        self.door = Door(store)
        self.url = f"memory://{new_id()}"
        self.voice = MemoryBroker(self.url)
        self.routes = []
        self.sick = {}  # version -> what its workers say
        self.failing = set()  # versions whose every second call fails
        self.calls = {}
        self.desk = desk(self.settings())

    def settings(self, **deploy):
        fast = {name: getattr(FAST, name) for name in FAST.__struct_fields__} | deploy
        model = ModelSettings(target="m:M", workers=2, deploy=Deploy(**fast))
        return Settings(house=House(state="state"), folder=str(self.folder), models={"wine": model})

    @contextlib.asynccontextmanager
    async def deployer(self, **deploy):
        settings = self.settings(**deploy)
        broker = MemoryBroker(self.url)
        await broker.open()
        role = DeployRole(settings, broker, self.door, desk(settings), self.hands, self.told.append)
        await role.open()
        try:
            yield role
        finally:
            await role.drain()
            await broker.close()

    # -- workers and a gateway -------------------------------------------------------------------

    async def play(self):
        await self.voice.open()
        await self.voice.listen(TO_GATEWAYS, self._hear)
        called = 0
        while True:
            for workload, count in self.hands.counts.items():
                version = parted(workload)[1]
                for number in range(count):
                    self.say(self._worker(f"{workload}-{number}", version))
            called += 100
            self.say(Outstanding("g", {}, {"wine": called}))
            for share in self.routes[-1].shares if self.routes else ():
                self._call(share.version, 100 * share.of_whole // WHOLE)
            await asyncio.sleep(0.1)

    def _hear(self, data):
        news = read_announcement(data)
        if isinstance(news, Route) and (
            not self.routes or news.revision > self.routes[-1].revision
        ):
            self.routes.append(news)

    def _worker(self, name, version):
        reason = self.sick.get(version, "")
        return Announcement(
            worker=name, model="wine", ready=not reason, reason=reason, card=None, slots=1,
            slots_ready=int(not reason), busy=0, in_hand=0, waiting=0, golden=True, fixed_ms=1.0,
            per_item_ms=1.0, max_size=8, version=version,
        )  # fmt: skip

    def _call(self, version, count):
        answered, failed = self.calls.get(version, (0, 0))
        bad = count // 2 if version in self.failing else 0
        answered, failed = self.calls[version] = answered + count - bad, failed + bad
        said = Evidence("g", "wine", version, answered, failed, 0, {25.0: answered})
        self.voice.send(TO_DEPLOY, evidence_bytes(said))

    def say(self, news):
        self.voice.send(TO_GATEWAYS, announcement_bytes(news))

    def look(self):
        self.voice.send(TO_DEPLOY, LOOK)

    # -- people ----------------------------------------------------------------------------------

    async def register(self, number):
        folder = self.folder / f"made-{number}"
        folder.mkdir()
        head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        weights = struct.pack("<Q", len(head)) + head + struct.pack("<f", number)
        (folder / "w.safetensors").write_bytes(weights)
        (folder / "manifest.json").write_text('{"model": "wine", "format": "safetensors"}')
        made = await register(self.desk.registry, folder, Rules())
        assert made.number == number
        return made

    async def promote(self, number, reason="better"):
        given = {"author": "ann", "reason": reason}
        await promote(self.desk.registry, self.deploying, "wine", number, **given)
        self.look()

    async def order(self, kind, **more):
        given = {"author": "bob", "reason": "I say so", "at": time.time()} | more
        asked = await self.deploying.order("wine", kind, **given)
        self.look()
        await self.until(lambda: self._outcome(asked.id), f"{kind} is seen to")
        return await self._outcome(asked.id)

    async def _outcome(self, order_id):
        return (await self.deploying.find_order(order_id)).outcome

    async def alias(self):
        return (await self.desk.registry.state()).get("wine", {}).get("production")

    async def until(self, true, what):
        end_at = time.monotonic() + WITHIN_S * patience()
        while not await true():
            assert time.monotonic() < end_at, f"{what}: {await self.deploying.rollouts('wine')}"
            await asyncio.sleep(0.02)

    async def ended(self, version, state="done"):
        async def over():
            return any(
                each.to_version == version and each.state == state
                for each in await self.deploying.rollouts("wine")
            )

        await self.until(over, f"{version} {state}")
        return next(
            each for each in await self.deploying.rollouts("wine") if each.to_version == version
        )

    async def serves(self, version):
        async def alone():
            return bool(self.routes) and self.routes[-1].shares == (Share(version, WHOLE),)

        await self.until(alone, f"{version} has all calls")


@pytest.fixture
async def town(tmp_path, monkeypatch):
    monkeypatch.setattr("headrace.deploy.evidence.WARM_S", 0.2)
    monkeypatch.setattr("headrace.deploy.hear.LASTS_S", 0.5)
    monkeypatch.setattr("headrace.deploy.deployed.SETTLE_S", 0.3)
    monkeypatch.setattr("headrace.deploy.deployed.JUDGE_EVERY_S", 0.2)
    async with opened(f"sqlite:///{tmp_path}/house.db") as store:
        made = Town(store, tmp_path)
        playing = asyncio.create_task(made.play())
        yield made
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await made.voice.close()


async def test_from_our_own_files_to_a_version_and_by_steps_to_the_next(town):
    await town.register(1)
    await town.register(2)
    async with town.deployer():
        await town.serves(0)
        assert town.hands.counts == {"wine": 2}
        await town.promote(1, "the first")
        first = await town.ended(1)
        assert (first.strategy, first.author, first.reason) == ("blue-green", "ann", "the first")
        await town.promote(2)
        second = await town.ended(2)
        kinds = [event.kind for event in await town.deploying.events(second.id)]
        assert kinds == ["started", "step", "promoting", "keeping", "done"]
        assert second.figures["errors"]["verdict"] == "good"

        async def retired():
            return town.hands.counts == {"wine": 0, "wine@2": 2}

        await town.until(retired, "the others are gone")
    parts = [(route.shares, route.watched) for route in town.routes]
    assert parts == [
        ((Share(0, WHOLE),), False),
        ((Share(0, WHOLE),), True),
        ((Share(0, 0), Share(1, WHOLE)), True),
        ((Share(1, WHOLE),), False),
        ((Share(1, WHOLE),), True),
        ((Share(1, 7500), Share(2, 2500)), True),
        ((Share(1, 0), Share(2, WHOLE)), True),
        ((Share(2, WHOLE),), False),
    ]
    states = {each.version: each.state for each in await town.deploying.deployments("wine")}
    assert states == {0: "retired", 1: "retired", 2: "serving"}
    assert [each.state for each in town.told] == ["started", "done", "started", "done"]


async def test_a_version_that_fails_loses_its_calls_and_the_alias(town):
    for number in (1, 2, 3):
        await town.register(number)
    town.failing.add(2)
    async with town.deployer(steps=(25.0, 50.0)):
        await town.promote(1)
        await town.ended(1)
        await town.promote(2)
        back = await town.ended(2, "rolled-back")
        assert back.why.startswith("errors: ")

        async def returned():
            return await town.alias() == 1

        await town.until(returned, "the alias is back")
        assert (await town.deploying.entries("wine"))[0].author == "headrace"
        assert max(s.of_whole for r in town.routes for s in r.shares if s.version == 2) <= 5000
        town.sick[3] = "golden call: got 3, expected 4"
        await town.promote(3)
        back = await town.ended(3, "rolled-back")
        assert "golden call: got 3" in back.why
        await town.until(returned, "the alias is back again")
        town.failing.clear()
        await town.promote(2, "mended, says bob")
        assert (await town.ended(2)).reason == "mended, says bob"
    rolled = [each for each in await town.deploying.rollouts("wine") if each.to_version == 2]
    assert [each.state for each in rolled] == ["done", "rolled-back"]


async def test_files_that_are_not_what_was_registered_never_get_a_worker(town):
    await town.register(1)
    bad = await town.register(2)
    [weights] = town.desk.registry.folder.glob("wine/2/files/w.safetensors")
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    async with town.deployer(alias_back=False):
        await town.promote(1)
        await town.ended(1)
        await town.promote(2)
        back = await town.ended(2, "rolled-back")
        assert "is not what was registered" in back.why
        assert bad.digest[:19] in back.why
        for _ in range(20):
            town.look()
            await asyncio.sleep(0.02)
        assert "wine@2" not in town.hands.counts
        assert await town.alias() == 2, "nobody took it back"
        assert len(await town.deploying.rollouts("wine")) == 2, "it is not tried again"
        assert await town.order("start") != "yes"


async def test_a_new_house_whose_production_is_refused_serves_its_own_files_and_says_so(town):
    await town.register(1)
    await town.promote(1)
    [weights] = town.desk.registry.folder.glob("wine/1/files/w.safetensors")
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    async with town.deployer(alias_back=False):
        await town.serves(0)
        back = await town.ended(1, "rolled-back")
        assert (back.from_version, "is not what was registered" in back.why) == (0, True)
        assert [each.state for each in town.told] == ["started", "rolled-back"]
    assert town.hands.counts == {"wine": 2}


async def test_of_two_deployers_and_a_hundred_hints_one_rollout_comes(town):
    for number in (1, 2, 3):
        await town.register(number)
    async with town.deployer(), town.deployer():
        await town.promote(1)
        await town.ended(1)
        for number in (2, 3, 2, 1, 2, 3):  # as they come: out of order, again and again
            await town.promote(number)
        for _ in range(100):
            town.look()
            await asyncio.sleep(0)
        await town.ended(3)
        await town.serves(3)
        assert await town.alias() == 3
    rollouts = await town.deploying.rollouts("wine")
    assert [each.to_version for each in rollouts if each.state == "done"] == [3, 1]
    assert await town.deploying.open_rollout("wine") is None


async def test_what_the_old_version_is_given_meanwhile_the_new_one_gets_too(town, monkeypatch):
    monkeypatch.setattr("headrace.deploy.apply.BELIEVED_S", 0.1)
    await town.register(1)
    await town.register(2)
    async with town.deployer(keep_s=0.5):
        await town.promote(1)
        await town.ended(1)
        assert town.hands.counts["wine@1"] == 2
        await town.promote(2)

        async def stepped():
            return town.routes[-1].shares[-1].version == 2

        await town.until(stepped, "2 has a share")
        assert await town.order("pause") == "yes"
        town.hands.counts["wine@1"] = 5  # by the autoscaler, as the shops open
        await asyncio.sleep(0.3)
        assert await town.order("resume") == "yes"
        await town.serves(2)
        assert town.hands.counts["wine@2"] == 5, "before it had all calls"
        await town.ended(2)
        assert town.hands.counts["wine@2"] == 5


async def test_worker_by_worker_it_shares_out_what_the_autoscaler_wants(town):
    """The old version's workers go one by one, whatever came before; as the shops open there are
    more of both."""
    await town.register(1)
    await town.register(2)
    made = Made(
        model="wine", minute=int(time.time() // 60), at=time.time(), mode="act", count=9, asked=2,
        reason="before",
    )  # fmt: skip
    await town.scaling.put_decision(made)
    async with town.deployer(strategy="rolling", hold_s=1.5):
        await town.promote(1)
        await town.ended(1)
        await town.promote(2)

        def counts():
            return [town.hands.counts.get(workload) for workload in ("wine@1", "wine@2")]

        async def stepped():
            return counts() == [1, 1]

        await town.until(stepped, "a worker of each")
        assert await town.order("pause") == "yes"
        later = structs.replace(made, minute=made.minute + 1, at=time.time(), count=4)
        await town.scaling.put_decision(
            structs.replace(later, minute=made.minute + 2, mode="advise")
        )
        await town.scaling.put_decision(later)

        async def grown():
            return counts() == [3, 1]

        await town.until(grown, "the old one has the others")
        assert town.routes[-1].shares == (Share(1, 7500), Share(2, 2500))
        assert await town.order("resume") == "yes"
        await town.ended(2)
        assert town.hands.counts["wine@2"] == 4


async def test_a_person_pauses_goes_on_and_takes_back_what_is_done(town):
    await town.register(1)
    await town.register(2)
    async with town.deployer():
        await town.promote(1)
        await town.ended(1)
        assert await town.order("pause") == "no: no rollout is open"
        assert await town.order("start", version=1) == "no: version 1 serves already"
        assert await town.order("start", version=2, strategy="shadow") == "yes"

        async def shown():
            return town.routes[-1].shadow == 2

        await town.until(shown, "2 is shown calls")
        assert town.routes[-1].shares == (Share(1, WHOLE),)
        assert await town.order("start", version=2) == "no: it is under way"
        assert await town.order("pause") == "yes"
        assert (await town.deploying.open_rollout("wine")).paused
        assert await town.order("resume") == "yes"
        assert await town.order("promote") == "yes"
        await town.ended(2)

        async def followed():
            return await town.alias() == 2

        await town.until(followed, "the alias follows a person's choice")
        assert (await town.deploying.entries("wine"))[0].author == "bob"
        assert await town.order("rollback") == "yes"
        await town.serves(1)

        async def returned():
            return await town.alias() == 1

        await town.until(returned, "the alias follows back")


async def test_whatever_is_away_calls_go_on_as_they_are(town):
    await town.register(1)
    await town.register(2)
    registry = town.desk.registry.folder
    hidden = registry.with_name("hidden")
    async with town.deployer():
        await town.promote(1)
        await town.ended(1)
        await town.serves(1)
        town.door.away = True
        await town.promote(2)
        said = len(town.routes)
        heard = []
        await town.voice.listen(TO_GATEWAYS, heard.append)
        town.look()

        async def again():
            return sum(isinstance(read_announcement(data), Route) for data in heard) >= 2

        await town.until(again, "the route is said without the database")
        assert len(town.routes) == said, "and nothing is decided"
        registry.rename(hidden)
        registry.write_text("no folder")  # all questions fail
        town.hands.down = True
        town.door.away = False
        town.look()
        await asyncio.sleep(0.3)
        registry.unlink()  # a folder that is not mounted: empty, by its own word
        town.look()
        await asyncio.sleep(0.3)
        assert [each.to_version for each in await town.deploying.rollouts("wine")] == [1]
        hidden.rename(registry)
        town.look()

        async def begun():
            return await town.deploying.open_rollout("wine") is not None

        await town.until(begun, "the rollout begins")
        town.hands.down = False
        await town.ended(2)


async def test_who_is_started_anew_goes_on_where_it_was(town):
    await town.register(1)
    await town.register(2)
    async with town.deployer(hold_s=60.0, wait_s=60.0):
        await town.promote(1)
        await town.ended(1)
        await town.promote(2)

        async def stepped():
            return len(town.routes[-1].shares) == 2

        await town.until(stepped, "a share")
    stands = await town.deploying.open_rollout("wine")
    town.hands.counts.clear()  # the house was, too
    async with town.deployer():
        await town.ended(2)
    assert (await town.deploying.rollouts("wine"))[0].id == stands.id
    assert town.hands.counts["wine@2"] == 2


async def test_who_moves_the_alias_before_it_goes_back_is_not_undone(town, monkeypatch):
    """Deploy saw 2, which was rolled back; by the time that it moves the alias a person has."""
    for number in (1, 2, 3):
        await town.register(number)
    town.failing.add(2)
    asked = []

    async def late(registry, audit, model, number, **given):
        asked.append((number, given["seen"]))
        if len(asked) == 1:
            await registry.point(model, "production", 3)
        return await promote(registry, audit, model, number, **given)

    async with town.deployer():
        await town.promote(1)
        await town.ended(1)
        monkeypatch.setattr("headrace.deploy.deployed.promote", late)
        await town.promote(2)
        await town.ended(2, "rolled-back")
        await town.ended(3)
        await town.serves(3)
        assert await town.alias() == 3
    assert set(asked) == {(1, 2)}, "it was to go back to 1, from 2"
    by = [(entry.author, entry.to) for entry in await town.deploying.entries("wine")]
    assert ("headrace", 1) not in by, "nothing is written down of what was not done"
