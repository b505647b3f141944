"""Calls a minute for each minute ahead: the greater of a damped trend and the season. Pure.

    trend   mean of the last 10 + slope of the last 30, each further minute of it weighs 0.97 less
    season  median of the same minute 1, 2, 3 and 7 days back, drawn towards what is seen today

They are not blended by their errors: overnight the trend looks perfect, and it misses 09:00.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rates = NDArray[np.float64]

DAY = 1440  # minutes
LAGS = (1, 2, 3, 7)  # days
NEAR, LONG = 10, 30  # minutes of the level and of the slope
SMOOTH = 5  # minutes over which the season is smoothed
DAMPING, RETURN = 0.97, 0.985
RATIO_MOST = 3.0  # of today to the season

_NOTHING = np.zeros(1)


class Forecast(NamedTuple):
    """Calls a minute; [h] is minute now + h. Without a day of history there is no season."""

    trend: Rates
    season: Rates | None
    #: What the season says of the last half hour: what a fall is held against.
    season_now: float | None

    @property
    def both(self) -> Rates:
        if self.season is None:
            return self.trend
        greater: Rates = np.maximum(self.trend, self.season)
        return greater


def forecast(arrivals: Rates, ahead: int) -> Forecast:
    """`arrivals` a minute, the last of the minute before now, without gaps (see `filled`)."""
    now_season, ahead_season = _season(arrivals, ahead)
    return Forecast(_trend(arrivals, ahead), ahead_season, now_season)


def filled(arrivals: Rates) -> Rates:
    """NaN, a minute that nobody saw, becomes what was seen before it; 0 at the beginning."""
    if not math.isnan(arrivals.sum()):
        return arrivals
    gone = np.isnan(arrivals)
    last = np.maximum.accumulate(np.where(gone, -1, np.arange(len(arrivals))))
    known: Rates = np.where(last < 0, 0.0, arrivals[last])
    return known


def _trend(arrivals: Rates, ahead: int) -> Rates:
    if not len(arrivals):
        return np.zeros(ahead)
    near = arrivals[-NEAR:]
    level = near.sum() / len(near)
    trend: Rates = np.maximum(level + slope(arrivals, LONG) * _damped(ahead), 0.0)
    return trend


def slope(arrivals: Rates, minutes: int) -> float:
    """Least squares over the last minutes: calls a minute, a minute. 0 while there are fewer."""
    if len(arrivals) < minutes:
        return 0.0
    return float(arrivals[-minutes:] @ _centred(minutes))


def _season(arrivals: Rates, ahead: int) -> tuple[float | None, Rates | None]:
    half = SMOOTH // 2
    before, behind = LONG + half, ahead + half
    now, seen = len(arrivals), []
    for lag in LAGS:
        start, end = now - lag * DAY - before, now - lag * DAY + behind
        if start >= 0 and end <= now:
            seen.append(arrivals[start:end])
    if not seen:
        return None, None
    heaped = _median(np.array(seen)).cumsum()
    smooth = (heaped[SMOOTH - 1 :] - np.concatenate([_NOTHING, heaped[:-SMOOTH]])) / SMOOTH
    then, coming = float(smooth[:LONG].sum()) / LONG, smooth[LONG:]
    today = float(arrivals[-LONG:].sum()) / LONG
    ratio = min(max(today / max(then, 1e-9), 1 / RATIO_MOST), RATIO_MOST)
    drawn: Rates = coming * (1 + (ratio - 1) * (0.5 + 0.5 * _returning(ahead)))
    return then, drawn


def _median(rows: Rates) -> Rates:
    """Of at most four rows: without the greatest and the least, what is left is the middle."""
    whole: Rates = rows.sum(axis=0)
    if len(rows) < 3:
        return whole / len(rows)
    middle: Rates = (whole - rows.max(axis=0) - rows.min(axis=0)) / (len(rows) - 2)
    return middle


@lru_cache
def _centred(minutes: int) -> Rates:
    apart = np.arange(minutes) - (minutes - 1) / 2
    weights: Rates = apart / (apart @ apart)
    return weights


@lru_cache
def _damped(ahead: int) -> Rates:
    """Sum of 0.97^i, i <= h, for each h."""
    sums: Rates = (DAMPING ** np.arange(ahead, dtype=np.float64)).cumsum()
    return sums


@lru_cache
def _returning(ahead: int) -> Rates:
    curve: Rates = RETURN ** np.arange(ahead, dtype=np.float64)
    return curve
