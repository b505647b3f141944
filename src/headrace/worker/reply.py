"""Results home, then ack: in that order, so that a worker's death between the two costs a second
run and never an answer. One message per gateway and batch; a stored job's go to the store."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable

from msgspec import structs

from headrace.broker.port import Broker
from headrace.errors import Problem, Unavailable
from headrace.failpoints import armed, failpoint
from headrace.jobs import Outcome, Returned, returned_bytes
from headrace.objects.port import Objects
from headrace.worker.take import Held

#: A message larger than this goes by reference through the objects: a broker takes only so much
#: (NATS 1 MB, and it ends the connection of whoever sends more).
LARGEST = 512 * 1024


class Reply:
    def __init__(
        self,
        broker: Broker,
        objects: Objects,
        workload: str,
        worker: str,
        settle: Callable[[Held], None],
        stored: Callable[[Held, bytes | Problem, float], None],
    ) -> None:
        self._broker, self._objects = broker, objects
        self._workload, self._worker, self._settle = workload, worker, settle
        self._stored = stored
        self.version = ""
        self._numbers = itertools.count(1)
        self._large: set[asyncio.Task[None]] = set()

    def batch(self, batch: list[Held], outcomes: list[bytes | Problem], executed_ms: float) -> None:
        by_gateway: dict[str, list[Outcome]] = {}
        answered: list[Held] = []
        for held, outcome in zip(batch, outcomes, strict=True):
            if held.claim is not None:
                self._stored(held, outcome, executed_ms)
                continue
            answered.append(held)
            if isinstance(outcome, Problem):
                entry = held.outcome(b"", outcome, executed_ms)
            else:
                entry = held.outcome(outcome, None, executed_ms)
            by_gateway.setdefault(held.job.reply_to, []).append(entry)
        large: list[tuple[str, list[Outcome], bytes]] = []
        for gateway, entries in by_gateway.items():
            data = self._message(entries)
            if len(data) <= LARGEST:
                self._broker.send(gateway, data)
            else:
                large.append((gateway, entries, data))
        if large:
            task = asyncio.ensure_future(self._by_reference(large, answered))
            self._large.add(task)
            task.add_done_callback(self._large.discard)
        elif armed("worker.replied"):  # replies leave with this turn's one write: die after it
            asyncio.get_running_loop().call_later(0.01, self._settle_all, answered)
        elif answered:
            self._settle_all(answered)

    def _message(self, entries: list[Outcome], ref: str = "") -> bytes:
        return returned_bytes(
            Returned(self._workload, self.version, self._worker, time.time(), entries, ref)
        )

    def _settle_all(self, batch: list[Held]) -> None:
        failpoint("worker.replied")
        for held in batch:
            self._settle(held)

    async def _by_reference(
        self, large: list[tuple[str, list[Outcome], bytes]], batch: list[Held]
    ) -> None:
        for gateway, entries, data in large:
            ref, problem = f"{gateway}-{self._worker}-{next(self._numbers)}", None
            try:
                await self._objects.put(ref, data)
            except Exception:
                refusal = Unavailable("the result cannot be stored", code="storage-unavailable")
                ref, problem = "", refusal.problem()
            bare = [
                structs.replace(entry, body=b"", problem=entry.problem or problem)
                for entry in entries
            ]
            self._broker.send(gateway, self._message(bare, ref))
        self._settle_all(batch)

    async def flush(self) -> None:
        """Until all that goes by reference is on its way."""
        await asyncio.gather(*self._large, return_exceptions=True)

    def refuse(self, held: Held, problem: Problem) -> None:
        self.batch([held], [problem], 0.0)
