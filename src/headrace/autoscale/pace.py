"""The policy's clock: Unix time, or, for a day in half an hour, one that runs faster."""

from __future__ import annotations

import time


class Pace:
    """`speed`: policy seconds in a real one. At `since`, in Unix time, the policy's clock showed
    `begins`; whoever starts again with the same two goes on in time."""

    def __init__(self, speed: float = 1.0, since: float = 0.0, begins: float = 0.0) -> None:
        self.speed, self._since, self._begins = speed, since, begins

    def now(self) -> float:
        return self._begins + (time.time() - self._since) * self.speed

    def real_s(self, policy_s: float) -> float:
        return policy_s / self.speed
