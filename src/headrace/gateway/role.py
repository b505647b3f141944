"""One gateway process: the app, its ears on the broker, its listeners; drained on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
from functools import partial

import structlog

from headrace.announce import (
    EVERY_S,
    TO_DEPLOY,
    TO_GATEWAYS,
    TO_WORKERS,
    Announcement,
    Backlog,
    Settled,
    announcement_bytes,
    evidence_bytes,
    read_announcement,
)
from headrace.broker.port import Broker
from headrace.cache.port import Cache
from headrace.deployments import place_of
from headrace.dispatch import Dispatch
from headrace.gateway.account import Account
from headrace.gateway.app import App
from headrace.gateway.feedback import FeedbackApi
from headrace.gateway.jobs import JobsApi
from headrace.gateway.reuse import reuse_of
from headrace.gateway.shadow import Shadows
from headrace.gateway.snapshot import Snapshot
from headrace.gateway.strays import Strays
from headrace.gateway.submit import Submits
from headrace.gateway.webhooks import WebhooksApi
from headrace.httpapi.errands import Errands
from headrace.httpserver import HttpServer
from headrace.objects.port import Objects
from headrace.settings import Settings
from headrace.store.door import StoreDoor
from headrace.telemetry.metrics import GatewayMetrics

log = structlog.get_logger("headrace.gateway")

TELL_EVERY_S = 0.25
ASK_ROUTES_S = 2.0  # a deploy that lives has told them by then


class Gateway:
    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        objects: Objects,
        door: StoreDoor,
        cache: Cache | None = None,
    ) -> None:
        self._settings, self._broker, self._door = settings, broker, door
        self.dispatch = Dispatch(broker, objects, settings.gateway.inline_limit_bytes)
        resting = {name for name, policy in settings.policies().items() if not policy.least}
        acting = settings.autoscale.mode == "act"
        self.snapshot = Snapshot(
            self.dispatch.address, list(settings.models), resting if acting else ()
        )
        self.app = App(settings.gateway, self.snapshot, self.dispatch, GatewayMetrics())
        self._http = HttpServer(
            self.app.handle, self.app.on_head, self.app.refuse, settings.gateway.max_body_bytes
        )
        self.app.reuse = reuse_of(settings, self.dispatch, self.app.metrics, cache)
        submits = Submits(door, broker, self._parcel_size, self.app.metrics, self._workload)
        self._strays = Strays(self.snapshot, self.dispatch, self.app.moved)
        self.dispatch.instead = self._strays.poisoned
        self.app.shadows = Shadows(
            partial(self._shadowing, objects), self.app.metrics, self.snapshot.witnesses
        )
        self.app.metrics.objects.read = door.trouble
        refused = partial(self.app.metrics.refusals.add, "")
        errands = Errands(self.app.tenants.of, door, refused)
        self.app.jobs = self._jobs = JobsApi(self.app, settings, errands, submits)
        self.app.webhooks = WebhooksApi(errands, settings.webhooks)
        self.app.feedback = FeedbackApi(errands, settings.models)
        self._account = Account(self.app)
        self.app.connections = lambda: len(self._http.connections)
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0

    async def open(self) -> None:
        """Raises OSError where an address is taken, Unavailable where the broker is."""
        await self._broker.listen(TO_GATEWAYS, self._hear)
        await self.dispatch.open()
        if self.app.reuse is not None:
            await self.app.reuse.open()
        self._broker.send(TO_WORKERS, b"who")
        host, port = address(self._settings.gateway.listen)
        self.port = await self._http.open(host, port, reuse_port=self._settings.gateway.count > 1)
        if self._settings.gateway.grpc:
            from headrace.gateway import v2_grpc

            self._grpc = await v2_grpc.serve(self.app, self._settings.gateway.grpc)
        self._tasks = [
            asyncio.create_task(self._settle()),
            asyncio.create_task(self._tell()),
            asyncio.create_task(self._keep_witness()),
            asyncio.create_task(self._ask_routes()),
            asyncio.create_task(self._door.warm()),
        ]
        gc.collect()
        gc.freeze()
        # Calls make no cycles; a young collection every 700 objects would run at every tenth.
        gc.set_threshold(50_000, 20, 50)
        log.info("listening", http=f"{host}:{self.port}", grpc=self._settings.gateway.grpc)

    def _hear(self, data: bytes) -> None:
        news = read_announcement(data)
        if isinstance(news, Settled | Backlog):
            self._jobs.heard(news)
            return
        self.snapshot.hear(news)
        if isinstance(news, Announcement):
            view = self.snapshot.version(news.model, news.version)
            self.dispatch.parcel_sizes[view.queue] = view.parcel_size

    def _parcel_size(self, workload: str) -> int:
        return self.dispatch.parcel_sizes.get(workload, 1)

    def _workload(self, model: str, job_id: str) -> str:
        return self.snapshot.routed(model, place_of(job_id)).queue

    def _shadowing(self, objects: Objects) -> Dispatch:
        """With parcels as the real calls have them."""
        dispatch = Dispatch(self._broker, objects, self._settings.gateway.inline_limit_bytes)
        dispatch.parcel_sizes = self.dispatch.parcel_sizes
        return dispatch

    async def _ask_routes(self) -> None:
        """Where deploy is silent, as after a start beside a dead one, the store knows who gets the
        calls."""
        deployed = [name for name, model in self._settings.models.items() if model.deploy]
        while True:
            await asyncio.sleep(ASK_ROUTES_S)
            if all(name in self.snapshot.routings for name in deployed):
                return
            try:
                from headrace.store.deploying import Deploying

                store = await self._door.open()
                for route in await Deploying(store.database).routes():
                    self.snapshot.hear(route)
            except Exception as error:
                log.warning("routes are not known yet", reason=str(error))

    async def _keep_witness(self) -> None:
        """Deploy judges versions by what becomes of their calls."""
        while True:
            await asyncio.sleep(EVERY_S)
            for view in self.snapshot.watched():
                if view.witness is not None:
                    evidence = view.witness.evidence(self.dispatch.address)
                    self._broker.send(TO_DEPLOY, evidence_bytes(evidence))

    async def _settle(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.snapshot.settle()

    async def _tell(self) -> None:
        """The other gateways' admission counts our calls, too; the autoscaler hears that none came
        from a gateway that says so."""
        told = False
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            self._strays.look()
            calls = any(self.dispatch.by_workload.values())
            if calls or told or self._account.since_told_s >= EVERY_S:
                self._broker.send(TO_GATEWAYS, announcement_bytes(self._account.outstanding()))
            told = calls

    async def drain(self) -> None:
        """Not ready any more, no new connections, open calls answered; then gone."""
        self.app.draining = True
        log.info("draining", outstanding=len(self.dispatch.waiting))
        await asyncio.sleep(self._settings.gateway.drain_notice_s)
        grace_s = self._settings.gateway.drain_s
        drains = [self._http.drain(grace_s)]
        if self._settings.gateway.grpc:
            drains.append(self._grpc.stop(grace_s))
        drains.append(self._jobs.close(grace_s))
        await asyncio.gather(*drains)
        for task in self._tasks:
            task.cancel()
        self._broker.send(TO_GATEWAYS, announcement_bytes(self._account.outstanding(leaving=True)))
        if self.app.reuse is not None:
            await self.app.reuse.close()
        if self.app.shadows is not None:
            await self.app.shadows.close()
        await self.dispatch.close()
        log.info("left")


def address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    return host, int(port)
