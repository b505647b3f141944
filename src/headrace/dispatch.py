"""For doors: publish a job to a workload's queue, await its outcome.

    start --> objects, if large --> parcel --> broker.publish ...... reply --> on_outcome
                                                             deadline over --> on_outcome(refusal)

Jobs for one workload that start in the same turn of the loop travel as one parcel: the broker's
part of a call is 35 us a message, and under load a message then carries ten jobs or thirty
(docs/decisions/0012). A parcel is never larger than what one slot runs in one batch.

A callback and an integer id, no task and no future a call. Whatever happens, `on_outcome` is called
exactly once, unless the caller cancels first; outcomes nobody waits for are counted and dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial

from headrace.announce import to_workers_of
from headrace.background import Background
from headrace.broker.port import Broker
from headrace.errors import DeadlineExceeded, Refusal, Unavailable
from headrace.jobs import (
    Cancel,
    Form,
    Job,
    Outcome,
    Returned,
    cancel_bytes,
    parcel_bytes,
    read_returned,
    stored_job,
)
from headrace.objects.port import Objects, ObjectsDown

#: An outcome and the message it came in, or the refusal in its place.
OnOutcome = Callable[["Outcome | Refusal", "Returned | None"], None]

TICK_S = 0.02
POISON = "poison-input"
PARCEL_BYTES = 128 * 1024  # a parcel is closed when its bodies reach this


class Waiting:
    """A published job whose outcome has not come."""

    __slots__ = ("deadline", "job", "on_outcome", "published", "ref", "workload")

    def __init__(
        self, workload: str, deadline: float, published: float, on_outcome: OnOutcome
    ) -> None:
        self.workload, self.deadline, self.published = workload, deadline, published
        self.on_outcome = on_outcome
        self.job: Job | None = None  # once it may be published
        self.ref = ""


class Dispatch:
    """Jobs of one door instance. `address` is where their outcomes come."""

    def __init__(
        self, broker: Broker, objects: Objects, inline_limit: int, address: str = ""
    ) -> None:
        self._broker, self._objects, self._inline_limit = broker, objects, inline_limit
        #: jobs in one parcel, by workload; one where it is not known
        self.parcel_sizes: dict[str, int] = {}
        self._outbox: dict[str, list[Job]] = {}
        self._flush_asked = False
        self.address = address or uuid.uuid4().hex
        self.waiting: dict[int, Waiting] = {}
        self.by_workload: dict[str, int] = {}
        self.arrived: dict[str, int] = {}  # jobs started so far, by workload
        #: Where a job may go that a workload brought to no result, which is no fault of its input;
        #: "": nowhere. A poison input is poison there, too, if it is one.
        self.instead: Callable[[str], str] = lambda _: ""
        self.unknown = 0  # outcomes that nobody waited for
        self.lag_s = 0.0  # of the last reply message
        self.last_reply_size = 0
        self.longest_lag_s = 0.0  # of all reply messages since somebody set it to 0
        self._ids = itertools.count(1)
        self._earliest = float("inf")
        self._background = Background()

    async def open(self) -> None:
        await self._broker.listen(self.address, self._on_reply)
        self._broker.on_restored(self._publish_again)
        self._background.spawn(self._watch_deadlines())

    async def close(self) -> None:
        await self._background.close()
        for waiting in self.waiting.values():
            await self._remove(waiting.ref) if waiting.ref else None

    def start(
        self,
        workload: str,
        request_id: str,
        body: bytes,
        *,
        deadline: float,
        form: Form,
        on_outcome: OnOutcome,
    ) -> int:
        """Publishes a job at the end of this turn; gives its id, for `cancel`. `deadline` is a Unix
        time."""
        number = next(self._ids)
        now = time.time()
        waiting = self.waiting[number] = Waiting(workload, deadline, now, on_outcome)
        self.by_workload[workload] = self.by_workload.get(workload, 0) + 1
        self.arrived[workload] = self.arrived.get(workload, 0) + 1
        self._earliest = min(self._earliest, deadline)
        if len(body) > self._inline_limit:
            waiting.ref = f"{self.address}-{number}"
            job = Job(number, self.address, request_id, deadline, now, form, b"", waiting.ref)
            self._background.spawn(self._put_and_publish(number, waiting, job, body))
        else:
            job = Job(number, self.address, request_id, deadline, now, form, body)
            waiting.job = job
            self._post(workload, job)
        return number

    def _post(self, workload: str, job: Job) -> None:
        if workload in self._outbox:
            self._outbox[workload].append(job)
        else:
            self._outbox[workload] = [job]
        if not self._flush_asked:
            self._flush_asked = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_asked = False
        outbox, self._outbox = self._outbox, {}
        for workload, jobs in outbox.items():
            for parcel in parcels(jobs, self.parcel_sizes.get(workload, 1)):
                refused = partial(self._on_refused, [job.id for job in parcel])
                self._broker.publish(workload, parcel_bytes(parcel), refused)

    def _on_refused(self, numbers: list[int], refusal: Refusal) -> None:
        for number in numbers:
            self._finish(number, refusal, None)

    def move(self, workload: str, to: str) -> int:
        """All that waits for one workload waits for another one from here on; how many."""
        moved = [waiting for waiting in self.waiting.values() if waiting.workload == workload]
        for waiting in moved:
            self._move(waiting, to)
        return len(moved)

    def _move(self, waiting: Waiting, to: str) -> None:
        self.by_workload[waiting.workload] -= 1
        self.by_workload[to] = self.by_workload.get(to, 0) + 1
        waiting.workload = to
        if waiting.job:
            self._post(to, waiting.job)

    async def _put_and_publish(self, number: int, waiting: Waiting, job: Job, body: bytes) -> None:
        try:
            await self._objects.put(waiting.ref, body)
        except Exception:
            refusal = Unavailable("the input cannot be stored", code="storage-unavailable")
            self._finish(number, refusal, None)
            return
        waiting.job = job
        if number in self.waiting:
            self._post(waiting.workload, job)
        else:
            await self._remove(waiting.ref)

    async def _remove(self, name: str) -> None:
        """What cannot be removed now is swept with what is abandoned."""
        with contextlib.suppress(ObjectsDown):
            await self._objects.delete(name)

    def cancel(self, number: int) -> None:
        """The caller is gone: the job is dropped where no model runs it yet; an outcome is."""
        waiting = self.waiting.pop(number, None)
        if waiting:
            self._forget(waiting)
            cancel = Cancel(self.address, number)
            self._broker.send(to_workers_of(waiting.workload), cancel_bytes(cancel))

    def _forget(self, waiting: Waiting) -> None:
        self.by_workload[waiting.workload] -= 1
        if waiting.ref and waiting.job:
            self._background.spawn(self._remove(waiting.ref))

    def _finish(self, number: int, outcome: Outcome | Refusal, returned: Returned | None) -> None:
        waiting = self.waiting.pop(number, None)
        if waiting is None:
            self.unknown += 1
            return
        if isinstance(outcome, Outcome) and outcome.problem is not None:
            code = outcome.problem.code
            to = self.instead(waiting.workload) if code == POISON else ""
            if to:  # its process ended each time: that may be this version's own
                self.waiting[number] = waiting
                self._move(waiting, to)
                return
        self._forget(waiting)
        waiting.on_outcome(outcome, returned)

    def _on_reply(self, data: bytes) -> None:
        returned = read_returned(data)
        if returned.ref:
            self._background.spawn(self._fetch_reply(returned))
            return
        self.lag_s = time.time() - returned.sent
        self.longest_lag_s = max(self.longest_lag_s, self.lag_s)
        self.last_reply_size = len(returned.outcomes)
        for outcome in returned.outcomes:
            self._finish(outcome.id, outcome, returned)

    async def _fetch_reply(self, returned: Returned) -> None:
        """A reply too large for the broker. Its object is ours to remove."""
        try:
            data = await self._objects.get(returned.ref)
        except Exception:
            refusal = Unavailable("the result cannot be read", code="artifact-unavailable")
            for outcome in returned.outcomes:
                self._finish(outcome.id, refusal, None)
        else:
            self._on_reply(data)
            await self._remove(returned.ref)

    def _publish_again(self) -> None:
        """The broker was gone: its queue in memory may be, too. Unknown ids cost nothing."""
        for waiting in self.waiting.values():
            if waiting.job:
                self._post(waiting.workload, waiting.job)

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
        """Age of the oldest waiting job, by workload."""
        ages: dict[str, float] = {}
        now = time.time()
        workloads = sum(calls > 0 for calls in self.by_workload.values())
        for waiting in self.waiting.values():  # the oldest of all first
            ages.setdefault(waiting.workload, now - waiting.published)
            if len(ages) == workloads:
                break
        return ages


def post_stored(
    broker: Broker, queue: str, ids: list[str], most: int, refused: Callable[[Refusal], None]
) -> None:
    """Publishes stored jobs: the broker carries their ids. Lost or refused, they are published
    again by the clerk."""
    now = time.time()
    for parcel in parcels([stored_job(job_id, now) for job_id in ids], most):
        broker.publish(queue, parcel_bytes(parcel), refused)


def parcels(jobs: list[Job], most: int) -> Iterator[list[Job]]:
    """In order, at most `most` jobs each, and closed when the bodies reach PARCEL_BYTES."""
    parcel: list[Job] = []
    size = 0
    for job in jobs:
        parcel.append(job)
        size += len(job.body)
        if len(parcel) >= most or size >= PARCEL_BYTES:
            yield parcel
            parcel, size = [], 0
    if parcel:
        yield parcel
