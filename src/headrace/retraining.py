"""When a model is trained again: what an operator writes, and what is recorded. No I/O.

[models.wine.retrain]
pipeline = "pipeline:Wines"
cron = "0 3 * * mon"                 by the clock of `zone`
zone = "Europe/London"
alarms = ["drift", "quality"]        whichever comes first
then = "promote"
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0)]
AlarmName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9.-]{0,31}$")]
Then = Literal["register", "promote"]
#: asked: it runs, or waits for it. registered, promoted: there is a version. out: a gate was shut.
State = Literal["asked", "registered", "promoted", "out", "failed"]

#: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday)
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NAMES: tuple[dict[str, int], ...] = (
    {}, {}, {},
    {name.lower(): n for n, name in enumerate(calendar.month_abbr) if name},
    {name: n for n, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))},
)  # fmt: skip
_PART = re.compile(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?")
_FAR_DAYS = 366 * 8  # 29 February may be so far away
_EXPECTED = "expected minute, hour, day, month, weekday: '0 3 * * mon'"


class Cron:
    """Times by the clock on the wall. Of an hour that comes twice the first one counts; a time in
    an hour that is left out is as long after midnight as it would have been."""

    def __init__(self, text: str, zone: str) -> None:
        """Raises ValueError."""
        fields = text.lower().split()
        if len(fields) != len(_BOUNDS):
            raise ValueError(f"cron = {text!r}: {_EXPECTED}")
        try:
            found = [_field(field, n) for n, field in enumerate(fields)]
        except (KeyError, ValueError):
            raise ValueError(f"cron = {text!r}: {_EXPECTED}") from None
        self._minutes, self._hours, self._days, self._months, weekdays = found
        self._weekdays = {day % 7 for day in weekdays}
        # As every cron has it: where both are named, either will do.
        self._either = fields[2][0] != "*" and fields[4][0] != "*"
        try:
            self._zone = ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"zone = {zone!r}: expected one such as Europe/London") from None
        if not any(self._fits(date(2024, 1, 1) + timedelta(n)) for n in range(_FAR_DAYS)):
            raise ValueError(f"cron = {text!r}: there is no such day")

    def last(self, now: float) -> tuple[float, str] | None:
        """The last time up to now, in Unix seconds and as the clock shows it; None where there was
        none today or on the two days before."""
        today = datetime.fromtimestamp(now, self._zone).date()
        for back in range(3):
            past = [each for each in self._times(today - timedelta(back)) if each[0] <= now]
            if past:
                return max(past)
        return None

    def next(self, now: float) -> tuple[float, str]:
        today = datetime.fromtimestamp(now, self._zone).date()
        return min(
            next(
                coming
                for ahead in range(_FAR_DAYS)
                if (coming := [t for t in self._times(today + timedelta(ahead)) if t[0] > now])
            )
        )

    def _times(self, day: date) -> Iterator[tuple[float, str]]:
        if not self._fits(day):
            return
        for hour in sorted(self._hours):
            for minute in sorted(self._minutes):
                wall = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self._zone)
                yield wall.timestamp(), f"{wall:%Y-%m-%d %H:%M}"

    def _fits(self, day: date) -> bool:
        if day.month not in self._months:
            return False
        of_month, of_week = day.day in self._days, day.isoweekday() % 7 in self._weekdays
        return (of_month or of_week) if self._either else (of_month and of_week)


def _field(text: str, place: int) -> set[int]:
    """The numbers that a field names. Raises ValueError, KeyError."""
    least, most = _BOUNDS[place]
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if not match:
            raise ValueError(part)
        first, last, step = match.groups()
        if first == "*":
            low, high = least, most
        else:
            low = _number(first, place)
            high = _number(last, place) if last else most if step else low
        if (first == "*" and last) or not least <= low <= high <= most or step == "0":
            raise ValueError(part)
        found.update(range(low, high + 1, int(step or 1)))
    return found


def _number(text: str, place: int) -> int:
    return int(text) if text.isdigit() else _NAMES[place][text]


class _Written(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """By a person, in a file."""


class Budget(_Written, frozen=True, kw_only=True):
    """What training may cost: so many runs, and minutes of them, in any so many days."""

    runs: Annotated[int, Meta(ge=1)] = 10
    minutes: Annotated[float, Meta(gt=0)] = 600.0
    days: Annotated[float, Meta(gt=0)] = 7.0


class Retrain(_Written, frozen=True, kw_only=True):
    """When one model is trained again, by what, and what becomes of the version."""

    #: "module:Class", looked up beside the settings file first.
    pipeline: Annotated[str, Meta(pattern=r"^[\w.]+:\w+$")]
    params: dict[str, Any] = {}
    #: minute, hour, day, month, weekday; "": no schedule.
    cron: str = ""
    zone: str = "UTC"
    #: A time at which nobody was there is made up for within this.
    late_s: Annotated[float, Meta(ge=0, le=172_800)] = 21_600.0
    #: Any of these alarms of the model starts a run, too.
    alarms: tuple[AlarmName, ...] = ()
    #: After a run has ended, and the rollout of its version, the next one waits for so long.
    cool_down_s: Annotated[float, Meta(ge=0)] = 21_600.0
    #: A run that takes longer is ended.
    limit_s: Seconds = 3_600.0
    budget: Budget = Budget()
    #: promote: what passed its gates gets `deploy.alias`, in the name of headrace.
    then: Then = "register"

    def __post_init__(self) -> None:
        if self.cron:
            Cron(self.cron, self.zone)
        elif not self.alarms:
            raise ValueError("expected cron, alarms, or both: it would never start")


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """One run that was asked for by policy. Times are Unix seconds."""

    model: str
    #: What it was asked for by: there is one for each.
    key: str
    at: float
    reason: str
    run: str
    #: The version that was in production then; 0: none.
    before: int = 0
    state: State = "asked"
    ended: float | None = None
    took_s: float = 0.0
    #: The version that was registered; 0: none.
    version: int = 0
    #: What came of it, for people.
    outcome: str = ""


def clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
