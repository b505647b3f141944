r"""Stored jobs become this worker's: claimed in the database, their input fetched, their lease
renewed while they are in hand.

held (an id) --claim, all of a turn together--> ready (a body)
             \--- somebody else's, or over ---> off the broker

No more is claimed than can soon be run: what came while the database was away or slow, hundreds
perhaps, would have its leases run out here together, and be run again elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from headrace.background import Background
from headrace.errors import Problem, Refusal, Unavailable
from headrace.failpoints import failpoint
from headrace.records import Claim, Queue

if TYPE_CHECKING:
    from headrace.store.door import StoreDoor
    from headrace.worker.take import Held

log = structlog.get_logger("headrace.worker")

AGAIN_S = 0.25  # the database is away: the jobs wait here, held, and are asked for again
AWAY_S = 2.0  # the objects are away: the job waits elsewhere, and holds up no other


class Claims:
    def __init__(
        self,
        door: StoreDoor,
        worker: str,
        lease_s: float,
        *,
        ready: Callable[[Held], None],
        refuse: Callable[[Held, Problem], None],
        later: Callable[[Held, float], None],
        nothing: Callable[[Held], None],
        room: Callable[[], int],
    ) -> None:
        """`later`: its input cannot be had now, for which nobody is to blame; so many seconds from
        now perhaps. `nothing`: there is nothing to be done with this one; off the broker with
        it. `room`: for how many more that are ready."""
        self._door, self._worker, self._lease_s = door, worker, lease_s
        self._ready, self._refuse, self._later, self._nothing = ready, refuse, later, nothing
        self._room = room
        self._asked: list[Held] = []
        self._claiming = 0
        #: Claimed, and ready in a moment: their input is in the row. An input that lies elsewhere
        #: takes up no room on its way, or a slow place for objects would hold up all others.
        self._opening = 0
        self.away = False  # the database, when it was last asked
        self.owned: dict[str, Held] = {}
        self._asking: asyncio.Future[None] | None = None
        self._background = Background()
        self._closed = False

    @property
    def coming(self) -> int:
        """Jobs in hand that are still to be claimed."""
        return len(self._asked) + self._claiming

    def _free(self) -> int:
        return self._room() - self._opening

    def ask(self, held: Held) -> None:
        if held.queue is Queue.AGAIN:
            self._asked.insert(0, held)
        else:
            self._asked.append(held)
        self.more()

    def more(self) -> None:
        """There may be room now."""
        if self._asked and self._asking is None and not self._closed and self._free() > 0:
            self._asking = self._background.spawn(self._ask_all())

    async def _ask_all(self) -> None:
        await asyncio.sleep(0)  # the rest of this turn's deliveries
        while self._asked and not self._closed and (free := self._free()) > 0:
            batch, self._asked = self._asked[:free], self._asked[free:]
            self._claiming = len(batch)
            try:
                store = await self._door.open()
                ids = [held.job.stored for held in batch]
                claims = await store.jobs.claim(ids, self._worker, self._lease_s)
            except Exception as error:
                if not isinstance(error, Unavailable):
                    log.exception("claiming failed")
                self.away = True
                self._asked, self._claiming = batch + self._asked, 0
                await asyncio.sleep(AGAIN_S)
                continue
            self.away, self._claiming = False, 0
            failpoint("worker.claimed")
            by_id = {claim.id: claim for claim in claims}
            for held in batch:
                self._claimed(held, by_id.get(held.job.stored))
        self._asking = None

    def _claimed(self, held: Held, claim: Claim | None) -> None:
        if claim is None:
            self._nothing(held)
            return
        held.claim = claim
        held.deadline = time.time() + claim.left_s
        self.owned[claim.id] = held
        self._opening += not claim.input_ref
        self._background.spawn(self._open(held, claim))

    async def _open(self, held: Held, claim: Claim) -> None:
        refusal: Refusal | None = None
        try:
            store = await self._door.open()
            held.body = await store.bodies.fetch(
                claim.tenant, "input", claim.id, claim.input, claim.input_ref
            )
        except Refusal as error:
            refusal = error
        finally:
            self._opening -= not claim.input_ref
        if refusal is None:
            self._ready(held)
        elif refusal.retry_after_s:
            self._later(held, AWAY_S)
        else:
            self._refuse(held, refusal.problem())

    def forget(self, held: Held) -> None:
        """It is not this worker's any more."""
        if held.claim:
            self.owned.pop(held.claim.id, None)

    async def renew_all(self) -> None:
        """At a quarter of the lease, for ever. What was lost is not run, where it does not run yet;
        what it comes to is refused by the store."""
        while True:
            await asyncio.sleep(self._lease_s / 4)
            owned = {
                job_id: held.claim.attempt for job_id, held in self.owned.items() if held.claim
            }
            if not owned:
                continue
            try:
                store = await self._door.open()
                for job_id in await store.jobs.renew(owned, self._worker, self._lease_s):
                    self._lost(job_id, owned[job_id])
            except Unavailable:
                continue
            except Exception:  # the next round may fare better: without one all is lost
                log.exception("leases not renewed")

    def _lost(self, job_id: str, attempt: int) -> None:
        held = self.owned.get(job_id)
        if held and held.claim and held.claim.attempt == attempt:
            del self.owned[job_id]
            held.cancelled = True
            log.warning("lease lost", job=job_id, attempt=attempt)

    def close(self) -> list[Held]:
        """No more claims. Those that were asked for and not got."""
        self._closed = True
        left, self._asked = self._asked, []
        return left

    async def landed(self, wait_s: float) -> None:
        """Until the claims that were under way have come to something, or the time is over."""
        await self._background.idle(wait_s)
