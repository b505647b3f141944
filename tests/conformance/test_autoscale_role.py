"""The autoscale role over a real database: two at once, and what is away, and comes back."""

import asyncio
import contextlib

import pytest

from headrace.announce import TO_GATEWAYS, Announcement, Outstanding, announcement_bytes
from headrace.autoscale.role import Autoscale
from headrace.broker.memory import MemoryBroker
from headrace.deployments import WHOLE, Deploy, Deployment, Rollout, Route, Share
from headrace.errors import Conflict, Unavailable
from headrace.orchestrator.port import Status
from headrace.policy import Node, Policy
from headrace.records import new_id
from headrace.settings import AutoscaleSettings, ModelSettings, Settings
from headrace.store.deploying import Change, Deploying
from headrace.store.scaling import Minute, Scaling

from .stored import opened

M = 29_460_000  # on a cycle
POLICY = Policy(node=Node(workers=1, service_s=0.5), most=40, cycle_min=1)


class Hands:
    """An orchestrator, or none: it does at once what it is asked to."""

    def __init__(self, count=5):
        self.count, self.moving, self.scaled, self.down = count, False, [], None
        self.asked = set()

    async def status(self, workload):
        self.asked.add(workload)
        if self.down:
            raise self.down
        return Status(self.count, self.count, self.count, self.moving, str(self.count))

    async def scale(self, workload, count, reason, seen=None):
        if self.down:
            raise self.down
        if seen and seen.token != str(self.count):
            raise Conflict("somebody else was quicker")
        self.count = count
        self.scaled.append(count)


class Clock:
    """As a Pace, set by hand."""

    speed = 1.0

    def __init__(self):
        self.at = M * 60.0

    def now(self):
        return self.at

    def real_s(self, policy_s):
        return 3_600.0  # its minutes are the test's to make


class Door:
    def __init__(self, store):
        self.store = store

    async def open(self):
        return self.store


class Town:
    """A store, a broker, an orchestrator, a clock, and autoscalers."""

    def __init__(self, store):
        self.store, self.scaling = store, Scaling(store.database)
        self.hands, self.clock, self.told = Hands(), Clock(), []
        self.url = f"memory://{new_id()}"
        self.voice = MemoryBroker(self.url)
        self.arrived = 0

    @contextlib.asynccontextmanager
    async def autoscaler(self, mode="act", deploy=None, **scale):
        policy = {name: getattr(POLICY, name) for name in POLICY.__struct_fields__} | scale
        model = ModelSettings(target="m:M", scale=Policy(**policy), deploy=deploy)
        settings = Settings(autoscale=AutoscaleSettings(mode=mode), models={"ocr": model})
        broker = MemoryBroker(self.url)
        await broker.open()
        role = Autoscale(
            settings, broker, Door(self.store), self.hands, self.told.append, self.clock
        )
        await role.open()
        try:
            yield role
        finally:
            await role.drain()
            await broker.close()

    async def minute(self, *roles, calls=None, looks=6):
        """The house tells of `calls` in a minute (None: it is silent), then it is over."""
        for _ in range(looks):
            self.clock.at += 60 / looks
            if calls is not None:
                self.arrived += calls // looks
                self.say(Outstanding("g", {}, {"ocr": self.arrived}, up_s=9e4))
            self.say(Announcement("w", "ocr", True, "", None, 5, 5, 2, 2, 0, True, 500.0, 0.0, 1))
            await asyncio.sleep(0)
            for role in roles:
                role._observer.look(self.clock.now())
        await asyncio.gather(*(role.minute() for role in roles), return_exceptions=True)

    def say(self, news):
        self.voice.send(TO_GATEWAYS, announcement_bytes(news))

    async def last(self):
        return (await self.scaling.decisions("ocr", 1))[0]


@pytest.fixture
async def town(tmp_path):
    async with opened(f"sqlite:///{tmp_path}/house.db") as store:
        made = Town(store)
        await made.voice.open()
        yield made
        await made.voice.close()


#: Of 60 s in steps of 10 the minute before is told to its end only if looked at more often.
OFTEN = 60


async def busy(town, *roles, minutes=4, calls=1_200):
    for _ in range(minutes):
        await town.minute(*roles, calls=calls, looks=OFTEN)


async def test_it_acts_and_keeps_why(town):
    async with town.autoscaler() as role:
        await busy(town, role)
    last = await town.last()
    assert town.hands.count > 11, "20 calls a second, half a second each"
    assert last.applied == "yes" and last.mode == "act" and last.inputs["rate"] == 20.0
    seen = await town.scaling.calls("ocr", M)
    assert [calls for _, calls in seen[1:]] == [1_200.0] * 3
    assert [notice.kind for notice in town.told] == ["decision"] * len(town.hands.scaled)


async def test_a_minute_is_decided_once_by_two(town):
    async with town.autoscaler() as one, town.autoscaler() as other:
        await busy(town, one, other, minutes=6)
    decisions = await town.scaling.decisions("ocr")
    assert len(decisions) == 6
    assert len(town.hands.scaled) == len({made.count for made in decisions}), "none twice"
    assert all(made.applied == "yes" for made in decisions)


@pytest.mark.parametrize("mode", ["shadow", "advise"])
async def test_the_other_modes_change_nothing(town, mode):
    async with town.autoscaler(mode) as role:
        await busy(town, role, minutes=5)
    assert town.hands.scaled == []
    last = await town.last()
    assert last.count > 11 and last.asked == 5 and last.applied == f"no: {mode}"
    assert [notice.text for notice in town.told if notice.kind == "decision"] == (
        [] if mode == "shadow" else [f"{town.told[0].text}"]
    ), "advice is given once, as long as it stays the same"


async def test_an_orchestrator_that_is_away_leaves_the_count_and_people_are_told(town):
    town.hands.down = Unavailable("nobody answers")
    async with town.autoscaler() as role:
        await busy(town, role)
        assert (await town.last()).applied == "no: nobody answers" and town.hands.count == 5
        assert [(n.kind, n.state) for n in town.told] == [("failing", "began")]
        town.hands.down = None
        await busy(town, role, minutes=1)
    assert town.hands.count > 11
    assert ("failing", "ended") in [(n.kind, n.state) for n in town.told]


async def test_a_refusal_and_a_bug_of_it_leave_the_count(town):
    async with town.autoscaler() as role:
        for down in (Conflict("rolling out"), RuntimeError("a bug")):
            town.hands.down = down
            await busy(town, role, minutes=2)
            assert (await town.last()).applied.startswith("no: ")
    assert town.hands.count == 5


async def test_the_workers_of_the_version_that_serves_are_scaled(town):
    """And while another is rolled out, nothing is lowered."""
    deploying = Deploying(town.store.database)
    route = Route("ocr", 1, (Share(3, WHOLE),))
    await deploying.commit(Change(model="ocr", route=route))
    async with town.autoscaler(deploy=Deploy()) as role:
        await busy(town, role)
        assert town.hands.count > 11 and town.hands.asked == {"ocr@3"}
        to_4 = Rollout(
            id="r", model="ocr", from_version=3, to_version=4, strategy="canary", author="ann",
            reason="better", started=0.0, updated=0.0, since=0.0, state="keeping",
        )  # fmt: skip
        route = Route("ocr", 2, (Share(3, 0), Share(4, WHOLE)))
        await deploying.commit(Change(model="ocr", rollout=to_4, route=route))
        town.hands.count = 30
        await busy(town, role, minutes=1)
        said = Announcement("new", "ocr", True, "", None, 1, 1, 0, 0, 0, True, 500.0, 0.0, 1)
        town.say(said)
        await busy(town, role, minutes=3)
        assert await town.scaling.starts("ocr") == [], "deploy had asked for it"
        assert town.hands.count == 30
        assert "a version is being rolled out" in (await town.last()).reason
        assert town.hands.asked == {"ocr@3", "ocr@4"}


async def test_worker_by_worker_deploy_asks_for_both_and_only_their_sum_is_decided(town):
    deploying = Deploying(town.store.database)
    rolling = Rollout(
        id="r", model="ocr", from_version=3, to_version=4, strategy="rolling", author="ann",
        reason="better", started=0.0, updated=0.0, since=0.0, state="stepping", step=1,
    )  # fmt: skip
    old = Deployment(model="ocr", version=3, since=0.0, count=5)
    route = Route("ocr", 1, (Share(3, 8000), Share(4, 2000)))
    await deploying.commit(Change(model="ocr", rollout=rolling, route=route, deployments=[old]))
    town.hands.count = 4  # of the old version: the fifth is the new one's
    async with town.autoscaler(deploy=Deploy()) as role:
        await busy(town, role)
        made = await town.last()
        assert town.hands.scaled == [] and (made.asked, made.applied) == (5, "yes")
        assert made.count > 11
        assert (await deploying.standing("ocr")).sized == made.count
        hand = {"author": "ann", "reason": "a sale", "at": town.clock.at}
        await town.scaling.set_override("ocr", "set", 2, expires=town.clock.at + 3600, **hand)
        await busy(town, role, minutes=1)
        made = await town.last()
        assert (made.count, made.applied) == (5, "yes"), "deploy takes none away"
        assert "a rollout shares out 5, 2 when it is over: ann set it to 2" in made.reason
        town.hands.down = RuntimeError("a bug")
        await busy(town, role, minutes=1)
        assert (await town.last()).applied.startswith("no: ")


async def test_during_a_rollout_nothing_is_lowered(town):
    town.hands.count, town.hands.moving = 30, True
    async with town.autoscaler() as role:
        await busy(town, role, calls=120)
        assert town.hands.count == 30 and "rolled out" in (await town.last()).reason
        town.hands.moving = False
        await busy(town, role, minutes=1, calls=120)
    assert town.hands.count < 10


async def test_a_hand_is_obeyed_and_its_end_is_told(town):
    hand = {"author": "ann", "reason": "a sale", "at": town.clock.at}
    await town.scaling.set_override("ocr", "set", 9, expires=town.clock.at + 150, **hand)
    async with town.autoscaler() as role:
        await busy(town, role, minutes=2)
        assert town.hands.count == 9
        await busy(town, role, minutes=2)
    assert town.hands.count > 11
    assert "ann's set of 9 has expired" in [notice.text for notice in town.told]


async def test_silence_lowers_nothing_and_is_an_alarm(town):
    async with town.autoscaler() as role:
        await busy(town, role)
        stood = town.hands.count
        for _ in range(7):
            await town.minute(role)
        assert town.hands.count == stood
        [alarm] = await town.scaling.alarms("ocr", open_only=True)
        assert alarm.name == "arrivals-lost"
        await busy(town, role, minutes=5)
    assert await town.scaling.alarms("ocr", open_only=True) == []
    assert [n.state for n in town.told if n.kind == "alarm"] == ["began", "ended"]


async def test_a_new_life_knows_the_history_the_forecasts_and_the_alarms(town):
    past = [Minute(model="ocr", minute=M - n, calls=600.0) for n in range(1, 2_000)]
    await town.scaling.put_minutes(past)
    await town.scaling.begin_alarm("ocr", "reply-side", town.clock.at, "an hour ago")
    async with town.autoscaler() as role:
        await busy(town, role, minutes=12, calls=600)
        [model] = role._models.values()
        assert len(model._watch.history.before(M + 12)) > 2_000
    assert await town.scaling.alarms("ocr", open_only=True) == []
    assert "season" in (await town.last()).inputs
    settled = [made for made in await town.scaling.forecasts("ocr", M) if made.came is not None]
    assert settled and settled[0].came == 600.0
    async with town.autoscaler() as role:
        await busy(town, role, minutes=1, calls=600)
        [model] = role._models.values()
        assert len(model._watch.foretold.settled().minute) >= len(settled)


async def test_the_database_away_leaves_the_count_and_minutes_are_kept(town):
    async with town.autoscaler() as role:
        await busy(town, role, minutes=2)
        stood = town.hands.count
        town.store.database.down = True
        await busy(town, role, minutes=3, calls=3_000)
        assert town.hands.count == stood
        town.store.database.down = False
        await busy(town, role, minutes=1, calls=3_000)
    assert town.hands.count > stood
    assert len(await town.scaling.minutes("ocr", M)) == 6


async def test_start_up_times_are_measured_and_used(town):
    async with town.autoscaler() as role:
        await busy(town, role)
        said = Announcement("new", "ocr", True, "", None, 1, 1, 0, 0, 0, True, 500.0, 0.0, 1)
        town.clock.at += 20
        town.say(said)
        await asyncio.sleep(0)
        await busy(town, role, minutes=1)
    [took_s] = await town.scaling.starts("ocr")
    assert 20 <= took_s < 400


async def test_figures_that_cannot_be_are_not_kept_either(town):
    async with town.autoscaler() as role:
        await busy(town, role, minutes=2)
        stood = town.hands.count
        await busy(town, role, minutes=3, calls=6_000_000_000)
        assert town.hands.count == stood
    assert [each.calls for each in await town.scaling.minutes("ocr", M + 2)] == [None] * 3
    assert "not-believed" in {alarm.name for alarm in await town.scaling.alarms("ocr")}


async def test_words_that_are_none_are_not_heard(town):
    async with town.autoscaler() as role:
        town.voice.send(TO_GATEWAYS, b"\xff\x00")
        town.voice.send(TO_GATEWAYS, b"who")
        await busy(town, role, minutes=2)
    assert (await town.last()).model == "ocr"
