"""Jobs in the queue of a version that gets no calls any more: taken out, and put into the queue of
one that does. Its workers, while there are any, take theirs as before."""

from __future__ import annotations

import time
from functools import partial
from typing import NamedTuple

import structlog

from headrace.broker.port import Broker, Delivery, Intake
from headrace.clerk.follow import Follow
from headrace.deployments import bucket, parted
from headrace.errors import Refusal
from headrace.jobs import Job, parcel_bytes, read_parcel
from headrace.records import Queue, queue_name

log = structlog.get_logger("headrace.clerk")

AT_ONCE = 64  # parcels
PATIENCE_S = 2.0  # that long it is its workers' alone
FORGET_AFTER_S = 60.0  # no longer comes a job from a gateway that did not know


class _Left(NamedTuple):
    since: float
    intakes: list[Intake]


class Strays:
    def __init__(self, broker: Broker, follow: Follow) -> None:
        self._broker, self._follow = broker, follow
        self._left: dict[str, _Left] = {}

    async def look(self) -> None:
        """Once a second."""
        now = time.monotonic()
        left = self._follow.left()
        for workload in left:
            found = self._left.setdefault(workload, _Left(now, []))
            if now - found.since > FORGET_AFTER_S:
                await self._end(workload)
                self._follow.forget(workload)
            elif now - found.since >= PATIENCE_S:
                await self._take(workload, found)
        for workload in set(self._left) - set(left):
            await self._end(workload)

    async def _take(self, workload: str, found: _Left) -> None:
        if not found.intakes:
            for queue in Queue:
                name = queue_name(workload, queue)
                try:
                    if not (await self._broker.depth(name)).waiting:
                        continue
                    move = partial(self._move, workload, queue)
                    found.intakes.append(await self._broker.take(name, move))
                except Refusal:  # no such queue, or the broker is away
                    continue
        for intake in found.intakes:
            intake.want(AT_ONCE)

    def _move(self, workload: str, queue: Queue, delivery: Delivery) -> None:
        model, _ = parted(workload)
        jobs = [job for job in read_parcel(delivery.data) if job.deadline > time.time()]
        moved: dict[str, list[Job]] = {}
        for job in jobs:
            if job.stored:
                to = self._follow.workload(model, job.stored)
            else:
                to = self._follow.at(model, bucket(model, f"{job.reply_to}-{job.id}".encode()))
            moved.setdefault(to, []).append(job)
        for to, parcel in moved.items():
            self._broker.publish(queue_name(to, queue), parcel_bytes(parcel), _not_taken)
        delivery.ack()
        log.info("strays", workload=workload, jobs=len(jobs))

    async def _end(self, workload: str) -> None:
        found = self._left.pop(workload, None)
        for intake in found.intakes if found else []:
            await intake.close()

    async def close(self) -> None:
        for workload in list(self._left):
            await self._end(workload)


def _not_taken(refusal: Refusal) -> None:
    """A stored job is due again by itself, a call's gateway publishes it again."""
    log.debug("stray not published", code=refusal.code)
