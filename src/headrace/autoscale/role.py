"""One autoscale process: hears the house, and says each minute how many workers a model has.

    broker --> Observer --minute--> Watch --decision--> database --> Apply --> orchestrator
                                      ^ overrides, start-up times      `-> people are told

Two may run at once: a minute's decision is whose row was first, and only that one applies it.
Whatever is away, the counts stand: without the database nothing is decided, without the
orchestrator nothing is applied, and without either all workers go on as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

import msgspec
import structlog

from headrace.announce import TO_GATEWAYS, TO_WORKERS, read_announcement
from headrace.autoscale.apply import DONE, Apply
from headrace.autoscale.observe import MINUTE_S, Observer
from headrace.autoscale.pace import Pace
from headrace.autoscale.scaled import Scaled
from headrace.autoscale.watch import Standing
from headrace.broker.port import Broker
from headrace.deployments import workload_of
from headrace.errors import Refusal
from headrace.notify.notice import Notice
from headrace.orchestrator.port import Orchestrator
from headrace.settings import Settings
from headrace.store.deploying import Deploying
from headrace.store.door import StoreDoor
from headrace.store.scaling import Minute, Scaling

log = structlog.get_logger("headrace.autoscale")

LOOK_EVERY_S = 1.0
LATE_S = 1.5  # after a minute's end, gateways have told of it
UNSAVED_MOST = 10_000  # minutes, of all models, that wait for the database
REMOVE_EVERY_MIN = 60


class Autoscale:
    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        door: StoreDoor,
        orchestrator: Orchestrator | None,
        tell: Callable[[Notice], object],
        pace: Pace | None = None,
    ) -> None:
        """`tell` neither waits nor raises. `pace`: of a day that is to be over sooner."""
        self._settings, self._broker, self._door = settings, broker, door
        self._mode, self._tell, self._pace = settings.autoscale.mode, tell, pace or Pace()
        self._apply = Apply(self._mode, orchestrator)
        self._models = {
            name: Scaled(policy, self._mode) for name, policy in settings.policies().items()
        }
        self._deployed = {name for name, model in settings.models.items() if model.deploy}
        self._observer = Observer(
            self._models, self._pace.now(), speed=self._pace.speed, on_ready=self._on_ready
        )
        self._unsaved: deque[Minute] = deque(maxlen=UNSAVED_MOST)
        self._took: list[tuple[str, float, float]] = []  # model, when, start-up time
        self._minutes = 0
        self._leaving = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        await self._broker.listen(TO_GATEWAYS, self._hear)
        self._broker.send(TO_WORKERS, b"who")
        self._tasks = [
            asyncio.create_task(self._keep_looking()),
            asyncio.create_task(self._keep_deciding()),
        ]
        log.info("watching", models=list(self._models), mode=self._mode)

    async def drain(self) -> None:
        """What is being decided is finished."""
        self._leaving.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        log.info("left")

    # -- the ear -------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        try:
            news = read_announcement(data)
        except msgspec.DecodeError as error:
            log.warning("not understood", reason=str(error))
            return
        self._observer.hear(news, self._pace.now())

    def _on_ready(self, model: str, at: float) -> None:
        watched = self._models.get(model)
        took_s = watched.starts.ready(at) if watched else None
        if took_s is not None:
            self._took.append((model, at, took_s))

    async def _keep_looking(self) -> None:
        every_s = min(LOOK_EVERY_S, self._pace.real_s(MINUTE_S) / 4)
        while not self._leaving.is_set():
            self._observer.look(self._pace.now())
            await self._pause(every_s)

    # -- the minute ----------------------------------------------------------------------------

    async def _keep_deciding(self) -> None:
        late_s = min(LATE_S, self._pace.real_s(MINUTE_S) * 0.3)
        while not self._leaving.is_set():
            now = self._pace.now()
            left_s = self._pace.real_s(MINUTE_S - now % MINUTE_S)
            if await self._pause(left_s + late_s):
                return
            try:
                await self.minute()
            except Refusal as refusal:
                log.warning("the counts stand", reason=refusal.detail)
            except Exception:
                log.exception("a minute failed: the counts stand")

    async def minute(self) -> None:
        """Closes the minutes that are over, and decides of the one that began. Raises Unavailable
        where the database is away."""
        now, measured_at = self._pace.now(), self._observer.measured_at()
        closed = self._observer.close(int(now // MINUTE_S))
        self._unsaved.extend(self._models[minute.model].hear(minute) for minute in closed)
        scaling = Scaling((await self._door.open()).database)
        await self._save(scaling)
        await asyncio.gather(
            *(self._one(scaling, model, now, measured_at) for model in self._models.values())
        )
        self._minutes += 1
        if self._minutes % REMOVE_EVERY_MIN == 1:
            await scaling.remove_old(now - self._settings.autoscale.keep_days * 86_400)

    async def _save(self, scaling: Scaling) -> None:
        unsaved = list(self._unsaved)
        await scaling.put_minutes(unsaved)
        for _ in unsaved:
            self._unsaved.popleft()
        while self._took:
            await scaling.put_start(*self._took[0])
            del self._took[0]

    async def _one(self, scaling: Scaling, model: Scaled, now: float, measured_at: float) -> None:
        """What befalls one model is its own."""
        try:
            await self._decide(scaling, model, now, measured_at)
        except Refusal as refusal:
            log.warning("the count stands", model=model.policy.model, reason=refusal.detail)
        except Exception:
            log.exception("no decision: the count stands", model=model.policy.model)

    async def _decide(
        self, scaling: Scaling, model: Scaled, now: float, measured_at: float
    ) -> None:
        name = model.policy.model
        watch = await model.load(scaling, now)
        for notice in await model.settle(scaling, now):
            self._tell(notice)
        workload, rolling, shared = await self._placed(name)
        if rolling:
            model.starts.forget()
        status, why = await self._apply.status(workload)
        hands = await scaling.overrides(name, now)
        standing = Standing(
            shared or (status.desired if status else None),
            moving=rolling or bool(status and status.moving),
            shared=shared,
            overrides=tuple(each.override() for each in hands),
            starts=await scaling.starts(name),
        )
        made, forecasted = watch.decide(standing, now, measured_at)
        row = model.row(made, forecasted, watch.asked)
        if not await scaling.put_decision(row):
            return  # another was first, and applies its own
        outcome = await self._apply(made, workload, status, why, by_rollout=bool(shared))
        if outcome == DONE and status is not None and not rolling:
            model.starts.asked(status.desired, made.count, self._pace.now())
        await scaling.applied(name, row.minute, outcome)
        if row.count != row.asked:
            log.info("decided", model=name, reason=row.reason, applied=outcome)
        for notice in model.notices(row, outcome, hands):
            self._tell(notice)

    async def _placed(self, name: str) -> tuple[str, bool, int]:
        """Whose workers are counted: those of the version that has most calls. Whether one is being
        rolled out. And the workers that the rollout shares out among its two versions: then only
        their sum is decided, and deploy asks for both; 0: it does not."""
        if name not in self._deployed:
            return name, False, 0
        deploying = Deploying((await self._door.open()).database)
        standing = await deploying.standing(name)
        rollout, shared = standing.rollout, 0
        if rollout is not None and rollout.is_shared_out:
            shared = standing.deployments[rollout.from_version].count
        version = standing.route.most if standing.route else 0
        return workload_of(name, version), rollout is not None, shared

    async def _pause(self, seconds: float) -> bool:
        """True where it is time to leave."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), seconds)
        return self._leaving.is_set()
