"""Forecasts and what came of them: each is settled when the minutes that it was of are over."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from headrace.autoscale.forecast import DAY
from headrace.autoscale.history import History
from headrace.autoscale.margin import Settled

KEPT_MIN = 8 * DAY


class Forecasted(NamedTuple):
    """Made in `minute` of Unix time: the greatest calls a minute of [first, last]."""

    minute: int
    first: int
    last: int
    foretold: float


class Foretold:
    def __init__(self) -> None:
        self._open: deque[Forecasted] = deque()
        self._settled: deque[tuple[int, float, float]] = deque()

    def keep(self, made: Forecasted, came: float | None = None) -> None:
        """In the order in which they were made. `came`: of one that is settled."""
        if came is None:
            self._open.append(made)
        else:
            self._settled.append((made.minute, made.foretold, came))

    def settle(self, history: History, now_minute: int) -> dict[int, float]:
        """By the minutes in which they were made, what came of those that are over now."""
        came = {}
        while self._open and self._open[0].last < now_minute:
            made = self._open.popleft()
            most = history.most(made.first, made.last)
            if most is not None:  # else nobody saw it
                came[made.minute] = most
                self._settled.append((made.minute, made.foretold, most))
        while self._settled and self._settled[0][0] < now_minute - KEPT_MIN:
            self._settled.popleft()
        return came

    def settled(self) -> Settled:
        minute, foretold, came = zip(*self._settled, strict=True) if self._settled else ((),) * 3
        return Settled(np.array(minute, np.int64), np.array(foretold), np.array(came))
