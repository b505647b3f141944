"""Jobs off the broker, each held until replied.

delivery -> Held: expired? tried too often? body elsewhere? -> gather
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from headrace.broker.port import Delivery
from headrace.errors import Invalid, Problem, Unavailable
from headrace.failpoints import failpoint
from headrace.jobs import Job, Outcome, read_cancel, read_job
from headrace.objects.port import ObjectMissing, Objects
from headrace.telemetry.metrics import WorkerMetrics

CANCELS_KEPT = 10_000  # of jobs that have not come to this worker, and mostly never will
MAX_ATTEMPTS = 5  # a job delivered more often than this has outlived as many workers


class Held:
    """A job in this worker's hand: what to run, how to settle it, since when."""

    __slots__ = ("body", "cancelled", "crashes", "delivery", "gathered_ms", "job", "taken")

    def __init__(self, job: Job, delivery: Delivery, taken: float) -> None:
        self.job, self.delivery, self.taken = job, delivery, taken
        self.body = job.body
        self.cancelled = False
        self.crashes = 0
        self.gathered_ms = 0.0

    def outcome(self, body: bytes, problem: Problem | None, executed_ms: float) -> Outcome:
        return Outcome(self.job.id, self.taken, self.gathered_ms, executed_ms, body, problem)


class Take:
    """Turns deliveries into held jobs, and keeps the broker from taking them for abandoned."""

    def __init__(
        self,
        objects: Objects,
        metrics: WorkerMetrics,
        ready: Callable[[Held], None],
        refuse: Callable[[Held, Problem], None],
        ack_wait_s: float,
    ) -> None:
        self._objects, self._metrics = objects, metrics
        self._ready, self._refuse = ready, refuse
        self._hold_every_s = ack_wait_s / 3
        self.in_hand: dict[tuple[str, int], Held] = {}
        self._cancelled: dict[tuple[str, int], None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def on_job(self, delivery: Delivery) -> None:
        held = Held(read_job(delivery.data), delivery, time.time())
        failpoint("worker.taken")
        if held.job.deadline <= held.taken:
            self.drop_expired(held)
            return
        key = (held.job.reply_to, held.job.id)
        if key in self._cancelled:
            held.delivery.ack()
            return
        self.in_hand[key] = held
        attempt = delivery.attempt
        if attempt > 1:
            self._metrics.redelivered()
        if attempt > MAX_ATTEMPTS:
            self._refuse(held, poison(attempt).problem())
        elif held.job.ref:
            self._spawn(self._fetch(held))
        else:
            self._ready(held)

    def drop_expired(self, held: Held) -> None:
        """Nobody waits for it any more: off the broker, without a reply."""
        self._metrics.expired()
        self.settle(held)

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
        held.delivery.ack()

    def give_back(self, held: Held) -> None:
        self._forget(held)
        held.delivery.give_back()

    def _forget(self, held: Held) -> None:
        self.in_hand.pop((held.job.reply_to, held.job.id), None)

    async def _fetch(self, held: Held) -> None:
        try:
            held.body = await self._objects.get(held.job.ref)
        except ObjectMissing:
            self.drop_expired(held)  # its gateway removed it: the call is over
        except Exception:
            refusal = Unavailable("the input cannot be read", code="artifact-unavailable")
            self._refuse(held, refusal.problem())
        else:
            self._ready(held)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def hold_all(self) -> None:
        """Says `hold` for every job in hand, at a third of the broker's patience, for ever."""
        while True:
            await asyncio.sleep(self._hold_every_s)
            young = time.time() - self._hold_every_s
            for held in self.in_hand.values():
                if held.taken < young:
                    held.delivery.hold()


def poison(times: int) -> Invalid:
    return Invalid(
        f"the model process ended each of {times} times it was given this input",
        code="poison-input",
    )
