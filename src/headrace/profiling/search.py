"""The greatest rate that is sustained: a ramp up, then halving, then a second look. Decides only;
what measures is given.

    3/4 of the guess --x1.4--> ... --first that fails--> halve, on the log scale, to 3 % --> again

A window that failed by little is run again, twice as long: an overload grows with time, chance does
not.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from headrace.profiling.window import Window

RAMP = 1.4
START = 0.75  # of the guess
TOLERANCE = 1.03
COARSE = 1.15  # until low and high are as near, windows are half as long
LEAST = 0.05  # of the start: where that is too much, a call alone is late
STEP_DOWN = 1.04  # where the second look fails
#: Of the machine that its host kept: what failed meanwhile is looked at again.
STOLEN = 0.1

#: Runs one window: calls a second, seconds.
Measure = Callable[[float, float], Awaitable[Window]]


@dataclass(frozen=True)
class Limits:
    """Windows are as long as `calls` take, within `least_s` to `most_s`."""

    calls: int = 300
    least_s: float = 2.0
    most_s: float = 10.0
    #: Calls a second: above it nothing is tried.
    rate: float = 10_000.0

    def seconds(self, rate: float, fine: bool = True) -> float:
        full = min(max(self.calls / rate, self.least_s), self.most_s)
        return full if fine else max(full / 2, min(self.least_s, full))


@dataclass
class Found:
    """`rate` is 0 where none was sustained. `good`: the windows of that rate."""

    rate: float = 0.0
    confirmed: bool = False
    good: list[Window] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)


class Search:
    def __init__(self, measure: Measure, limits: Limits, left: Callable[[float], bool]) -> None:
        """`left`: is there time for so many seconds more?"""
        self._measure, self._limits, self._left = measure, limits, left
        self._found = Found()
        self._low, self._high, self._least = 0.0, math.inf, 0.0

    async def greatest(self, guess: float) -> Found:
        rate = min(guess * START, self._limits.rate)
        self._least = max(rate * LEAST, 1 / self._limits.most_s)
        while rate and self._left(self._seconds(rate) + self._limits.seconds(rate)):
            window = await self._look(rate)
            if window.why_not():
                self._high = rate
            else:
                self._low, self._found.good = rate, [window]
            rate = self._next()
        self._found.rate = self._low
        await self._confirm()
        return self._found

    def _next(self) -> float:
        """The rate to try, 0 where it is found."""
        if not self._low:
            down = self._high / RAMP**2
            return down if down >= self._least else 0.0
        if math.isinf(self._high):
            return 0.0 if self._low >= self._limits.rate else min(
                self._low * RAMP, self._limits.rate
            )  # fmt: skip
        return math.sqrt(self._low * self._high) if self._high / self._low > TOLERANCE else 0.0

    async def _look(self, rate: float) -> Window:
        """One window; a second one where the first may have failed by chance."""
        seconds = self._seconds(rate)
        window = await self._window(rate, seconds)
        if not window.why_not():
            return window
        if window.stolen > STOLEN and self._left(seconds):
            return await self._window(rate, seconds)
        if window.close_call and self._left(2 * seconds):
            return await self._window(rate, 2 * seconds)
        return window

    def _seconds(self, rate: float) -> float:
        return self._limits.seconds(rate, fine=self._low > 0 and self._high / self._low < COARSE)

    async def _window(self, rate: float, seconds: float) -> Window:
        window = await self._measure(rate, seconds)
        self._found.windows.append(window)
        return window

    async def _confirm(self) -> None:
        """The rate once more, and a little less each time that it does not hold. Out of time, it is
        the greatest that held once below those that did not."""
        found = self._found
        while found.rate and not found.confirmed and self._left(0.0):
            window = await self._window(found.rate, self._limits.seconds(found.rate))
            if window.why_not():
                found.rate /= STEP_DOWN
                found.good = []
            else:
                found.good.append(window)
                found.confirmed = True
        if found.rate and not found.good:
            held = [w for w in found.windows if not w.why_not() and w.rate <= found.rate]
            found.good = sorted(held, key=lambda window: window.rate)[-1:]
            found.rate = found.good[0].rate if found.good else 0.0
