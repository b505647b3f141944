"""One clerk process: brings the schema up to date, then keeps the books, round after round.

due jobs --decide--> moved in the database --> published     what is past its time --> removed

Two clerks may run at once: the rows that one looks at are skipped by the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from itertools import product

import structlog

from headrace.announce import (
    TO_GATEWAYS,
    Announcement,
    Backlog,
    Settled,
    announcement_bytes,
    read_announcement,
)
from headrace.broker.port import Broker
from headrace.clerk.decide import decide
from headrace.clerk.deliver import Deliver
from headrace.clerk.follow import Follow
from headrace.clerk.retain import remove_old, remove_orphans, repair
from headrace.clerk.strays import Strays
from headrace.deployments import Route
from headrace.dispatch import post_stored
from headrace.egress import egress_of
from headrace.errors import Refusal, Unavailable
from headrace.failpoints import failpoint
from headrace.records import Due, Move, Priority, Queue, queue_name
from headrace.settings import Settings
from headrace.store.deliveries import Deliveries
from headrace.store.deploying import Deploying
from headrace.store.door import StoreDoor
from headrace.store.engine import Database
from headrace.store.migrate import migrate
from headrace.store.open import Store

log = structlog.get_logger("headrace.clerk")

LOOK_MOST = 500  # jobs in one transaction
RECALL_MOST = 2_000
PARCEL = 8  # jobs in a message: small, so that they spread over the workers
PARCEL_AGAIN = 1  # ... what is late already is not to wait behind its neighbour
TELL_EVERY_S = 1.0
FOLLOW_EVERY_S = 1.0
REMOVE_EVERY_S = 5.0
REPAIR_EVERY_S = 30.0
MIGRATE_S = 600.0
SWEEP_EVERY = 20  # of those rounds


class Clerk:
    def __init__(self, settings: Settings, broker: Broker, door: StoreDoor) -> None:
        self._settings, self._broker, self._door = settings, broker, door
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving = asyncio.Event()
        # Nobody may have been there to hear that the broker came back, or to publish what the books
        # say is published.
        self._recall_asked = True
        self._follow = Follow()
        self._strays = Strays(broker, self._follow)

    async def open(self) -> None:
        store = await self._door.open()
        self._broker.on_restored(self._on_restored)
        await self._broker.listen(TO_GATEWAYS, self._hear)
        self._tasks = [asyncio.create_task(self._work(store))]

    async def _work(self, store: Store) -> None:
        while not self._leaving.is_set():
            try:
                began = time.monotonic()
                if await self._migrate():
                    log.info(
                        "schema brought up to date", took_ms=round((time.monotonic() - began) * 1e3)
                    )
                break
            except Unavailable:
                await self._pause(0.5)
            except Exception:
                log.exception("the schema cannot be brought up to date")
                await self._pause(5.0)
        await asyncio.gather(
            self._keep_books(store),
            self._keep_telling(store),
            self._keep_removing(store),
            self._keep_sweeping(store),
            self._deliver(store),
            self._keep_following(store),
        )

    def _hear(self, data: bytes) -> None:
        news = read_announcement(data)
        if isinstance(news, Route | Announcement):
            self._follow.hear(news)

    async def _migrate(self) -> bool:
        """On a connection of its own, whose patience is that of a table that is made anew."""
        database = Database(self._settings.database_url(), connections=1, timeout_s=MIGRATE_S)
        try:
            return await migrate(database)
        finally:
            await database.close()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._leaving.wait(), seconds)
        except TimeoutError:
            return

    # -- books ---------------------------------------------------------------------------------

    async def _keep_books(self, store: Store) -> None:
        while not self._leaving.is_set():
            more = False
            try:
                more = await self.round(store)
            except Unavailable:
                await self._pause(0.25)
            except Exception:
                log.exception("a round of the books failed")
                await self._pause(1.0)
            if not more:
                await self._pause(self._settings.clerk.every_s)

    async def round(self, store: Store) -> bool:
        """One look at what is due; True where there may be more. Raises Unavailable."""
        models = await store.jobs.due_models()
        if not models:
            return False
        queues: dict[tuple[str, Queue], int] = {}
        for model in {model for model, _ in models}:
            for workload, queue in product(self._follow.workloads(model), Queue):
                with contextlib.suppress(Refusal):
                    depth = await self._broker.depth(queue_name(workload, queue))
                    queues[workload, queue] = depth.waiting
        ageing_s = self._settings.jobs.ageing_s

        def of(job: Due, at: float) -> Move:
            return decide(job, at, queues, ageing_s, self._follow.workload)

        looked = await store.jobs.look(of, LOOK_MOST)
        failpoint("clerk.looked")
        posts: dict[tuple[str, Queue], list[str]] = {}
        for job in looked.postings:
            workload = self._follow.workload(job.model, job.id)
            posts.setdefault((workload, job.queue), []).append(job.id)
        for (workload, queue), ids in posts.items():
            most = PARCEL_AGAIN if queue is Queue.AGAIN else PARCEL
            name = queue_name(workload, queue)
            post_stored(self._broker, name, ids, most, self._not_taken)
        failpoint("clerk.published")
        if looked.ended:
            self._broker.send(TO_GATEWAYS, announcement_bytes(Settled(looked.ended)))
        return looked.due == LOOK_MOST

    def _not_taken(self, refusal: Refusal) -> None:
        """The job is due again by itself."""
        log.debug("not published", code=refusal.code)

    # -- beside --------------------------------------------------------------------------------

    async def _keep_telling(self, store: Store) -> None:
        while not self._leaving.is_set():
            try:
                waiting = await store.jobs.waiting()
                self._broker.send(TO_GATEWAYS, announcement_bytes(Backlog(waiting)))
                if self._recall_asked:
                    self._recall_asked = False
                    await self._recall_all(store)
                for model in waiting:
                    await self._recall(store, model)
            except Unavailable:
                pass
            except Exception:
                log.exception("the backlog is not told")
            await self._pause(TELL_EVERY_S)

    async def _recall_all(self, store: Store) -> None:
        try:
            count = await store.jobs.recall_all()
        except Exception:
            self._recall_asked = True
            raise
        if count:
            log.info("all that waits is published again", jobs=count)

    async def _recall(self, store: Store, model: str) -> None:
        workloads = self._follow.workloads(model)
        again = 0  # interactive ones wait there, too
        for workload in workloads:
            with contextlib.suppress(Refusal):  # its workers know of no such queue
                again += (await self._broker.depth(queue_name(workload, Queue.AGAIN))).waiting
        for priority in Priority:
            waiting = again if priority is Priority.INTERACTIVE else 0
            try:
                for workload in workloads:
                    waiting += (await self._broker.depth(queue_name(workload, priority))).waiting
            except Refusal:
                return
            if not waiting:
                await store.jobs.recall(model, priority, RECALL_MOST)

    async def _keep_following(self, store: Store) -> None:
        """Who gets the jobs of a model is heard; where deploy is silent the store knows. What lies
        in the queue of a version that gets none any more goes to one that does."""
        deployed = [name for name, model in self._settings.models.items() if model.deploy]
        while deployed and not self._leaving.is_set():
            await self._pause(FOLLOW_EVERY_S)
            try:
                if not all(map(self._follow.knows, deployed)):
                    for route in await Deploying(store.database).routes():
                        self._follow.hear(route)
                await self._strays.look()
            except Unavailable:
                continue
            except Exception:
                log.exception("strays are not looked for")
        await self._strays.close()

    def _on_restored(self) -> None:
        self._recall_asked = True

    async def _keep_removing(self, store: Store) -> None:
        while not self._leaving.is_set():
            removed = 0
            try:
                removed = await remove_old(store)
            except Unavailable:
                pass
            except Exception:
                log.exception("a round of removals failed")
            if not removed:
                await self._pause(REMOVE_EVERY_S)

    async def _keep_sweeping(self, store: Store) -> None:
        rounds = 0
        while not self._leaving.is_set():
            await self._pause(REPAIR_EVERY_S)
            rounds += 1
            try:
                if repaired := await repair(store):
                    log.info("objects copied back to their first place", count=repaired)
                if rounds % SWEEP_EVERY == 0 and (n := await remove_orphans(store, time.time())):
                    log.info("objects without a job removed", count=n)
            except Exception as error:
                log.warning("objects not swept", reason=type(error).__name__)

    async def _deliver(self, store: Store) -> None:
        settings = self._settings
        deliver = Deliver(
            Deliveries(store.database),
            egress_of(settings.webhooks),
            settings.webhooks,
            every_s=settings.clerk.every_s,
        )
        running = asyncio.create_task(deliver.run())
        await self._leaving.wait()
        deliver.stop()
        await asyncio.wait([running], timeout=settings.webhooks.timeout_s + 1)
        running.cancel()

    async def drain(self) -> None:
        self._leaving.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        log.info("left")
