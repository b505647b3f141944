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


class Forecast(NamedTuple):
    """Calls a minute; [h] is minute now + h. Without a day of history there is no season."""

    trend: Rates
    season: Rates | None
    #: What the season says of the last half hour: what a fall is held against.
    season_now: float | None


def forecast(arrivals: Rates, ahead: int) -> Forecast:
    """`arrivals` a minute, the last of the minute before now, without gaps (see `filled`)."""
    now_season, ahead_season = _season(arrivals, ahead)
    return Forecast(_trend(arrivals, ahead), ahead_season, now_season)


def filled(arrivals: Rates) -> Rates:
    """NaN, a minute that nobody saw, becomes what was seen before it; 0 at the beginning."""
    if not len(arrivals) or not math.isnan(arrivals.max()):
        return arrivals
    gone = np.isnan(arrivals)
    last = np.maximum.accumulate(np.where(gone, -1, np.arange(len(arrivals))))
    known: Rates = np.where(last < 0, 0.0, arrivals[last])
    return known


def _trend(arrivals: Rates, ahead: int) -> Rates:
    if not len(arrivals):
        return np.zeros(ahead)
    near = arrivals[-NEAR:].tolist()
    trend = slope(arrivals, LONG) * _damped(ahead)
    trend += sum(near) / len(near)
    return np.maximum(trend, 0.0, out=trend)


def slope(arrivals: Rates, minutes: int) -> float:
    """Least squares over the last minutes: calls a minute, a minute. 0 while there are fewer."""
    if len(arrivals) < minutes:
        return 0.0
    return float(arrivals[-minutes:] @ _centred(minutes))


def _season(arrivals: Rates, ahead: int) -> tuple[float | None, Rates | None]:
    days = arrivals[_places(len(arrivals), ahead)]
    count = days.shape[1]
    if not count:
        return None, None
    days.sort()
    heaped = (days[:, (count - 1) // 2] + days[:, count // 2]).cumsum()  # of twice the median
    smooth = heaped[SMOOTH - 1 :].copy()
    smooth[1:] -= heaped[:-SMOOTH]
    smooth /= 2 * SMOOTH
    then, coming = float(smooth[:LONG].sum()) / LONG, smooth[LONG:]
    today = sum(arrivals[-LONG:].tolist()) / LONG
    ratio = min(max(today / max(then, 1e-9), 1 / RATIO_MOST), RATIO_MOST)
    coming *= (ratio - 1) * _returning(ahead) + 1
    return then, coming


@lru_cache
def _places(known: int, ahead: int) -> NDArray[np.int64]:
    """In a history of `known` minutes: a row for each minute that is smoothed, in it the same one
    of each earlier day that is known for all of them."""
    half = SMOOTH // 2
    around = np.arange(known - LONG - half, known + ahead + half)
    back = [lag * DAY for lag in LAGS if ahead + half <= lag * DAY <= known - LONG - half]
    return around[:, None] - np.array(back, dtype=np.int64)


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
    """What is left of today's difference to the season: half of it stays."""
    curve: Rates = 0.5 + 0.5 * RETURN ** np.arange(ahead, dtype=np.float64)
    return curve
