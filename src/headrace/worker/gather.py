"""Jobs -> batches, formed when the model is free.

                    +-- a slot is free, and: full? waited long enough? a deadline near? --> batch
    waiting jobs ---+
                    +-- else wait: for more jobs, for a slot, for the timer

Formed late, a batch holds what waits at the moment the model can run it: under load batches grow by
themselves, and with little load nobody waits. A part of a batch that crashed a model process goes
first and alone (`first`): it must not meet others until it is known who is to blame; nor may it
take the last slot of several, which it may crash or hang, too. Next come jobs that run again, in
the queue before all others, which have waited their turn once and wait for no company. Last comes
bulk, until it is old: then it stands with the rest, here as on the broker, or calls that never end
would keep it in this worker's hand for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from headrace.fit import Fit
from headrace.model import Batching
from headrace.records import Queue
from headrace.worker.take import Held

#: Run a batch whose nearest deadline leaves no more than this beside its own run time.
DEADLINE_NEAR_S = 0.02
#: A job that has less left than this share of its batch's expected time comes too late, run or not.
LATE_SHARE = 0.8


class Gather:
    def __init__(
        self,
        batching: Batching,
        fit: Fit,
        *,
        free: Callable[[], int],
        run: Callable[[list[Held]], None],
        expired: Callable[[Held], None],
        ageing_s: float,
        may_risk: Callable[[], bool] = lambda: True,
    ) -> None:
        self.batching, self._fit = batching, fit
        self._free, self._run, self._expired = free, run, expired
        self._ageing_s, self._may_risk = ageing_s, may_risk
        self.waiting: deque[Held] = deque()
        self.bulk: deque[Held] = deque()  # fills what the others leave free
        self.apart: deque[list[Held]] = deque()
        self._turn_asked = False
        self._timer: asyncio.TimerHandle | None = None
        self._freed_at = 0.0

    def add(self, held: Held) -> None:
        if held.queue is Queue.AGAIN:
            self.waiting.insert(self.again(), held)
        else:
            (self.bulk if held.queue is Queue.BULK else self.waiting).append(held)
        self.ask()

    def again(self) -> int:
        """How many of those that wait run again: they stand in front."""
        count = 0
        for held in self.waiting:
            if held.queue is not Queue.AGAIN:
                break
            count += 1
        return count

    def first(self, batch: list[Held]) -> None:
        """This batch next, as it is."""
        self.apart.append(batch)
        self.ask()

    def ask(self) -> None:
        """A turn at the end of this loop iteration: jobs that came in one read go together."""
        if not self._turn_asked:
            self._turn_asked = True
            asyncio.get_running_loop().call_soon(self.turn)

    def freed(self) -> None:
        """A slot has become free: a wait for company counts from now, not from when the first job
        came. Callers who wait for answers come back in a burst just after a batch; counted from
        the job, those few who missed it would run at once and alone, and the burst after them."""
        self._freed_at = time.time()
        self.turn()

    def turn(self) -> None:
        self._turn_asked = False
        while self._free():
            batch = self._next(time.time())
            if not batch:
                return
            self._run(batch)

    def _next(self, now: float) -> list[Held]:
        while self.apart and self._may_risk():
            apart = self._unexpired(self.apart.popleft(), now)
            if apart:
                return apart
        aged = now - self._ageing_s
        while self.bulk and (
            len(self.waiting) < self.batching.max_size or self.bulk[0].job.published <= aged
        ):
            self.waiting.append(self.bulk.popleft())
        if not self.waiting or self._worth_waiting(now):
            return []
        batch: list[Held] = []
        while self.waiting and not batch:
            size = min(len(self.waiting), self.batching.max_size)
            batch = self._unexpired([self.waiting.popleft() for _ in range(size)], now)
        for held in batch:
            held.gathered_ms = (now - held.taken) * 1000
        return batch

    def _unexpired(self, batch: list[Held], now: float) -> list[Held]:
        """Drops what cannot be answered in time, run or not, and what nobody waits for.

        What will be late by the fit alone is dropped only where others wait behind it: a model that
        was slow once must be given a batch to show that it is quick again."""
        last_start = now
        if self.waiting:
            last_start += self._fit.took_ms(len(batch)) * LATE_SHARE / 1000
        late = [held for held in batch if held.deadline <= last_start or held.cancelled]
        for held in late:
            self._expired(held)
        return [held for held in batch if held not in late] if late else batch

    def _worth_waiting(self, now: float) -> bool:
        """True, with a timer set, where the policy lets the batch wait for more."""
        wait_ms, size = self.batching.max_wait_ms, len(self.waiting)
        if not wait_ms or size >= self.batching.max_size or self.again():
            return False
        left_s = max(self.waiting[0].taken, self._freed_at) + wait_ms / 1000 - now
        if left_s <= 0:
            return False
        nearest = min(held.deadline for held in self.waiting)
        if nearest - now - self._fit.took_ms(size + 1) / 1000 <= DEADLINE_NEAR_S:
            return False
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(left_s, self.turn)
        return True

    def drain(self) -> list[Held]:
        """All that is not running, to be given back."""
        left = [*self.waiting, *self.bulk, *(held for batch in self.apart for held in batch)]
        self.waiting.clear()
        self.bulk.clear()
        self.apart.clear()
        return left
