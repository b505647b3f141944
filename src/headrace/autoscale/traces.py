"""Calls a minute over days, to replay: made up (shop hours), recorded (World Cup 98), or a file's.

Every trace is scaled to the wanted calls a day over the days that are scored, and drawn anew from
that intensity as a Poisson process: the same seed gives the same calls.
"""

from __future__ import annotations

import csv
import lzma
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headrace.autoscale.forecast import DAY, Rates

#: A working day's intensity by the hour: shops open at 09:00 and close from 18:30 on.
OPEN = (
    (0, 0.02), (6.5, 0.02), (8, 0.05), (8.95, 0.08), (9, 0.25), (9.25, 0.8), (10, 0.95), (11.5, 1),
    (12.25, 0.85), (13, 0.65), (14, 0.9), (15.5, 1), (17.5, 0.92), (18.5, 0.6), (19.5, 0.3),
    (20, 0.1), (22, 0.03), (24, 0.02),
)  # fmt: skip
WEEK = (1.05, 1.0, 1.0, 1.0, 1.1, 0.7, 0.35)  # from Monday
OPENING_SD_MIN = 3.0  # of the minute at which the day begins
DAY_SD, DAY_MEMORY = 0.07, 0.5  # of the day's level, and what the next day keeps of it
WAVE_SD, WAVE_MIN = 0.04, 30.0  # of the drift within a day, and its memory
SURGE_SHARE, SURGE_HEIGHT, SURGE_SD_H = 0.2, (0.3, 0.8), 0.4  # unforeseen: of days, of the level

_MONDAY = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp()) // 60
_WORLD_CUP_TO_MIDNIGHT = 150
_WORLD_CUP = int(datetime(1998, 5, 1, tzinfo=UTC).timestamp()) // 60
WORLD_CUP_FROM = 30  # its scored days: 38 to 57 from 1 May


class BadTrace(ValueError):
    """The file is not a trace, or too short."""


class Trace(NamedTuple):
    name: str
    calls: Rates  # whole numbers, one a minute
    start_min: int  # of the first minute, Unix time in minutes
    warm_days: int  # at the beginning, which are not scored

    @property
    def warm_min(self) -> int:
        return self.warm_days * DAY


def shop(days: int, seed: int) -> Rates:
    """Intensity of shop hours, by the minute, from a Monday on; of no particular scale."""
    chance = np.random.default_rng([seed, 1])
    hours = np.arange(DAY) / 60
    level, made = 0.0, []
    for day in range(days):
        level = DAY_MEMORY * level + chance.normal(0, DAY_SD)
        late_h = chance.normal(0, OPENING_SD_MIN / 60)
        shape = np.interp(hours - late_h, [h for h, _ in OPEN], [n for _, n in OPEN])
        shape = shape * WEEK[day % 7] * np.exp(level)
        if chance.random() < SURGE_SHARE:
            at_h, height = chance.uniform(10, 17), chance.uniform(*SURGE_HEIGHT)
            shape = shape * (1 + height * np.exp(-0.5 * ((hours - at_h) / SURGE_SD_H) ** 2))
        made.append(shape)
    intensity: Rates = np.concatenate(made) * np.exp(WAVE_SD * _wave(days * DAY, chance))
    return intensity


def _wave(minutes: int, chance: np.random.Generator) -> Rates:
    keeps = np.exp(-1 / WAVE_MIN)
    steps = chance.normal(0, 1, minutes) * np.sqrt(1 - keeps * keeps)
    wave, at = np.empty(minutes), 0.0
    for minute, step in enumerate(steps.tolist()):
        at = keeps * at + step
        wave[minute] = at
    return wave


def world_cup(from_day: int, days: int) -> Rates:
    """From midnight UTC of a day, 0 is 1 May 1998. Raises BadTrace beyond the data."""
    packed = files("headrace.autoscale").joinpath("data/worldcup98-per-minute.csv.xz").read_bytes()
    lines = lzma.decompress(packed).split()[1:]
    whole = np.array(lines, dtype=np.float64)[_WORLD_CUP_TO_MIDNIGHT:]
    part: Rates = whole[from_day * DAY : (from_day + days) * DAY]
    if len(part) < days * DAY:
        raise BadTrace(
            f"World Cup 98 has {len(whole) // DAY} days, {from_day + days} are asked for"
        )
    return part


def read_csv(path: Path) -> Rates:
    """The last column, a line a minute, with or without a heading. Raises BadTrace, OSError."""
    with path.open(newline="") as lines:
        rows = [row for row in csv.reader(lines) if row]
    try:
        float(rows[0][-1])
    except (ValueError, IndexError):
        rows = rows[1:]
    try:
        counts = np.array([float(row[-1]) for row in rows], dtype=np.float64)
    except ValueError as error:
        raise BadTrace(f"{path}: expected calls a minute in the last column: {error}") from None
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise BadTrace(f"{path}: expected calls a minute of 0 or more")
    return counts


def trace(
    name: str, *, days: int, warm_days: int, seed: int, calls_a_day: float, from_day: int | None
) -> Trace:
    """`name`: shop, worldcup98, or a CSV file. Raises BadTrace, OSError."""
    whole, start_min = days + warm_days, _MONDAY
    if name == "shop":
        intensity = shop(whole, seed)
    elif name == "worldcup98":
        first = WORLD_CUP_FROM if from_day is None else from_day
        intensity, start_min = world_cup(first, whole), _WORLD_CUP + first * DAY
    else:
        intensity = read_csv(Path(name))[(from_day or 0) * DAY :][: whole * DAY]
    if len(intensity) < (warm_days + 1) * DAY:
        raise BadTrace(f"{name}: {len(intensity)} minutes are less than {warm_days + 1} days")
    scored = intensity[warm_days * DAY :].sum()
    if scored <= 0:
        raise BadTrace(f"{name}: nobody calls on the days that are scored")
    scale = calls_a_day * (len(intensity) - warm_days * DAY) / DAY / scored
    calls = np.random.default_rng([seed, 2]).poisson(intensity * scale).astype(np.float64)
    return Trace(Path(name).stem, calls, start_min, warm_days)
