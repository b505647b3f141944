"""The outcomes of stored jobs -> the store, then ack: one transaction for all that wait.

result ------------------------> succeeded
problem 4xx -------------------> failed        the input is to blame: a second run says the same
problem 5xx, tries are left ---> waiting       once more, after a pause
problem 5xx, none are left ----> dead
poison ------------------------> dead
not run here ------------------> waiting       at once or after a pause, held against nobody

While the database is away they are kept here and written when it is back: the lease may be over
by then and the job another's; the store refuses them then, and the broker is told all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import structlog

from headrace.errors import Problem, Unavailable
from headrace.failpoints import failpoint
from headrace.records import TERMINAL, Claim, Ending, State, retry_wait_s

if TYPE_CHECKING:
    from headrace.store.door import StoreDoor
    from headrace.store.open import Store
    from headrace.worker.take import Held

log = structlog.get_logger("headrace.worker")

AGAIN_S = 0.25
POISON = "poison-input"


class _Pending(NamedTuple):
    """`outcome` None: it did not run here, and may elsewhere `wait_s` from now."""

    held: Held
    claim: Claim
    outcome: bytes | Problem | None
    executed_ms: float = 0.0
    wait_s: float = 0.0


class Endings:
    def __init__(
        self,
        door: StoreDoor,
        settle: Callable[[Held], None],
        give_back: Callable[[Held], None],
        told: Callable[[list[str]], None],
        *,
        backoff_s: float,
        backoff_max_s: float,
    ) -> None:
        """`settle`, `give_back`: off the broker, or back to it. `told`: these jobs have ended."""
        self._door, self._settle, self._give_back, self._told = door, settle, give_back, told
        self._backoff_s, self._backoff_max_s = backoff_s, backoff_max_s
        self.version = ""
        #: Runs by how they ended, for deploy to judge the version by.
        self.answered = self.failed = self.refused = 0
        self._pending: list[_Pending] = []
        self._writing: asyncio.Task[None] | None = None

    def add(self, held: Held, outcome: bytes | Problem, executed_ms: float) -> None:
        assert held.claim is not None
        if isinstance(outcome, bytes):
            self.answered += 1
        elif outcome.code == POISON or (outcome.status >= 500 and outcome.status not in (503, 504)):
            self.failed += 1
        else:
            self.refused += 1
        self._add(_Pending(held, held.claim, outcome, executed_ms))

    def not_run(self, held: Held, wait_s: float = 0.0) -> None:
        """Somebody else should have it: at once, back to the broker; after a pause, by the
        clerk."""
        assert held.claim is not None
        self._add(_Pending(held, held.claim, None, wait_s=wait_s))

    def _add(self, pending: _Pending) -> None:
        self._pending.append(pending)
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write_all())

    async def _write_all(self) -> None:
        while self._pending:
            await asyncio.sleep(0)  # the rest of the batch
            batch, self._pending = self._pending, []
            later = await self._try(batch)
            if later:
                self._pending = later + self._pending
                await asyncio.sleep(AGAIN_S)
        self._writing = None

    async def _try(self, batch: list[_Pending]) -> list[_Pending]:
        """Gives those that could not be written now."""
        try:
            return await self._write(batch)
        except Unavailable:
            return batch
        except Exception:
            if len(batch) > 1:  # one of them, perhaps: the others' ends are not to be lost for it
                return [left for each in batch for left in await self._try([each])]
            log.exception("an ending cannot be written", job=batch[0].claim.id)
            self._settle(batch[0].held)  # its lease runs out
            return []

    async def _write(self, batch: list[_Pending]) -> list[_Pending]:
        store = await self._door.open()
        rested = await asyncio.gather(*(self._at_rest(store, each) for each in batch))
        later = [each for each, ending in zip(batch, rested, strict=True) if ending is None]
        endings = [ending for ending in rested if ending is not None]
        if not endings:
            return later
        failpoint("worker.finishing")
        written = await store.jobs.finish(endings)
        failpoint("worker.finished")
        by_id = {ending.id: ending for ending in endings}
        for held, claim, outcome, _, wait_s in batch:
            ending = by_id.get(claim.id)
            if ending is None:
                continue
            if claim.id not in written:
                log.warning("ending refused", job=claim.id, attempt=claim.attempt)
                with contextlib.suppress(Exception):  # swept when the job is gone
                    await store.bodies.remove(ending.result_ref)
            if outcome is None and not wait_s and claim.id in written:
                self._give_back(held)
            else:
                self._settle(held)
        ended = [e.id for e in endings if e.id in written and e.state in TERMINAL]
        if ended:
            self._told(ended)
        return later

    async def _at_rest(self, store: Store, pending: _Pending) -> Ending | None:
        """None: its result cannot be stored now, which is none of the others' business."""
        _, claim, outcome, executed_ms, _ = pending
        ending = self._ending(pending)
        if not isinstance(outcome, bytes):
            return ending
        purpose = f"result-{claim.attempt}"
        try:
            inline, ref = await store.bodies.rest(claim.tenant, purpose, claim.id, outcome)
        except Unavailable:
            return None
        return Ending(ending.id, ending.attempt, ending.state, self.version, inline, ref,
                      executed_ms=executed_ms)  # fmt: skip

    def _ending(self, pending: _Pending) -> Ending:
        _, claim, outcome, executed_ms, wait_s = pending
        if outcome is None:
            return Ending(claim.id, claim.attempt, State.WAITING, wait_s=wait_s, charged=False)
        if not isinstance(outcome, Problem):
            return Ending(claim.id, claim.attempt, State.SUCCEEDED)
        state, tries = State.FAILED, claim.tries + 1
        if outcome.code == POISON or (outcome.status >= 500 and tries >= claim.max_attempts):
            state = State.DEAD
        elif outcome.status >= 500:
            state = State.WAITING
            wait_s = retry_wait_s(tries, self._backoff_s, self._backoff_max_s, random.random())
        return Ending(claim.id, claim.attempt, state, self.version, problem=outcome,
                      executed_ms=executed_ms, wait_s=wait_s)  # fmt: skip

    @property
    def pending(self) -> bool:
        return self._writing is not None

    async def flush(self, wait_s: float) -> None:
        """Until all is written, or the time is over: then the leases run out by themselves."""
        if self._writing:
            await asyncio.wait([self._writing], timeout=wait_s)
