"""For doors: publish a job, await its outcome.

    start --> objects, if large --> broker.publish ...... reply --> on_outcome
                                                  deadline over --> on_outcome(DeadlineExceeded)

A callback and an integer id, no task and no future a call. Whatever happens, `on_outcome` is called
exactly once, unless the caller cancels first; outcomes nobody waits for are counted and dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections.abc import Callable
from typing import Any

from headrace.announce import to_workers_of
from headrace.broker.port import Broker
from headrace.errors import DeadlineExceeded, Refusal, Unavailable
from headrace.jobs import (
    Cancel,
    Form,
    Job,
    Outcome,
    Returned,
    cancel_bytes,
    job_bytes,
    read_returned,
)
from headrace.objects.port import Objects

#: An outcome and the message it came in, or the refusal in its place.
OnOutcome = Callable[["Outcome | Refusal", "Returned | None"], None]

TICK_S = 0.02


class Waiting:
    """A published job whose outcome has not come."""

    __slots__ = ("data", "deadline", "model", "on_outcome", "published", "ref")

    def __init__(
        self, model: str, deadline: float, published: float, on_outcome: OnOutcome
    ) -> None:
        self.model, self.deadline, self.published = model, deadline, published
        self.on_outcome = on_outcome
        self.data = b""
        self.ref = ""


class Dispatch:
    """Jobs of one door instance. `address` is where their outcomes come."""

    def __init__(
        self, broker: Broker, objects: Objects, inline_limit: int, address: str = ""
    ) -> None:
        self._broker, self._objects, self._inline_limit = broker, objects, inline_limit
        self.address = address or uuid.uuid4().hex
        self.waiting: dict[int, Waiting] = {}
        self.by_model: dict[str, int] = {}
        self.unknown = 0  # outcomes that nobody waited for
        self.lag_s = 0.0  # of the last reply message
        self.last_reply_size = 0
        self._ids = itertools.count(1)
        self._earliest = float("inf")
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        await self._broker.listen(self.address, self._on_reply)
        self._broker.on_restored(self._publish_again)
        self._spawn(self._watch_deadlines())

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in self.waiting.values():
            await self._objects.delete(waiting.ref) if waiting.ref else None

    def start(
        self,
        model: str,
        request_id: str,
        body: bytes,
        *,
        deadline: float,
        form: Form,
        on_outcome: OnOutcome,
    ) -> int:
        """Publishes a job; gives its id, for `cancel`. `deadline` is a Unix time."""
        number = next(self._ids)
        now = time.time()
        waiting = self.waiting[number] = Waiting(model, deadline, now, on_outcome)
        self.by_model[model] = self.by_model.get(model, 0) + 1
        self._earliest = min(self._earliest, deadline)
        if len(body) > self._inline_limit:
            waiting.ref = f"{self.address}-{number}"
            job = Job(number, self.address, request_id, deadline, now, form, b"", waiting.ref)
            self._spawn(self._put_and_publish(number, waiting, job, body))
        else:
            job = Job(number, self.address, request_id, deadline, now, form, body)
            waiting.data = job_bytes(job)
            self._publish(number, waiting)
        return number

    def _publish(self, number: int, waiting: Waiting) -> None:
        self._broker.publish(waiting.model, waiting.data, self._on_refused, number)

    def _on_refused(self, number: int, refusal: Refusal) -> None:
        self._finish(number, refusal, None)

    async def _put_and_publish(self, number: int, waiting: Waiting, job: Job, body: bytes) -> None:
        try:
            await self._objects.put(waiting.ref, body)
        except Exception:
            refusal = Unavailable("the input cannot be stored", code="storage-unavailable")
            self._finish(number, refusal, None)
            return
        waiting.data = job_bytes(job)
        if number in self.waiting:
            self._publish(number, waiting)
        else:
            await self._objects.delete(waiting.ref)

    def cancel(self, number: int) -> None:
        """The caller is gone: the job is dropped where no model runs it yet; an outcome is."""
        waiting = self.waiting.pop(number, None)
        if waiting:
            self._forget(waiting)
            cancel = Cancel(self.address, number)
            self._broker.send(to_workers_of(waiting.model), cancel_bytes(cancel))

    def _forget(self, waiting: Waiting) -> None:
        self.by_model[waiting.model] -= 1
        if waiting.ref and waiting.data:
            self._spawn(self._objects.delete(waiting.ref))

    def _finish(self, number: int, outcome: Outcome | Refusal, returned: Returned | None) -> None:
        waiting = self.waiting.pop(number, None)
        if waiting is None:
            self.unknown += 1
            return
        self._forget(waiting)
        waiting.on_outcome(outcome, returned)

    def _on_reply(self, data: bytes) -> None:
        returned = read_returned(data)
        self.lag_s = time.time() - returned.sent
        self.last_reply_size = len(returned.outcomes)
        for outcome in returned.outcomes:
            self._finish(outcome.id, outcome, returned)

    def _publish_again(self) -> None:
        """The broker was gone: its queue in memory may be, too. Unknown ids cost nothing."""
        for number, waiting in list(self.waiting.items()):
            if waiting.data:
                self._publish(number, waiting)

    async def _watch_deadlines(self) -> None:
        """Looks through the waiting jobs only when the earliest deadline has come."""
        while True:
            await asyncio.sleep(TICK_S)
            now = time.time()
            if now < self._earliest:
                continue
            for number in [n for n, w in self.waiting.items() if w.deadline <= now]:
                detail = "the deadline passed before the model answered"
                self._finish(number, DeadlineExceeded(detail), None)
            self._earliest = min((w.deadline for w in self.waiting.values()), default=float("inf"))

    def oldest_s(self) -> dict[str, float]:
        """Age of the oldest waiting job, by model."""
        ages: dict[str, float] = {}
        now = time.time()
        for waiting in self.waiting.values():
            ages.setdefault(waiting.model, now - waiting.published)
        return ages

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            with contextlib.suppress(Exception):
                task.result()
