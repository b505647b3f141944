"""One worker: one model, or one version of it, one or more slots, from the broker to the reply.

take -> (claim) -> gather -> execute -> reply | ending
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import time
from functools import partial
from pathlib import Path

import structlog
from msgspec import structs

from headrace import httpserver
from headrace.announce import (
    EVERY_S,
    TO_DEPLOY,
    TO_GATEWAYS,
    TO_WORKERS,
    Announcement,
    Evidence,
    Settled,
    announcement_bytes,
    evidence_bytes,
    to_workers_of,
)
from headrace.broker.port import ACK_WAIT_S, Broker, Depth, Intake
from headrace.deployments import workload_of
from headrace.errors import NotFound, Problem, Refusal
from headrace.failpoints import failpoint
from headrace.fit import Fit
from headrace.httpserver import HttpServer, Request
from headrace.model import Batching
from headrace.monitoring import TO_MONITOR
from headrace.objects.port import Objects
from headrace.records import Queue, queue_name
from headrace.settings import JobsSettings, ModelSettings
from headrace.signature import Card
from headrace.store.door import StoreDoor
from headrace.telemetry.metrics import Metric, WorkerMetrics, exposition
from headrace.worker.artifact import Place, Placed
from headrace.worker.claim import Claims
from headrace.worker.ending import Endings
from headrace.worker.execute import Slot, State
from headrace.worker.frames import Start
from headrace.worker.gather import Gather
from headrace.worker.isolate import isolate
from headrace.worker.reply import Reply
from headrace.worker.sample import Sampler
from headrace.worker.take import Held, Take, poison

log = structlog.get_logger("headrace.worker")

#: A model whose full batch takes less has its next batch fetched while it runs; a slower one leaves
#: jobs on the broker, where any worker that is free sooner can take them.
FETCH_AHEAD_BELOW_MS = 100.0
FETCH_EARLY_MS = 20.0  # ... until so long before its batch is expected to end
FETCH_STEP_S = 0.005
#: A version that cannot be had, or may not be used: asked for again after so long, by tries.
PLACE_AGAIN_S = (1.0, 3.0, 10.0, 30.0)
OVER_S = 0.01  # a job that is too old for sure, whatever the two clocks make of the last digit
CUT_S = 3.0  # for the books of what still ran when the time to leave was over


class Worker:
    def __init__(
        self,
        name: str,
        settings: ModelSettings,
        folder: str,
        broker: Broker,
        objects: Objects,
        door: StoreDoor,
        jobs: JobsSettings,
        *,
        ack_wait_s: float = ACK_WAIT_S,
        version: int = 0,
        place: Place | None = None,
    ) -> None:
        """`version` of the registry, which `place` brings here; 0: the settings' own files."""
        self.name, self.version, self.workload = name, version, workload_of(name, version)
        self.id = f"{self.workload}-{os.getpid()}-{random.getrandbits(32):08x}"
        self._settings, self._broker, self._door = settings, broker, door
        self._place = place
        self.metrics = WorkerMetrics(name)
        self.metrics.objects.read = door.trouble
        self._fit = Fit()
        self._endings = Endings(
            door,
            self._settle,
            self._back_to_broker,
            self._tell_ended,
            backoff_s=jobs.backoff_s,
            backoff_max_s=jobs.backoff_max_s,
        )
        self._claims = Claims(
            door,
            self.id,
            jobs.lease_s,
            ready=self._on_held,
            refuse=self._refuse,
            later=self._later,
            nothing=self._nothing,
            room=self._claimable,
        )
        self._reply = Reply(
            broker, objects, self.workload, self.id, self._settle, self._endings.add
        )
        self._take = Take(
            objects,
            self.metrics,
            ready=self._on_held,
            refuse=self._refuse,
            room=self._want,
            claim=self._claims.ask,
            ack_wait_s=ack_wait_s,
        )
        self._gather = Gather(
            Batching(settings.max_size or 1, settings.max_wait_ms or 0.0),
            self._fit,
            free=self._free,
            run=self._run,
            expired=self._drop,
            ageing_s=jobs.ageing_s,
            may_risk=self._may_risk,
        )
        self._sampler: Sampler | None = None
        if settings.monitor:
            self._sampler = Sampler(name, settings.monitor, partial(broker.send, TO_MONITOR))
        self._slots = [
            Slot(
                self._start(slot, folder),
                load_limit_s=settings.load_limit_s,
                stuck_after_s=settings.stuck_after_s,
                on_ready=self._on_slot_ready,
                on_done=self._on_done,
                on_gone=self._on_slot_gone,
            )
            for slot in range(settings.slots)
        ]
        self._intake: Intake | None = None
        self._bulk_intake: Intake | None = None
        self._again_intake: Intake | None = None
        self._depth = Depth(0, 0)
        self._leaving = False
        self._metrics_url = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._finished = asyncio.Event()

    def _start(self, slot: int, folder: str) -> Start:
        settings = self._settings
        return Start(
            model=settings.target,
            folder=folder,
            files=str((Path(folder) / settings.files).resolve()),
            device=settings.devices[slot % len(settings.devices)],
            slot=slot,
            max_size=settings.max_size or 0,
        )

    # -- the way of a job ----------------------------------------------------------------------

    def _on_held(self, held: Held) -> None:
        self._gather.add(held)

    def _free(self) -> int:
        return sum(slot.state is State.IDLE for slot in self._slots)

    def _may_risk(self) -> bool:
        """May a batch that brought a process down be run again? Not where it is the last that is
        left of several: the others' calls go on there."""
        return self._up() > 1 or len(self._slots) == 1

    def _up(self) -> int:
        return sum(slot.state in (State.IDLE, State.BUSY) for slot in self._slots)

    def _run(self, batch: list[Held]) -> None:
        failpoint("worker.executing")
        slot = next(slot for slot in self._slots if slot.state is State.IDLE)
        slot.run(batch)
        took_ms = self._fit.took_ms(len(batch))
        if took_ms >= FETCH_EARLY_MS:
            early_s = (took_ms - FETCH_EARLY_MS) / 1000
            asyncio.get_running_loop().call_later(early_s, self._on_ending, slot, slot.runs)
        self._want()

    def _on_ending(self, slot: Slot, run: int) -> None:
        """Its batch is about to end: the next one is fetched, in steps, because how many jobs come
        with a delivery is known only roughly."""
        if slot.runs == run and slot.state is State.BUSY:
            slot.ending = True
            self._want()
            asyncio.get_running_loop().call_later(FETCH_STEP_S, self._on_ending, slot, run)

    def _on_done(
        self, batch: list[Held], outcomes: list[bytes | Problem] | None, took_ms: float
    ) -> None:
        if outcomes is None:
            self._on_batch_died(batch)
            return
        self._fit.learn(len(batch), took_ms)
        # The next batch first: the model should not wait for our bookkeeping.
        self._gather.freed()
        self._reply.batch(batch, outcomes, took_ms)
        self._want()
        # Behind the turn's one write, which was asked for just now: callers wait for that.
        asyncio.get_running_loop().call_soon(self._count, batch, outcomes, took_ms)
        if self._leaving and not self._busy():
            self._finished.set()

    def _count(self, batch: list[Held], outcomes: list[bytes | Problem], took_ms: float) -> None:
        failed = sum(isinstance(outcome, Problem) for outcome in outcomes)
        self.metrics.batch(
            [held.taken - held.job.published for held in batch],
            [held.gathered_ms / 1000 for held in batch],
            took_ms / 1000,
            failed,
        )
        if self._sampler:
            self._sampler.offer(batch, outcomes, took_ms)

    def _on_batch_died(self, batch: list[Held]) -> None:
        if self._leaving:
            for held in batch:
                self._give_back(held)
            if not self._busy():
                self._finished.set()
            return
        parts, guilty = isolate(batch)
        for part in parts:
            self._gather.first(part)
        for held in guilty:
            log.error("poison input", request_id=held.job.request_id, crashes=held.crashes)
            self._reply.refuse(held, poison(held.crashes).problem())

    def _refuse(self, held: Held, problem: Problem) -> None:
        self._reply.refuse(held, problem)
        self._want()

    def _settle(self, held: Held) -> None:
        self._claims.forget(held)
        self._take.settle(held)

    def _later(self, held: Held, wait_s: float) -> None:
        self._endings.not_run(held, wait_s)
        self._want()

    def _nothing(self, held: Held) -> None:
        """A stored job that is another's, or over."""
        self._take.settle(held)
        self._want()

    def _drop(self, held: Held) -> None:
        """It will not be run: the caller is gone or the time over. That a stored job is too old is
        for the clerk to say, by the clock of the books, as soon as it is."""
        if held.claim and not held.cancelled:
            self.metrics.dropped("expired")
            self._later(held, max(0.0, held.deadline - time.time()) + OVER_S)
            return
        self._claims.forget(held)
        self._take.drop(held)

    def _claimable(self) -> int:
        """A batch that runs and the next one, of each slot."""
        return 2 * len(self._slots) * self._gather.batching.max_size - len(self._gather.waiting)

    def _give_back(self, held: Held) -> None:
        """It did not run here, and may elsewhere."""
        if held.claim:
            self._endings.not_run(held)
        else:
            self._take.give_back(held)

    def _back_to_broker(self, held: Held) -> None:
        self._claims.forget(held)
        self._take.give_back(held)

    def _tell_ended(self, ids: list[str]) -> None:
        """Whoever waits for these jobs looks them up now and not at the next turn of its clock."""
        self._broker.send(TO_GATEWAYS, announcement_bytes(Settled(ids)))

    def _want(self) -> None:
        """Room for a batch in each free slot, and for the next batch where the model is quick or
        about to be free: fetched only then, a batch would be run with what came first of it."""
        if self._intake is None or self._leaving:
            return
        size = self._gather.batching.max_size
        quick = self._fit.took_ms(size) < FETCH_AHEAD_BELOW_MS
        if quick:
            ahead = size if self._up() else 0
        else:
            ahead = size * sum(slot.ending for slot in self._slots)
        self._claims.more()
        # While the database is away what is to be claimed keeps no call waiting behind it.
        coming = 0 if self._claims.away else self._claims.coming
        room = self._free() * size + ahead - len(self._gather.waiting) - coming
        # Rounded up: a parcel too many waits here, one too few would leave a slot idle.
        parcels = max(0, math.ceil(room / self._take.per_delivery))
        if self._again_intake:  # beside the others' room: they are few, and go before them
            first = (quick and self._up()) or room > 0
            self._again_intake.want(size if first and self._gather.again() < size else 0)
        self._intake.want(parcels)
        if self._bulk_intake:  # what the others leave free
            spare = not self._depth.waiting and len(self._gather.bulk) < size
            self._bulk_intake.want(parcels if spare else 0)

    # -- slots ---------------------------------------------------------------------------------

    def _on_slot_ready(self, slot: Slot) -> None:
        assert slot.ready is not None
        card = slot.ready.card
        wait_ms = self._settings.max_wait_ms
        self._gather.batching = Batching(
            self._settings.max_size or card.max_size,
            card.max_wait_ms if wait_ms is None else wait_ms,
        )
        self._reply.version = self._endings.version = self._shown(card).version
        if self._sampler:
            self._sampler.version = self._reply.version
        for size, took_ms in slot.ready.warm:
            self._fit.learn(size, took_ms)
        self._gather.ask()
        self._want()
        self._announce()

    def _shown(self, card: Card) -> Card:
        """A class may be served under several names and versions: those of the settings and of the
        registry are the model's."""
        version = str(self.version) if self.version else card.version
        return structs.replace(card, name=self.name, version=version)

    def _on_slot_gone(self, was: str) -> None:
        self.metrics.gone.add(self.name, was)
        if was == State.STARTING.value and not self._up():
            # It does not come up: what waits here may run elsewhere.
            for held in self._gather.drain():
                self._give_back(held)
        self._want()
        self._announce()

    def _busy(self) -> int:
        return sum(slot.state is State.BUSY for slot in self._slots)

    # -- announcements -------------------------------------------------------------------------

    def announcement(self) -> Announcement:
        ready = [slot for slot in self._slots if slot.state in (State.IDLE, State.BUSY)]
        first = ready[0].ready if ready else None
        fixed_ms, per_item_ms = self._fit.line()
        return Announcement(
            worker=self.id,
            model=self.name,
            ready=bool(ready) and not self._leaving,
            reason="leaving" if self._leaving else "" if ready else self._slots[0].reason,
            card=self._shown(first.card) if first else None,
            slots=len(self._slots),
            slots_ready=len(ready),
            busy=self._busy(),
            in_hand=len(self._take.in_hand),
            waiting=self._depth.waiting,
            golden=bool(first and first.golden),
            fixed_ms=fixed_ms,
            per_item_ms=per_item_ms,
            max_size=self._gather.batching.max_size,
            metrics_url=self._metrics_url,
            leaving=self._leaving,
            version=self.version,
        )

    def _announce(self, _: bytes = b"") -> None:
        self._broker.send(TO_GATEWAYS, announcement_bytes(self.announcement()))

    def _tell(self) -> None:
        """What became of stored jobs, as gateways tell of calls; without times: they may wait. Told
        also before there is anything: deploy counts from the second word on."""
        done = self._endings
        said = Evidence(
            self.id, self.name, self.version, done.answered, done.failed, done.refused, {}
        )
        self._broker.send(TO_DEPLOY, evidence_bytes(said))

    async def _keep_announcing(self) -> None:
        while True:
            self._announce()
            if self._settings.deploy is not None:
                self._tell()
            await asyncio.sleep(EVERY_S)
            with contextlib.suppress(Refusal):
                self._depth = await self._broker.depth(self.workload)
                self._want()

    # -- metrics -------------------------------------------------------------------------------

    def _on_request(self, request: Request) -> None:
        if request.path == b"/metrics":
            httpserver.answer_text(
                request, 200, exposition(self._gauged()), "text/plain; version=0.0.4"
            )
        elif request.path == b"/health/live":
            httpserver.answer_text(request, 200, b'{"live":true}', "application/json")
        elif request.path == b"/health/ready":
            ready = self.announcement().ready
            body = b'{"ready":true}' if ready else b'{"ready":false}'
            httpserver.answer_text(request, 200 if ready else 503, body, "application/json")
        else:
            raise NotFound("only /metrics, /health/live and /health/ready are here")

    def _gauged(self) -> list[Metric]:
        for state in State:
            count = sum(slot.state is state for slot in self._slots)
            self.metrics.slots.set(count, self.name, state.value)
        self.metrics.in_hand.set(len(self._take.in_hand), self.name)
        self.metrics.waiting.set(self._depth.waiting, self.name)
        if self._depth.in_hand is not None:  # not every broker says
            self.metrics.unacked.set(self._depth.in_hand, self.name)
        return self.metrics.all()

    # -- life ----------------------------------------------------------------------------------

    async def open(self, metrics_listen: tuple[str, int] | None = None) -> None:
        if metrics_listen:
            host, port = metrics_listen
            server = HttpServer(self._on_request, lambda _: None, _plain_refusal, 1024)
            self._metrics_url = f"http://{host}:{await server.open(host, port)}/metrics"
        self._intake = await self._pull(Queue.INTERACTIVE)
        self._bulk_intake = await self._pull(Queue.BULK)
        self._again_intake = await self._pull(Queue.AGAIN)
        await self._broker.listen(TO_WORKERS, self._announce)
        await self._broker.listen(to_workers_of(self.workload), self._take.on_cancel)
        self._broker.on_restored(self._announce)
        if self._place is None:
            await asyncio.gather(*(slot.spawn() for slot in self._slots))
        else:
            self._tasks.append(asyncio.create_task(self._fetch(self._place)))
        self._tasks += [
            asyncio.create_task(self._keep_announcing()),
            asyncio.create_task(self._take.hold_all()),
            asyncio.create_task(self._claims.renew_all()),
            asyncio.create_task(self._door.warm(0.0)),  # while the model loads
        ]
        if self._sampler:
            self._tasks.append(asyncio.create_task(self._sampler.keep_telling()))

    async def _pull(self, queue: Queue) -> Intake:
        take = partial(self._take.on_delivery, queue=queue)
        return await self._broker.take(queue_name(self.workload, queue), take)

    async def _fetch(self, place: Place) -> None:
        """Until the version is here. Whoever deploys it reads in the announcements why it is not:
        this process going away would not say so."""
        tries = 0
        while True:
            try:
                placed = await place()
                break
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                if isinstance(error, Refusal):
                    reason = f"{error.code}: {error.detail}"
                else:
                    log.exception("version not placed", workload=self.workload)
                log.warning("version not here", workload=self.workload, reason=reason)
            self._because(reason)
            await asyncio.sleep(PLACE_AGAIN_S[min(tries, len(PLACE_AGAIN_S) - 1)])
            tries += 1
        self._because("loading")
        for slot in self._slots:
            slot.start = self._of(placed, slot.start)
        await asyncio.gather(*(slot.spawn() for slot in self._slots))

    def _because(self, reason: str) -> None:
        for slot in self._slots:
            slot.reason = reason
        self._announce()

    @staticmethod
    def _of(placed: Placed, start: Start) -> Start:
        return structs.replace(
            start,
            model=placed.target or start.model,
            files=placed.files,
            code=placed.code,
            known=placed.golden,
        )

    async def drain(self, grace_s: float) -> None:
        """Take no more, give back what does not run, finish what does, reply, leave."""
        self._leaving = True
        began = time.monotonic()
        for intake in (self._intake, self._bulk_intake, self._again_intake):
            if intake:
                await intake.close()
        for held in self._claims.close():
            self._take.give_back(held)
        await self._claims.landed(grace_s)
        for held in self._gather.drain():
            self._give_back(held)
        self._announce()
        log.info("draining", in_hand=len(self._take.in_hand), busy=self._busy())
        if self._busy():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._finished.wait(), grace_s)
        await self._reply.flush()
        await self._endings.flush(grace_s)
        for task in self._tasks:
            task.cancel()
        if not self._endings.pending:  # else the database is away: their leases run out
            for held in list(self._take.in_hand.values()):
                self._give_back(held)
            await self._endings.flush(CUT_S)
        for held in list(self._take.in_hand.values()):
            self._take.give_back(held)
        await asyncio.gather(*(slot.stop() for slot in self._slots))
        log.info("left", after_ms=round((time.monotonic() - began) * 1000))


def _plain_refusal(request: Request, refusal: Refusal) -> None:
    httpserver.answer_text(
        request, refusal.status, refusal.detail.encode(), "text/plain; charset=utf-8"
    )
