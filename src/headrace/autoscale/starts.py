"""L, the lead time: from asking for a worker to its first answer, as measured."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

QUANTILE = 0.95
LOST_S = 3_600.0  # a worker that was asked for so long ago does not come any more


class Starts:
    """Of one model. Who was asked for first is ready first."""

    def __init__(self) -> None:
        self._asked: deque[float] = deque()

    def asked(self, before: int, count: int, now: float) -> None:
        """Those that are not wanted any more are the ones that were asked for last."""
        self._asked.extend([now] * max(0, count - before))
        for _ in range(min(len(self._asked), before - count)):
            self._asked.pop()

    def forget(self) -> None:
        """Somebody else starts workers, too: who is ready next may be theirs."""
        self._asked.clear()

    def ready(self, now: float) -> float | None:
        """A worker is ready for the first time: how long it took, where it was asked for."""
        while self._asked and now - self._asked[0] > LOST_S:
            self._asked.popleft()
        return now - self._asked.popleft() if self._asked else None


def lead_s(took: Sequence[float], start_s: float) -> float:
    """The p95 of what was measured; `start_s`, the profile's, before anything was."""
    if not took:
        return start_s
    return sorted(took)[math.ceil(QUANTILE * len(took)) - 1]
