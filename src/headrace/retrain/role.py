"""One retrainer: asks for the runs that the policies want, runs them, and promotes what passed.

    database --alarms, past trainings--> decide --> database, trigger --> serve: a process a run
                                                                             |
    deploy <--look-- registry <--promote-- outcome <-------------------------+

Two may look at once: a wish is one row, and one run. Whatever is away, nothing is started or ended
meanwhile, and what is served goes on. A run is a process of its own: neither its memory nor its
end is this one's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypedDict

import structlog

from headrace.announce import LOOK, TO_DEPLOY
from headrace.broker.port import Broker
from headrace.deployments import Rollout
from headrace.errors import Conflict, Refusal
from headrace.notify.notice import Notice, retraining
from headrace.pipeline.durable import Engine
from headrace.pipeline.place import Place, place
from headrace.pipeline.run import ENDED, Run, id_of, seen
from headrace.pipeline.seam import SeamError, trigger
from headrace.pipeline.serve import command_for, serve
from headrace.pipeline.track import RunUnknown
from headrace.registry.choose import desk
from headrace.registry.port import PRODUCTION, Registry
from headrace.registry.promote import promote
from headrace.registry.version import MANIFEST
from headrace.retrain.decide import Raised, Start, decide
from headrace.retrain.outcome import outcome, stayed
from headrace.retraining import Retrain, Training
from headrace.settings import Settings
from headrace.store.deploying import Deploying
from headrace.store.door import StoreDoor
from headrace.store.engine import Database
from headrace.store.retraining import Trainings
from headrace.store.scaling import Scaling

log = structlog.get_logger("headrace.retrain")

LOOK_EVERY_S = 1.0
SERVE_EVERY_S = 1.0
AGAIN_S = 5.0  # until runs are served again, where their database was away
#: In whose name aliases are moved, and who runs are asked for by.
AUTHOR, ASKED_BY = "headrace", "retrain"


class Retrainer:
    def __init__(
        self,
        settings: Settings,
        file: str,
        broker: Broker,
        door: StoreDoor,
        tell: Callable[[Notice], object],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`file`: the settings file, which each run reads again. `tell` neither waits nor
        raises."""
        self._settings, self._file = settings, file
        self._broker, self._door, self._tell, self._now = broker, door, tell, now
        self._policies = {
            name: model.retrain for name, model in settings.models.items() if model.retrain
        }
        self._since = now()
        self._said: dict[str, str] = {}  # the last sentence of each model
        self._leaving = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._place: Place | None = None

    async def open(self) -> None:
        """Raises ImportError that says what to install."""
        self._place = await asyncio.to_thread(place, self._settings)
        self._tasks = [
            asyncio.create_task(self._keep_looking()),
            asyncio.create_task(self._keep_serving()),
        ]
        log.info("watching", models=list(self._policies))

    async def drain(self) -> None:
        """A run that goes on is stopped; it goes on behind its last step when somebody serves
        again."""
        self._leaving.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._place:
            await asyncio.to_thread(self._place.tracker.close)
        log.info("left")

    # -- runs ----------------------------------------------------------------------------------

    async def _keep_serving(self) -> None:
        while not self._leaving.is_set():
            try:
                await asyncio.to_thread(self._serve)
            except Exception:
                log.exception("runs are not served")
                await self._pause(AGAIN_S)

    def _serve(self) -> None:
        """Also what others have asked for."""
        here = place(self._settings)
        with contextlib.closing(here.tracker), Engine(here).open() as engine:
            command = command_for(self._file)
            serve(engine, command, self._leaving.is_set, SERVE_EVERY_S, self._limit_s)

    def _limit_s(self, run: Run) -> float:
        own = [p.limit_s for p in self._policies.values() if p.pipeline == run.target]
        return max(own) if own and run.asked_by == ASKED_BY else float("inf")

    # -- the look ------------------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        while not self._leaving.is_set():
            await self.look()
            await self._pause(LOOK_EVERY_S)

    async def look(self) -> None:
        """At every model once. What befalls one is its own."""
        for model, policy in self._policies.items():
            try:
                await self._one((await self._door.open()).database, model, policy)
            except Refusal as refusal:
                self._say(model, f"not looked at: {refusal.detail}")
            except Exception:
                log.exception("a look failed", model=model)

    async def _one(self, database: Database, model: str, policy: Retrain) -> None:
        trainings = Trainings(database)
        past = await trainings.of(model)
        for training in past:
            if training.ended is None:
                await self._follow(database, training, policy)
                return
        alarms = await Scaling(database).alarms(model, open_only=True)
        rolled = await Deploying(database).rollouts(model, 1)
        found = decide(
            policy,
            self._now(),
            past,
            [Raised(each.id, each.name, each.began, each.detail) for each in alarms],
            since=self._since,
            **rolling(rolled[0] if rolled else None),
        )
        if isinstance(found, Start):
            await self._start(trainings, model, policy, found)
        else:
            self._say(model, found.reason)

    async def _start(self, trainings: Trainings, model: str, policy: Retrain, start: Start) -> None:
        before = await self._production(model)
        key = f"{model} {start.key}"
        training = Training(
            model=model,
            key=start.key,
            at=self._now(),
            reason=start.reason,
            run=id_of(key, policy.pipeline),
            before=before or 0,
        )
        if not await trainings.begin(training):
            return  # another was first
        log.info("trains", model=model, run=training.run, reason=start.reason)
        text = f"is trained again, run {training.run}: {start.reason}"
        self._tell(retraining(model, "started", text, training.at, run=training.run))
        await self._asked(training, policy)

    async def _asked(self, training: Training, policy: Retrain) -> Run:
        """Its run, which is asked for where it is not yet: whoever wrote the row may have died."""
        assert self._place
        tracker = self._place.tracker
        try:
            return await asyncio.to_thread(tracker.get, training.run)
        except RunUnknown:
            return await asyncio.to_thread(
                trigger,
                self._place,
                policy.pipeline,
                Path(self._settings.folder),
                policy.params,
                f"{training.model} {training.key}",
                ASKED_BY,
            )

    # -- the end of a run ----------------------------------------------------------------------

    async def _follow(self, database: Database, training: Training, policy: Retrain) -> None:
        try:
            run = await self._asked(training, policy)
        except SeamError as error:  # the parameters were changed meanwhile
            log.error("not followed", model=training.model, run=training.run, reason=str(error))
            return
        state = seen(run)
        if state not in ENDED:
            self._say(training.model, f"run {run.id} is {state}")
            return
        came = outcome(training, run, policy.then)
        if came.state == "promoted":
            came = await self._promoted(database, came)
        if not await Trainings(database).end(came):
            return  # another was first
        log.info("trained", model=came.model, run=run.id, state=came.state, outcome=came.outcome)
        assert came.ended is not None
        self._tell(retraining(came.model, came.state, came.outcome, came.ended, run=run.id))

    async def _promoted(self, database: Database, came: Training) -> Training:
        """Raises Unavailable: it is tried again."""
        model, audit = came.model, Deploying(database)
        if any(each.to_version == came.version for each in await audit.barred(model)):
            return stayed(came, "it was rolled back before")
        reason = f"trained again by run {came.run}: {came.reason}"
        if any(
            each.author == AUTHOR
            and each.to == came.version
            and each.outcome == "done"
            and each.at >= came.at
            for each in await audit.entries(model)
        ):
            return came  # whoever did it died before it was written down here
        async with self._registry() as registry:
            if came.before and await _same_files(registry, model, came.version, came.before):
                return stayed(came, f"its files are those of version {came.before} in production")
            try:
                await promote(
                    registry, audit, model, came.version, alias=self._alias(model),
                    author=AUTHOR, reason=reason[:1000], seen=came.before or None,
                )  # fmt: skip
            except Conflict as refusal:
                if await self._production(model) != came.version:  # another retrainer was first
                    return stayed(came, refusal.detail)
        self._broker.send(TO_DEPLOY, LOOK)
        return came

    async def _production(self, model: str) -> int | None:
        async with self._registry() as registry:
            return (await registry.state()).get(model, {}).get(self._alias(model))

    @contextlib.asynccontextmanager
    async def _registry(self) -> AsyncIterator[Registry]:
        registry = desk(self._settings).registry
        await registry.open()
        try:
            yield registry
        finally:
            await registry.close()

    def _alias(self, model: str) -> str:
        deploy = self._settings.models[model].deploy
        return deploy.alias if deploy else PRODUCTION

    def _say(self, model: str, sentence: str) -> None:
        """Each once, and not every second."""
        if self._said.get(model) != sentence:
            self._said[model] = sentence
            log.info("waits", model=model, reason=sentence)

    async def _pause(self, seconds: float) -> bool:
        """True where it is time to leave."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), seconds)
        return self._leaving.is_set()


class Rolling(TypedDict):
    moving: str
    settled: float


def rolling(last: Rollout | None) -> Rolling:
    """What `decide` is told of the last rollout."""
    if last is None:
        return Rolling(moving="", settled=0.0)
    moving = f"version {last.to_version} is rolled out" if last.ended is None else ""
    return Rolling(moving=moving, settled=last.ended or 0.0)


async def _same_files(registry: Registry, model: str, one: int, other: int) -> bool:
    """All but what is said of them."""
    files = [
        {file for file in (await registry.get(model, number)).files if file.path != MANIFEST}
        for number in (one, other)
    ]
    return files[0] == files[1]
