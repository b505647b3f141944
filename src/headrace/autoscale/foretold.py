"""Forecasts and what came of them: each is settled when the minutes that it was of are over."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from headrace.autoscale.forecast import DAY
from headrace.autoscale.history import History
from headrace.autoscale.margin import Settled, room

KEPT_MIN = 8 * DAY
ROOM = DAY


class Forecasted(NamedTuple):
    """Made in `minute` of Unix time: the greatest calls a minute of [first, last]."""

    minute: int
    first: int
    last: int
    foretold: float


class Foretold:
    def __init__(self) -> None:
        self._open: deque[Forecasted] = deque()
        self._all = room(ROOM)
        self._first = self._end = 0  # of those in it that are settled and kept

    def keep(self, made: Forecasted, came: float | None = None) -> None:
        """In the order in which they were made. `came`: of one that is settled."""
        if came is None:
            self._open.append(made)
        else:
            self._put(made, came)

    def settle(self, history: History, now_minute: int) -> dict[int, float]:
        """By the minutes in which they were made, what came of those that are over now."""
        came = {}
        while self._open and self._open[0].last < now_minute:
            made = self._open.popleft()
            most = history.most(made.first, made.last)
            if most is not None:  # else nobody saw it
                came[made.minute] = most
                self._put(made, most)
        self._first += int(self.settled().minute.searchsorted(now_minute - KEPT_MIN))
        return came

    def settled(self) -> Settled:
        """The oldest first."""
        minute, foretold, came = self._all
        kept = slice(self._first, self._end)
        return Settled(minute[kept], foretold[kept], came[kept])

    def _put(self, made: Forecasted, came: float) -> None:
        if self._end == len(self._all.minute):
            kept = self.settled()
            self._first, self._end = 0, len(kept.minute)
            self._all = room(2 * self._end + ROOM)
            for column, before in zip(self._all, kept, strict=True):
                column[: self._end] = before
        for column, value in zip(self._all, (made.minute, made.foretold, came), strict=True):
            column[self._end] = value
        self._end += 1
