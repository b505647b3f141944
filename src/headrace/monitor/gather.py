"""What a report is made of, read from the objects and the database: the house need not be up."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from headrace.monitor import drift, quality
from headrace.monitor.quality import Pair
from headrace.monitor.shelf import Profiles, Shelf, State, hour, hour_at
from headrace.monitor.sketch import Profile, Sketch
from headrace.monitoring import Label, Monitor

#: Hours of which sketches are read for one report.
HOURS_MOST = 24 * 14


class Point(msgspec.Struct, frozen=True):
    """One hour. `low`, `high`: of its interval."""

    at: float
    value: float
    low: float | None = None
    high: float | None = None


class FieldSeen(NamedTuple):
    """A field of one version and segment: its first calls, and the last hour that has any."""

    name: str
    before: Sketch
    now: Sketch
    psi: list[Point]


class Seen(NamedTuple):
    """One version and segment."""

    version: str
    segment: str
    fields: list[FieldSeen]
    #: Measure -> by the hour.
    quality: dict[str, list[Point]]


async def gather(
    shelf: Shelf, policy: Monitor, state: State, labels: list[Label], since: float
) -> list[Seen]:
    """Raises ObjectsDown."""
    hours = [each for each in await shelf.hours() if each >= hour(since)][-HOURS_MOST:]
    by_hour = {each: await shelf.hour(each) for each in hours}
    found = _quality(await _pairs(shelf, policy, labels, since), policy)
    seen = []
    for key in sorted({key for profiles in by_hour.values() for key in profiles}):
        kept = await shelf.reference(key[0])
        before = kept[1].get(key, Profile()) if kept else Profile()
        seen.append(Seen(*key, _fields(key, before, by_hour), found.get(key, {})))
    return seen


def _fields(key: tuple[str, str], before: Profile, by_hour: dict[str, Profiles]) -> list[FieldSeen]:
    last = next((p[key] for p in reversed(by_hour.values()) if key in p), Profile())
    found = []
    for name, now in sorted(last.fields.items()):
        was = before.fields.get(name, Sketch())
        points = [
            Point(hour_at(each), _index(was, profiles[key].fields[name]))
            for each, profiles in by_hour.items()
            if key in profiles and name in profiles[key].fields
        ]
        found.append(FieldSeen(name, was, now, points))
    return found


def _index(before: Sketch, now: Sketch) -> float:
    if before.numeric:
        return drift.psi(*drift.binned(before, now)) if before.numbers and now.numbers else 0.0
    was, are, _ = drift.compared(before, now)
    return drift.psi(was, are)


#: Version and segment -> hour -> pairs.
_Pairs = dict[tuple[str, str], dict[str, list[Pair]]]


async def _pairs(shelf: Shelf, policy: Monitor, labels: list[Label], since: float) -> _Pairs:
    found: _Pairs = {}
    if policy.quality is None or not labels:
        return found
    told = {label.id: label.label for label in labels}
    column = f"out.{policy.quality.prediction}"
    seen = set()
    for row in await shelf.samples(since):
        predicted, each = row["values"].get(column), (row["version"], row["id"])
        if predicted is None or row["id"] not in told or each in seen:
            continue
        seen.add(each)
        for segment in {"", row["segment"]}:
            of = found.setdefault((row["version"], segment), {})
            of.setdefault(hour(row["at"]), []).append(Pair(predicted, told[row["id"]]))
    return found


def _quality(pairs: _Pairs, policy: Monitor) -> dict[tuple[str, str], dict[str, list[Point]]]:
    found: dict[tuple[str, str], dict[str, list[Point]]] = {}
    if policy.quality is None:
        return found
    # An hour has few labels: its interval says how little that means.
    limits = msgspec.structs.replace(policy.quality, least=10)
    for key, by_hour in pairs.items():
        for each, of in sorted(by_hour.items()):
            for figure in quality.judge(of, limits).figures:
                point = Point(hour_at(each), figure.value, figure.low, figure.high)
                found.setdefault(key, {}).setdefault(figure.name, []).append(point)
    return found
