"""How far forecasts fell short at this time of day -> how far above them to plan. Pure.

A forecast is settled when its minutes are over. An error counts as much as calls came with it: one
at night, when nobody calls, breaks no promise. And it counts at its time of day only: what the
end of a match did yesterday at 15:50 says nothing of 09:00.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.autoscale.forecast import DAY, Rates
from headrace.policy import Margin

FEWEST = 24  # errors that a quantile is taken of


class Settled(NamedTuple):
    """Forecasts whose minutes are over, oldest first; equally long."""

    minute: NDArray[np.int64]  # when it was made, minutes of Unix time
    foretold: Rates  # the greatest calls a minute it said, over [lead, lead + cycle]
    came: Rates  # the greatest that came


def room(count: int) -> Settled:
    """For so many, to be filled."""
    return Settled(np.zeros(count, np.int64), np.zeros(count), np.zeros(count))


NONE = room(0)


def margin(settled: Settled, minute: int, wanted: Margin) -> float:
    """The factor, at `minute` of Unix time."""
    minutes = settled.minute
    parts = _around(minutes, minute, wanted)
    first = parts[0].start
    if first == len(minutes) or minute - minutes[first] < DAY:
        return wanted.cold
    if sum(part.stop - part.start for part in parts) < FEWEST:
        parts = [slice(first, len(minutes))]
    came = np.concatenate([settled.came[part] for part in parts])
    foretold = np.concatenate([settled.foretold[part] for part in parts])
    found = weighted_quantile(came / np.maximum(foretold, 1e-9), came, wanted.quantile)
    return min(max(found, wanted.least), wanted.most)


def _around(minutes: NDArray[np.int64], minute: int, wanted: Margin) -> list[slice]:
    """Where the forecasts are that were made around this time of day, the oldest first."""
    places = minutes.searchsorted(minute + _edges(wanted.days, wanted.around_min)).tolist()
    return [slice(start, end) for start, end in places]


@lru_cache
def _edges(days: int, around_min: int) -> NDArray[np.int64]:
    """Of the time around now on each day: [begin, end), minutes from now."""
    back = -DAY * np.arange(days, -1, -1)
    return np.stack([back - around_min, back + around_min + 1], axis=1)


def weighted_quantile(values: Rates, weights: Rates, quantile: float) -> float:
    order = values.argsort()
    heaped = weights[order].cumsum()
    place = int(heaped.searchsorted(quantile * heaped[-1]))
    return float(values[order[min(place, len(order) - 1)]])
