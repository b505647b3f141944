"""Jobs off the broker, each held until replied.

delivery -> Held: expired? tried too often? body elsewhere? -> gather
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from headrace.broker.port import ACK_WAIT_S, Delivery
from headrace.errors import Invalid, Problem, Unavailable
from headrace.failpoints import failpoint
from headrace.jobs import Job, Outcome, read_job
from headrace.objects.port import ObjectMissing, Objects
from headrace.telemetry.metrics import WorkerMetrics

MAX_ATTEMPTS = 5  # a job delivered more often than this has outlived as many workers


class Held:
    """A job in this worker's hand: what to run, how to settle it, since when."""

    __slots__ = ("attempt", "body", "crashes", "delivery", "gathered_ms", "job", "taken")

    def __init__(self, job: Job, delivery: Delivery, taken: float) -> None:
        self.job, self.delivery, self.taken = job, delivery, taken
        self.body = job.body
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
    ) -> None:
        self._objects, self._metrics = objects, metrics
        self._ready, self._refuse = ready, refuse
        self.in_hand: set[Held] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def on_job(self, delivery: Delivery) -> None:
        held = Held(read_job(delivery.data), delivery, time.time())
        failpoint("worker.taken")
        if held.job.deadline <= held.taken:
            self.drop_expired(held)
            return
        self.in_hand.add(held)
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

    def settle(self, held: Held) -> None:
        self.in_hand.discard(held)
        held.delivery.ack()

    def give_back(self, held: Held) -> None:
        self.in_hand.discard(held)
        held.delivery.give_back()

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
            await asyncio.sleep(ACK_WAIT_S / 3)
            young = time.time() - ACK_WAIT_S / 3
            for held in self.in_hand:
                if held.taken < young:
                    held.delivery.hold()


def poison(times: int) -> Invalid:
    return Invalid(
        f"the model process ended each of {times} times it was given this input",
        code="poison-input",
    )
