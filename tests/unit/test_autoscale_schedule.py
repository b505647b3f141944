"""The time table: zones, lead, midnight, and both days on which the clocks change."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from headrace.autoscale.schedule import Bounds, UnknownZone, bounds, span
from headrace.policy import Entry

SAIGON, BERLIN = "Asia/Ho_Chi_Minh", "Europe/Berlin"
SHOPS = Entry(start="08:50", end="20:00", zone=SAIGON, floor=50, days=("mon", "tue"))


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def floor(entry: Entry, now: float, lead_s: float = 0.0) -> int | None:
    return bounds([entry], now, lead_s).floor


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        ("2026-03-02T08:39:59", None),
        ("2026-03-02T08:40:00", 50),  # ten minutes of lead
        ("2026-03-02T19:59:59", 50),
        ("2026-03-02T20:00:00", None),
        ("2026-03-04T12:00:00", None),  # Wednesday
    ],
)
def test_a_floor_is_asked_for_before_it_begins(now, wanted):
    assert floor(SHOPS, at(now, SAIGON), 600.0) == wanted


def test_a_cap_is_not():
    night = Entry(start="22:00", end="06:00", cap=3)
    assert bounds([night], at("2026-03-02T21:55:00"), 600.0) == Bounds(None, None)
    assert bounds([night], at("2026-03-02T22:00:00"), 600.0) == Bounds(None, 3)


def test_a_line_across_midnight_is_of_the_day_it_begins():
    late = Entry(start="22:00", end="02:00", floor=5, days=("sun",))
    assert floor(late, at("2026-03-02T01:59:00")) == 5  # Monday
    assert floor(late, at("2026-03-02T22:30:00")) is None


def test_all_day_is_from_midnight_to_24():
    whole = Entry(start="00:00", end="24:00", floor=5, days=("mon",))
    assert floor(whole, at("2026-03-02T00:00:00")) == 5
    assert floor(whole, at("2026-03-02T23:59:59")) == 5
    assert floor(whole, at("2026-03-03T00:00:00")) is None


def test_the_greatest_floor_and_the_least_cap_hold():
    lines = [Entry(start="00:00", end="24:00", floor=n, cap=10 * n) for n in (3, 7, 5)]
    assert bounds(lines, at("2026-03-02T12:00:00"), 0.0) == Bounds(7, 30)


@pytest.mark.parametrize("day", ["2026-03-27", "2026-03-30", "2026-10-23", "2026-10-26"])
def test_shops_open_by_their_own_clock_before_and_after_the_change(day):
    """2026-03-29 and 2026-10-25 lie between the Fridays and the Mondays."""
    opening = Entry(start="08:50", end="20:00", zone=BERLIN, floor=50)
    assert floor(opening, at(f"{day}T08:49:59", BERLIN)) is None
    assert floor(opening, at(f"{day}T08:50:00", BERLIN)) == 50


def test_an_hour_that_does_not_come_in_spring_is_not_missed():
    """02:00 to 03:00 is skipped: the floor holds when the clock jumps."""
    gone = Entry(start="02:15", end="02:45", zone=BERLIN, floor=9)
    assert floor(gone, at("2026-03-29T01:00:00")) == 9  # the moment of the change, in UTC
    assert floor(gone, at("2026-03-29T00:00:00")) is None
    assert floor(gone, at("2026-03-29T02:00:00")) is None


def test_an_hour_that_comes_twice_in_autumn_is_held_through_both():
    twice = Entry(start="02:15", end="02:45", zone=BERLIN, floor=9)
    for fold in (0, 1):
        assert floor(twice, at("2026-10-25T02:30:00", BERLIN, fold)) == 9
    begins, ends = span(twice, datetime(2026, 10, 25, tzinfo=UTC).date())
    assert ends - begins == 90 * 60


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_whole_day_has_as_many_hours_as_it_has(day, hours):
    whole = Entry(start="00:00", end="24:00", zone=BERLIN, floor=1)
    begins, ends = span(whole, datetime.fromisoformat(day).date())
    assert (ends - begins) / 3600 == hours


def test_a_lead_across_the_change_is_real_time():
    opening = Entry(start="03:30", end="20:00", zone=BERLIN, floor=50, days=("sun",))
    begins = at("2026-03-29T03:30:00", BERLIN)  # an hour and a half after midnight, and a half
    assert floor(opening, begins - 3600, 3600.0) == 50
    assert floor(opening, begins - 3601, 3600.0) is None


def test_no_such_zone():
    with pytest.raises(UnknownZone, match="Europe/Nowhere"):
        bounds([Entry(start="01:00", end="02:00", zone="Europe/Nowhere", floor=1)], 0.0, 0.0)


def test_a_clock_is_checked_where_it_is_written():
    import msgspec

    line: dict[str, Any] = {"start": "8:50", "end": "20:00"}
    with pytest.raises(msgspec.ValidationError, match=r"\$\.start"):
        msgspec.convert(line, Entry)
