"""Results home, then ack: in that order, so that a worker's death between the two costs a second
run and never an answer. One message per gateway and batch."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.broker.port import Broker
from headrace.errors import Problem
from headrace.failpoints import failpoint
from headrace.jobs import Outcome, Returned, returned_bytes
from headrace.worker.take import Held


class Reply:
    def __init__(
        self, broker: Broker, model: str, worker: str, settle: Callable[[Held], None]
    ) -> None:
        self._broker, self._model, self._worker, self._settle = broker, model, worker, settle
        self.version = ""

    def batch(self, batch: list[Held], outcomes: list[bytes | Problem], executed_ms: float) -> None:
        by_gateway: dict[str, list[Outcome]] = {}
        for held, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Problem):
                entry = held.outcome(b"", outcome, executed_ms)
            else:
                entry = held.outcome(outcome, None, executed_ms)
            by_gateway.setdefault(held.job.reply_to, []).append(entry)
        for gateway, entries in by_gateway.items():
            returned = Returned(self._model, self.version, self._worker, time.time(), entries)
            self._broker.send(gateway, returned_bytes(returned))
        failpoint("worker.replied")
        for held in batch:
            self._settle(held)

    def refuse(self, held: Held, problem: Problem) -> None:
        self.batch([held], [problem], 0.0)
