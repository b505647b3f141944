"""The counts that KEDA is told, by workload, for as long as somebody stands by them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Two of the minutes in which the autoscaler decides may be missed; then it is no longer believed.
FRESH_S = 150.0


class Figures:
    def __init__(
        self, fresh_s: float = FRESH_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fresh_s, self._clock = fresh_s, clock
        self._counts: dict[str, int] = {}
        self._stood_by: dict[str, float] = {}
        self._watchers: set[asyncio.Event] = set()

    def put(self, workload: str, count: int) -> None:
        self._counts[workload] = count
        self.stand_by(workload)
        for changed in self._watchers:
            changed.set()

    def stand_by(self, workload: str) -> None:
        """Whoever put the figure lives, and means it still."""
        self._stood_by[workload] = self._clock()

    def last(self, workload: str) -> int | None:
        """The figure, however old."""
        return self._counts.get(workload)

    def desired(self, workload: str) -> int | None:
        """None where nobody stands by a figure."""
        since = self._clock() - self._stood_by.get(workload, float("-inf"))
        return self._counts.get(workload) if since <= self._fresh_s else None

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """The event is set at each `put`; who waits for it clears it."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            yield changed
        finally:
            self._watchers.discard(changed)
