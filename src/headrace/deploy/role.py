"""One deploy process: hears the house and the registry, and says who gets which calls.

    registry --> Watch --+                            +--> Route: gateways, once a second
    workers  --> Ear ----+--> Deployed --> database --+--> counts: orchestrator
    gateways --> Ledger -+    of a model              `--> people are told

Two may run at once: of two who change a rollout one wins, and both say the same route. Whatever is
away, the calls go on as they are: without the database nothing is decided, without the registry
nothing new begins, without the orchestrator nobody is started or stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import structlog

from headrace.announce import (
    EVERY_S,
    LOOK,
    TO_DEPLOY,
    TO_GATEWAYS,
    TO_WORKERS,
    Announcement,
    Outstanding,
    announcement_bytes,
    read_announcement,
    read_evidence,
)
from headrace.broker.port import Broker
from headrace.deploy.apply import Apply, first_count
from headrace.deploy.deployed import Deployed
from headrace.deploy.traffic import Traffic
from headrace.deploy.watch import Watch
from headrace.deployments import Route
from headrace.errors import Refusal
from headrace.notify.notice import Notice
from headrace.orchestrator.port import Orchestrator
from headrace.registry.choose import Desk
from headrace.settings import Settings
from headrace.store.deploying import Deploying
from headrace.store.door import StoreDoor

log = structlog.get_logger("headrace.deploy")

SOON_S = 0.2  # something moves
IDLE_S = 2.0
AWAY_S = 0.5  # the database is
REMOVE_EVERY_S = 3_600.0
KEEP_DAYS = 180.0  # what is over, and whom it may interest


class DeployRole:
    """Of all models with `deploy`."""

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        door: StoreDoor,
        desk: Desk,
        orchestrator: Orchestrator | None,
        tell: Callable[[Notice], object],
    ) -> None:
        """`tell` neither waits nor raises. The registry of the desk is open."""
        self._broker, self._door = broker, door
        self._watch, self._traffic = Watch(desk, self._wake), Traffic()
        self.models = {
            name: Deployed(
                name,
                ours.deploy,
                first_count(settings, name),
                desk,
                Apply(name, orchestrator),
                self._watch,
                self._traffic,
                zero=settings.autoscale.mode == "act" and bool(ours.scale and not ours.scale.least),
                say=self._say,
                tell=tell,
            )
            for name, ours in settings.models.items()
            if ours.deploy
        }
        self._awake = {name: asyncio.Event() for name in self.models}
        self._leaving = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._away = False

    async def open(self) -> None:
        await self._broker.listen(TO_GATEWAYS, self._hear)
        await self._broker.listen(TO_DEPLOY, self._hear_evidence)
        self._broker.send(TO_WORKERS, b"who")
        self._watch.open()
        self._tasks = [asyncio.create_task(self._keep(each)) for each in self.models.values()]
        self._tasks.append(asyncio.create_task(self._keep_saying()))
        self._tasks.append(asyncio.create_task(self._keep_removing()))
        log.info("watching", models=list(self.models))

    async def drain(self) -> None:
        """What is being decided is finished."""
        self._leaving.set()
        self._wake()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._watch.close()
        for each in self.models.values():
            await each.close()
        log.info("left")

    # -- the ear -------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        try:
            news = read_announcement(data)
        except msgspec.DecodeError as error:
            log.warning("not understood", reason=str(error))
            return
        if isinstance(news, Outstanding):
            self._traffic.hear(news, asyncio.get_running_loop().time())
        elif isinstance(news, Announcement) and news.model in self.models:
            self.models[news.model].hear(news)

    def _hear_evidence(self, data: bytes) -> None:
        if data == LOOK:
            self._watch.look()
            self._wake()
            return
        try:
            said = read_evidence(data)
        except msgspec.DecodeError as error:
            log.warning("not understood", reason=str(error))
            return
        if said.model in self.models:
            self.models[said.model].hear_evidence(said)

    # -- routes --------------------------------------------------------------------------------

    def _say(self, route: Route) -> None:
        self._broker.send(TO_GATEWAYS, announcement_bytes(route))

    async def _keep_saying(self) -> None:
        while not await self._pause(EVERY_S):
            for each in self.models.values():
                if each.route is not None:
                    self._say(each.route)

    # -- decisions -----------------------------------------------------------------------------

    def _wake(self) -> None:
        for event in self._awake.values():
            event.set()

    async def _keep(self, model: Deployed) -> None:
        awake = self._awake[model.model]
        while not self._leaving.is_set():
            awake.clear()
            pause_s = await self._tick(model)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(awake.wait(), pause_s)

    async def _tick(self, model: Deployed) -> float:
        """How long to wait before the next one. What befalls one model is its own."""
        try:
            moves = await model.tick(Deploying((await self._door.open()).database))
        except Refusal as refusal:
            if not self._away:
                log.warning("nothing is decided", model=model.model, reason=refusal.detail)
            self._away = True
            return AWAY_S
        except Exception:
            log.exception("nothing is decided", model=model.model)
            return IDLE_S
        self._away = False
        return SOON_S if moves else IDLE_S

    async def _keep_removing(self) -> None:
        import time

        while not await self._pause(REMOVE_EVERY_S):
            with contextlib.suppress(Refusal):
                deploying = Deploying((await self._door.open()).database)
                await deploying.remove_old(time.time() - KEEP_DAYS * 86_400)

    async def _pause(self, seconds: float) -> bool:
        """True where it is time to leave."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), seconds)
        return self._leaving.is_set()
