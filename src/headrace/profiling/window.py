"""A window of load, and whether the house kept up with it. Pure.

        warm-up        | first quarter |               | last quarter  |
    -------------------0-------------------------------------------- seconds

The queue grew where more calls were open in the last quarter than in the first. What is open at a
time is told from when calls were due, so that a load that came late hides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

#: Of the calls that came: fewer answers are too few, and so much growth of the queue is too much.
ANSWERED = 0.98
GROWTH = 0.02
#: p95 below so many times the promise is near it: such a window is worth another look.
NEAR = 1.5


@dataclass
class Call:
    """Times in seconds from the window's begin; `end` is infinite where none came."""

    due: float
    end: float = math.inf
    right: bool = False

    @property
    def took_s(self) -> float:
        """Infinite where there was no answer."""
        return self.end - self.due if self.right else math.inf


@dataclass
class Window:
    rate: float
    seconds: float
    slo_s: float
    #: Jobs that may run at once: the count of open calls moves by as many, and nothing is meant.
    at_once: int
    #: Calls came at even intervals, not at random times.
    steady: bool = False
    #: In the order they were due; those before 0 warmed up.
    calls: list[Call] = field(default_factory=list)
    #: Given up before its end: it was hopeless.
    cut: bool = False
    #: Measured beside it.
    batch: float = 0.0
    service_s: float = 0.0
    executed_ms: list[float] = field(default_factory=list)
    beside_waiting_ms: list[float] = field(default_factory=list)
    stolen: float = 0.0
    driver_busy: float = 0.0
    _took_s: list[float] = field(default_factory=list)

    @property
    def counted(self) -> list[Call]:
        return [call for call in self.calls if call.due >= 0]

    def took_s(self) -> list[float]:
        """Of the calls that count, ascending; infinite where there was no answer."""
        if not self._took_s:
            self._took_s = sorted(call.took_s for call in self.counted)
        return self._took_s

    def p(self, share: float) -> float:
        return quantile(self.took_s(), share)

    @property
    def answered(self) -> float:
        """Share of the calls."""
        took = self.took_s()
        return sum(map(math.isfinite, took)) / len(took) if took else 0.0

    def open(self, start: float, end: float) -> float:
        """Calls open at once, in the mean over that time."""
        return sum(max(0.0, min(call.end, end) - max(call.due, start)) for call in self.calls) / (
            end - start
        )

    def grown(self) -> float:
        """Calls that are too many for what happens by chance; 0 or less: none."""
        quarter = self.seconds / 4
        first = self.open(0, quarter)
        more = self.open(3 * quarter, self.seconds) - first
        by_chance = self.at_once / 2 + (1 if self.steady else 2 * math.sqrt(first + 1))
        return more - max(GROWTH * len(self.counted), by_chance)

    def why_not(self) -> str:
        """Why the rate was not sustained; "" where it was."""
        if self.answered < ANSWERED and not self.cut:
            return f"only {self.answered:.0%} were answered in time"
        if self.cut or self.p(0.95) > self.slo_s:
            p95 = self.p(0.95)
            return f"p95 {p95:.3g} s" if math.isfinite(p95) else "the queue ran away"
        return "the queue grew" if self.grown() > 0 else ""

    @property
    def close_call(self) -> bool:
        """Not sustained by so little that chance may have been it."""
        near = self.p(0.95) <= NEAR * self.slo_s and self.answered >= ANSWERED - 0.05
        return bool(self.why_not()) and near and not self.cut


def quantile(ascending: list[float], share: float) -> float:
    """The value that `share` of them do not exceed; 0 of none."""
    if not ascending:
        return 0.0
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def cv2(values: Iterable[float]) -> float:
    """Squared coefficient of variation; 0 of none."""
    found = list(values)
    mean = sum(found) / len(found) if found else 0.0
    if not mean:
        return 0.0
    return sum((value - mean) ** 2 for value in found) / len(found) / mean**2


def line(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Size and time of batches -> (fixed, per item), neither below 0, by least squares over the
    median of each size; all is per item where sizes never varied."""
    sizes = sorted({size for size, _ in points})
    if not sizes:
        return 0.0, 0.0
    medians = [quantile(sorted(took for size, took in points if size == n), 0.5) for n in sizes]
    mean_n, mean_t = sum(sizes) / len(sizes), sum(medians) / len(sizes)
    spread = sum((n - mean_n) ** 2 for n in sizes)
    if not spread:
        return 0.0, mean_t / mean_n
    pairs = zip(sizes, medians, strict=True)
    slope = sum((n - mean_n) * (t - mean_t) for n, t in pairs) / spread
    slope = min(max(slope, 0.0), mean_t / mean_n)
    return mean_t - slope * mean_n, slope
