"""Jobs off the broker, each held until replied.

delivery -> its jobs, each Held: expired? tried too often? body elsewhere? stored? -> gather
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from headrace.background import Background
from headrace.broker.port import Delivery
from headrace.errors import Invalid, Problem, Unavailable
from headrace.failpoints import failpoint
from headrace.jobs import Job, Outcome, read_cancel, read_parcel
from headrace.objects.port import ObjectMissing, Objects
from headrace.records import Claim, Queue
from headrace.telemetry.metrics import WorkerMetrics

CANCELS_KEPT = 10_000  # of jobs that have not come to this worker, and mostly never will
MAX_ATTEMPTS = 10  # a job delivered more often than this has outlived as many workers


class Parcel:
    """A delivery and how many of its jobs are still in hand: settled with the last of them.

    If one was given back, all are delivered again: a second run of those that were answered costs
    time and nothing else."""

    __slots__ = ("_delivery", "_given_back", "_left", "attempt", "held_at")

    def __init__(self, delivery: Delivery, size: int, taken: float) -> None:
        self._delivery, self._left, self._given_back = delivery, size, False
        self.attempt = delivery.attempt
        self.held_at = taken

    def done(self, *, give_back: bool = False) -> None:
        """One of its jobs is."""
        self._given_back |= give_back
        self._left -= 1
        if self._left:
            return
        if self._given_back:
            self._delivery.give_back()
        else:
            self._delivery.ack()

    def hold(self, now: float) -> None:
        self.held_at = now
        self._delivery.hold()


class Twins:
    """The parcels of a job that came twice: what happens to it happens to both."""

    __slots__ = ("_parcels", "attempt", "held_at")

    def __init__(self, *parcels: Parcel | Twins) -> None:
        self._parcels = parcels
        self.attempt: int = max(parcel.attempt for parcel in parcels)
        self.held_at: float = min(parcel.held_at for parcel in parcels)

    def done(self, *, give_back: bool = False) -> None:
        for parcel in self._parcels:
            parcel.done(give_back=give_back)

    def hold(self, now: float) -> None:
        self.held_at = now
        for parcel in self._parcels:
            parcel.hold(now)


class Held:
    """A job in this worker's hand: what to run, how to settle it, since when."""

    __slots__ = (
        "body", "cancelled", "claim", "crashes", "deadline", "gathered_ms", "job", "parcel",
        "queue", "taken",
    )  # fmt: skip

    def __init__(
        self,
        job: Job,
        parcel: Parcel | Twins,
        taken: float,
        queue: Queue = Queue.INTERACTIVE,
    ) -> None:
        self.job, self.parcel, self.taken, self.queue = job, parcel, taken, queue
        self.body = job.body
        self.deadline = job.deadline
        self.claim: Claim | None = None  # of a stored job, once it is this worker's
        self.cancelled = False
        self.crashes = 0
        self.gathered_ms = 0.0

    @property
    def key(self) -> tuple[str, int]:
        return (self.job.stored or self.job.reply_to, self.job.id)

    def outcome(self, body: bytes, problem: Problem | None, executed_ms: float) -> Outcome:
        return Outcome(self.job.id, self.taken, self.gathered_ms, executed_ms, body, problem)


class Take:
    """Turns deliveries into held jobs, and keeps the broker from taking them for abandoned."""

    def __init__(
        self,
        objects: Objects,
        metrics: WorkerMetrics,
        *,
        ready: Callable[[Held], None],
        refuse: Callable[[Held, Problem], None],
        room: Callable[[], None],
        claim: Callable[[Held], None],
        ack_wait_s: float,
    ) -> None:
        """`ready`, `refuse`: what becomes of a job. `room`: one that was pulled came to nothing, so
        another may be. `claim`: a stored job, to be made this worker's first."""
        self._objects, self._metrics = objects, metrics
        self._ready, self._refuse, self._room, self._claim = ready, refuse, room, claim
        self._hold_every_s = ack_wait_s / 3
        self.per_delivery = 1.0  # jobs in a parcel, of late
        self.in_hand: dict[tuple[str, int], Held] = {}
        self._cancelled: dict[tuple[str, int], None] = {}
        self._background = Background()

    def on_delivery(self, delivery: Delivery, queue: Queue = Queue.INTERACTIVE) -> None:
        jobs = read_parcel(delivery.data)
        failpoint("worker.taken")
        now = time.time()
        parcel = Parcel(delivery, len(jobs), now)
        # Down at once: expecting more than comes means asking for too little, and small batches.
        if queue is not Queue.AGAIN:  # those come one by one, and say nothing of the others
            fewer = len(jobs) < self.per_delivery
            self.per_delivery += (len(jobs) - self.per_delivery) / (2 if fewer else 8)
        if parcel.attempt > 1:
            self._metrics.redelivered(len(jobs))
        for job in jobs:
            self._take(Held(job, parcel, now, queue))

    def _take(self, held: Held) -> None:
        job, parcel = held.job, held.parcel
        key = held.key
        twin = self.in_hand.get(key)
        if twin is not None:  # published again, or thought abandoned: run once, settle both
            twin.parcel = Twins(twin.parcel, parcel)
            self._room()
        elif job.stored:
            self.in_hand[key] = held
            self._claim(held)
        elif job.deadline <= held.taken or key in self._cancelled:
            held.cancelled = key in self._cancelled
            self.drop(held)
        elif parcel.attempt > MAX_ATTEMPTS:
            self._refuse(held, undeliverable(parcel.attempt).problem())
        else:
            self.in_hand[key] = held
            if job.ref:
                self._background.spawn(self._fetch(held))
            else:
                self._ready(held)

    def drop(self, held: Held) -> None:
        """Nobody waits for it any more: off the broker, without a reply."""
        self._metrics.dropped("cancelled" if held.cancelled else "expired")
        self.settle(held)
        self._room()

    def on_cancel(self, data: bytes) -> None:
        """A caller is gone. Its job may be in our hand, or still to come."""
        cancel = read_cancel(data)
        key = (cancel.reply_to, cancel.id)
        held = self.in_hand.get(key)
        if held:
            held.cancelled = True
            return
        self._cancelled[key] = None
        if len(self._cancelled) > CANCELS_KEPT:
            del self._cancelled[next(iter(self._cancelled))]

    def settle(self, held: Held) -> None:
        self._forget(held)
        held.parcel.done()

    def give_back(self, held: Held) -> None:
        self._forget(held)
        held.parcel.done(give_back=True)

    def _forget(self, held: Held) -> None:
        self.in_hand.pop(held.key, None)

    async def _fetch(self, held: Held) -> None:
        try:
            held.body = await self._objects.get(held.job.ref)
        except ObjectMissing:
            self.drop(held)  # its gateway removed it: the call is over
        except Exception:
            refusal = Unavailable("the input cannot be read", code="artifact-unavailable")
            self._refuse(held, refusal.problem())
        else:
            self._ready(held)

    async def hold_all(self) -> None:
        """Says `hold` for all that is in hand, at a third of the broker's patience, for ever."""
        while True:
            await asyncio.sleep(self._hold_every_s)
            now = time.time()
            for parcel in {held.parcel for held in self.in_hand.values()}:
                if parcel.held_at <= now - self._hold_every_s / 2:
                    parcel.hold(now)


def poison(times: int) -> Invalid:
    return Invalid(
        f"the model process ended each of {times} times it was given this input",
        code="poison-input",
    )


def undeliverable(times: int) -> Invalid:
    return Invalid(
        f"no worker answered this input in {times} deliveries, whatever ended them",
        code="poison-input",
    )
