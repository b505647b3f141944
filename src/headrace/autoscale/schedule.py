"""The time table -> a floor and a cap now. Pure; the clock of each place is the IANA zone's.

Where the clocks change, a time of the table can come twice, or not at all: a line begins at the
earlier of its two readings and ends at the later, so that no floor is missed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headrace.policy import ALL_DAYS, Entry


class UnknownZone(ValueError):
    """No IANA time zone has this name."""


class Bounds(NamedTuple):
    """None: the table says nothing."""

    floor: int | None
    cap: int | None


def bounds(entries: Iterable[Entry], now: float, lead_s: float) -> Bounds:
    """A floor holds `lead_s` before it begins: that long a node takes to come. Unix seconds."""
    floors, caps = [], []
    for entry in entries:
        if entry.floor is not None and holds(entry, now, now + lead_s):
            floors.append(entry.floor)
        if entry.cap is not None and holds(entry, now, now):
            caps.append(entry.cap)
    return Bounds(max(floors, default=None), min(caps, default=None))


def holds(entry: Entry, first: float, last: float) -> bool:
    """At any time of [first, last]?"""
    zone = zone_of(entry.zone)
    day = datetime.fromtimestamp(first, zone).date() - timedelta(days=1)  # it may cross midnight
    end = datetime.fromtimestamp(last, zone).date() + timedelta(days=1)
    while day <= end:
        if ALL_DAYS[day.weekday()] in entry.days:
            begins, ends = span(entry, day)
            if begins <= last and first < ends:
                return True
        day += timedelta(days=1)
    return False


@lru_cache(maxsize=4096)
def span(entry: Entry, day: date) -> tuple[float, float]:
    """The line's [begin, end) on that day, Unix seconds. An end before its start is tomorrow's."""
    ends_on = day if _minutes(entry.end) > _minutes(entry.start) else day + timedelta(days=1)
    begins = min(_readings(day, entry.start, entry.zone))
    return begins, max(_readings(ends_on, entry.end, entry.zone))


def _readings(day: date, clock: str, zone: str) -> tuple[float, float]:
    minutes = _minutes(clock)
    midnight = datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)
    local = midnight.replace(tzinfo=zone_of(zone))
    return local.timestamp(), local.replace(fold=1).timestamp()


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """Raises UnknownZone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UnknownZone(f"{name!r} is no IANA time zone, as Europe/Berlin is") from None
