"""The calls of each minute, as far back as a forecast looks: loaded once, then added to."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from headrace.autoscale.forecast import DAY, Rates

KEPT_MIN = 8 * DAY


class History:
    """Minutes of Unix time. NaN: nobody saw it."""

    def __init__(self, known: Iterable[tuple[int, float]] = ()) -> None:
        """`known`: minute and calls, oldest first."""
        self._first = self._used = 0
        self._calls: Rates = np.zeros(0)
        for minute, calls in known:
            self._add(minute, calls)

    @property
    def end(self) -> int:
        """The minute after the last."""
        return self._first + self._used

    def put(self, minute: int, calls: float | None) -> None:
        self._add(minute, np.nan if calls is None else calls)

    def _add(self, minute: int, calls: float) -> None:
        if not self._used:
            self._first = minute
        if minute < self._first:
            return
        place = minute - self._first
        if place >= self._used + KEPT_MIN:  # nothing of what was is of use any more
            self._first, self._used, place = minute, 0, 0
        if place >= len(self._calls):
            self._make_room()
            place = minute - self._first
        self._calls[self._used : place] = np.nan
        if place >= self._used or not np.isnan(calls):
            self._calls[place] = calls
        self._used = max(self._used, place + 1)

    def _make_room(self) -> None:
        kept = self._calls[max(0, self._used - KEPT_MIN) : self._used]
        self._first += self._used - len(kept)
        self._used = len(kept)
        self._calls = np.concatenate([kept, np.full(2 * KEPT_MIN, np.nan)])

    def before(self, minute: int) -> Rates:
        """Oldest first, the last of the minute before. Minutes to come, and lost ones, are NaN."""
        if not self._used:
            return np.zeros(0)
        if minute > self.end:
            self._add(minute - 1, np.nan)
        end = minute - self._first
        return self._calls[max(0, end - KEPT_MIN) : max(0, end)]

    def most(self, first: int, last: int) -> float | None:
        """The greatest of [first, last]; None where less than half of them was seen."""
        part = self._calls[
            max(0, first - self._first) : max(0, min(last + 1, self.end) - self._first)
        ]
        seen = part[~np.isnan(part)]
        return float(seen.max()) if 2 * len(seen) >= last - first + 1 else None
