"""Trend, season, and the margin above them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.autoscale.forecast import DAY, filled, forecast, slope
from headrace.autoscale.margin import NONE, Settled, margin, weighted_quantile
from headrace.policy import Margin

WANTED = Margin()


def days(count: int, minutes: int = 0) -> np.ndarray:
    at = np.arange(count * DAY + minutes)
    return 1000 + 800 * np.sin(2 * np.pi * at / DAY)


def test_a_constant_goes_on():
    coming = forecast(np.full(60, 7.0), 15)
    assert coming.trend == pytest.approx(np.full(15, 7.0))
    assert coming.season is None


def test_a_rise_is_damped():
    coming = forecast(np.arange(60.0), 200).trend
    steps = np.diff(coming)
    assert coming[0] == pytest.approx(54.5 + 1)
    assert (steps > 0).all() and (np.diff(steps) < 0).all()
    assert coming[-1] < 54.5 + 1 / 0.03


def test_a_fall_ends_at_zero():
    assert forecast(np.arange(60.0)[::-1] * 10, 60).trend[-1] == 0.0


def test_the_season_knows_what_the_trend_does_not():
    """At midnight before a 09:00 that came every day."""
    day = np.full(DAY, 10.0)
    day[9 * 60 :] = 500.0
    history = np.concatenate([np.tile(day, 3), day[: 9 * 60 - 5]])
    coming = forecast(history, 20)
    assert coming.trend.max() == pytest.approx(10.0)
    assert coming.season is not None and coming.season[15] == pytest.approx(500.0)


def test_a_day_of_twice_the_traffic_is_drawn_towards():
    history = np.concatenate([days(3), 2 * days(1)[: DAY // 2]])
    season = forecast(history, 10).season
    usual = days(1)[DAY // 2 : DAY // 2 + 10]
    assert season is not None
    assert season == pytest.approx(2 * usual, rel=0.05)


def test_one_odd_day_of_four_does_not_show():
    history = days(8)
    usual = forecast(history, 10).season
    history[6 * DAY : 7 * DAY] *= 9  # two days back
    assert usual is not None
    assert forecast(history, 10).season == pytest.approx(usual, rel=0.05)


def test_minutes_that_nobody_saw_are_as_those_before_them():
    seen = filled(np.array([np.nan, 1.0, np.nan, np.nan, 4.0]))
    assert seen.tolist() == [0.0, 1.0, 1.0, 1.0, 4.0]


@given(st.integers(0, 100))
def test_short_histories_are_no_reason_to_fail(minutes):
    coming = forecast(np.ones(minutes), 30)
    assert np.isfinite(coming.trend).all()
    assert coming.season is None or np.isfinite(coming.season).all()


@given(st.floats(-50, 50), st.floats(0, 1000))
def test_the_slope_of_a_line_is_its_own(rise, level):
    assert slope(level + rise * np.arange(40.0), 30) == pytest.approx(rise, abs=1e-6)


# -- margin ----------------------------------------------------------------------------------------


def settled(short: float, count: int = 2 * DAY // 5) -> Settled:
    """Forecasts every five minutes up to minute 0, all of which fell short by this factor."""
    return Settled(np.arange(-count, 0) * 5, np.full(count, 100.0), np.full(count, 100.0 * short))


def test_it_is_cold_until_a_day_is_settled():
    assert margin(NONE, 0, WANTED) == WANTED.cold
    assert margin(settled(1.1, DAY // 5 - 1), 0, WANTED) == WANTED.cold
    assert margin(settled(1.1, DAY // 5 + 1), 0, WANTED) == pytest.approx(1.1)


@pytest.mark.parametrize(("short", "found"), [(0.7, 1.0), (1.3, 1.3), (5.0, 2.0)])
def test_it_is_within_its_bounds(short, found):
    assert margin(settled(short), 0, WANTED) == pytest.approx(found)


def test_errors_of_another_time_of_day_do_not_count():
    past = settled(1.0)
    apart = past.minute % DAY
    past.came[(apart > 400) & (apart < 500)] = 180.0
    assert margin(past, 0, WANTED) == 1.0
    assert margin(past, 450, WANTED) == pytest.approx(1.8)


def test_an_error_counts_as_its_calls_do():
    ratios, calls = np.array([1.5, 1.0]), np.array([1.0, 99.0])
    assert weighted_quantile(ratios, calls, 0.95) == 1.0
    assert weighted_quantile(ratios, calls[::-1], 0.95) == 1.5


def test_it_covers_what_it_promises():
    chance = np.random.default_rng(1)
    came = 100 * chance.lognormal(0, 0.1, 7 * DAY // 5)
    minutes = np.arange(-len(came), 0) * 5
    factor = margin(Settled(minutes, np.full(len(came), 100.0), came), 0, WANTED)
    assert np.mean(came <= 100 * factor) == pytest.approx(WANTED.quantile, abs=0.03)
