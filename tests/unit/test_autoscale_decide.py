"""How many, and why: bounds, holds, a person's hand, zones; what holds for any traffic."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.autoscale.decide import decide
from headrace.autoscale.forecast import DAY
from headrace.autoscale.observed import Observed
from headrace.autoscale.zones import spared, spread
from headrace.policy import Entry, Override, Policy

POLICY = Policy(model="ocr", every_min=5)
NOW = 1_767_600_000.0  # on a cycle: a Monday, 08:00 UTC
BETWEEN = NOW + 60
BUSY = np.full(60, 60 * 40.0)  # 40 calls/s: 11 nodes, 14 with the margin of a cold start


def seen(**more: Any) -> Observed:
    given = {"arrivals": BUSY, "asked": 14, "lead_s": 600.0, "measured_at": NOW, "ready": 14} | more
    return Observed(**given)


def but(**more: Any) -> Policy:
    return msgspec.structs.replace(POLICY, **more)


def hand(kind: Any, count: int, expires: float = NOW + 1) -> Override:
    return Override(kind=kind, count=count, author="ann", reason="a sale", expires=expires)


def test_a_plan_raises_and_says_why():
    made = decide(seen(asked=5), POLICY, NOW)
    assert (made.count, made.model, made.foretold) == (14, "ocr", 2400.0)
    assert made.reason == (
        "raised from 5 to 14: 40.0 calls/s are forecast for 10 to 15 min ahead (of the trend),"
        " and 25% margin"
    )
    assert made.inputs["margin"] == 1.25


def test_a_plan_lowers():
    made = decide(seen(asked=30), POLICY, NOW)
    assert made.count == 14
    assert made.reason.startswith("lowered from 30 to 14: no more than 40.0 calls/s are forecast")


def test_it_keeps_what_is_needed():
    made = decide(seen(), POLICY, NOW)
    assert made.count == 14 and made.reason.startswith("kept at 14: as many are needed")


def test_between_plans_nothing_is_lowered():
    made = decide(seen(asked=30), POLICY, BETWEEN)
    assert made.count == 30 and made.foretold is None


def test_between_plans_the_guard_raises():
    assert decide(seen(asked=5), POLICY, BETWEEN).count == 11


def test_as_it_is_a_plan_is_made_each_minute():
    made = decide(seen(asked=30, measured_at=BETWEEN), Policy(), BETWEEN)
    assert made.count == 14 and made.foretold == 2400.0


def test_a_plan_is_made_once_a_cycle_at_least():
    assert decide(seen(asked=30), but(every_min=60, cycle_min=1), BETWEEN).count == 14


def test_the_guard_looks_at_what_waits():
    made = decide(seen(asked=11, waiting=6_000.0), POLICY, BETWEEN)
    assert made.count == 16 and "6000 wait" in made.reason


def test_the_guard_foresees_a_rise():
    rising = np.concatenate([BUSY[:50], 2400 + 240 * np.arange(10.0)])
    made = decide(seen(asked=5, arrivals=rising), POLICY, BETWEEN)
    assert made.count > 26 and "if they go on rising" in made.reason


def test_the_time_table_raises_ten_minutes_early_between_plans_too():
    table = (Entry(start="08:11", end="20:00", floor=50),)
    assert decide(seen(), but(schedule=table), NOW).count == 14
    made = decide(seen(), but(schedule=table), BETWEEN)
    assert made.count == 50 and "the time table wants at least 50" in made.reason


def test_nodes_on_their_way_are_present():
    """Else each minute would ask for them again."""
    assert decide(seen(asked=14, ready=1), POLICY, BETWEEN).count == 14


# -- holds -----------------------------------------------------------------------------------------

GAP = np.concatenate([BUSY, [np.nan]])
FALL = np.concatenate([BUSY, np.full(3, 60.0)])


@pytest.mark.parametrize(
    ("more", "policy", "why"),
    [
        ({"measured_at": NOW - 300}, {}, "the figures are 5 min old"),
        ({"arrivals": GAP}, {}, "figures of the last minutes are missing"),
        ({"arrivals": np.zeros(0)}, {}, "figures of the last minutes are missing"),
        ({"arrivals": FALL}, {}, "the traffic fell as it falls when callers are cut off"),
        ({"rollout": True}, {}, "a version is being rolled out"),
        ({"raised_at": NOW - 60}, {"cool_down_s": 300.0}, "the last raise was 1 min ago"),
    ],
)
def test_nothing_is_lowered(more, policy, why):
    made = decide(seen(asked=30, **more), but(**policy), NOW)
    assert made.count == 30
    assert why in made.reason and why in made.clamps


def test_stale_figures_stop_no_raise():
    assert decide(seen(asked=5, measured_at=0.0), POLICY, NOW).count == 14


def test_a_fall_that_every_day_shows_is_none():
    """Shops close."""
    day = np.full(DAY, 2400.0)
    day[8 * 60 :] = 60.0
    history = np.concatenate([np.tile(day, 3), day[: 8 * 60 + 3]])
    history = np.concatenate([history, day[8 * 60 + 3 : 8 * 60 + 5]])
    later = NOW + 300
    assert decide(seen(asked=30, arrivals=history, measured_at=later), POLICY, later).count < 30


def test_an_outage_that_lasts_is_still_one():
    history = np.concatenate([np.full(2 * DAY, 2400.0), np.zeros(120)])
    made = decide(seen(asked=30, arrivals=history), POLICY, NOW)
    assert made.count == 30 and "cut off" in made.reason


BROKEN = but(schedule=(Entry(start="01:00", end="02:00", zone="No/Where", floor=1),))


def test_a_decision_that_fails_keeps_the_count():
    made = decide(seen(asked=9), BROKEN, NOW)
    assert made.count == 9 and made.clamps == ("failed",)
    assert made.reason == (
        "kept at 9: no decision was possible: 'No/Where' is no IANA time zone, as Europe/Berlin is"
    )


def test_a_hand_holds_where_no_decision_is_possible():
    assert decide(seen(asked=9), BROKEN, NOW).count == 9
    made = decide(seen(asked=9, overrides=(hand("set", 20),)), BROKEN, NOW)
    assert made.count == 20 and made.clamps[0] == "failed"
    assert made.reason == "raised from 9 to 20: ann set it to 20: a sale (9 without it)"
    assert decide(seen(asked=9, overrides=(hand("cap", 4),)), BROKEN, NOW).count == 4


# -- bounds and hands ------------------------------------------------------------------------------


def test_bounds():
    made = decide(seen(), but(most=8), NOW)
    assert made.count == 8 and made.clamps == ("the policy's most is 8",)
    assert decide(seen(), but(least=20), NOW).count == 20
    capped = but(schedule=(Entry(start="07:00", end="09:00", cap=6),))
    assert decide(seen(), capped, NOW).count == 6


def test_zero_is_opt_in():
    nobody = seen(arrivals=np.zeros(60), asked=1)
    assert decide(nobody, POLICY, NOW).count == 1
    assert decide(nobody, but(least=0), NOW).count == 0
    assert decide(nobody._replace(asked=0, waiting=1.0), but(least=0), BETWEEN).count == 1


@pytest.mark.parametrize(
    ("hands", "count"),
    [
        ([hand("set", 3)], 3),
        ([hand("set", 2000)], 2000),  # above the policy's most
        ([hand("floor", 40)], 40),
        ([hand("floor", 4)], 14),
        ([hand("cap", 4)], 4),
        ([hand("cap", 40)], 14),
        ([hand("floor", 40), hand("cap", 20)], 20),
        ([hand("set", 3, expires=NOW)], 14),
    ],
)
def test_a_hand_stands_above_all_until_it_expires(hands, count):
    made = decide(seen(overrides=tuple(hands)), POLICY, NOW)
    assert made.count == count


def test_a_hand_is_named():
    made = decide(seen(overrides=(hand("set", 3),), rollout=True), POLICY, NOW)
    assert made.reason == "lowered from 14 to 3: ann set it to 3: a sale (14 without it)"


@pytest.mark.parametrize(
    ("kind", "wanted", "count"), [("set", 3, 14), ("cap", 3, 14), ("set", 20, 20), ("set", 14, 14)]
)
def test_workers_that_a_rollout_shares_out_are_there_to_its_end(kind, wanted, count):
    for policy in (POLICY, BROKEN):
        given = seen(overrides=(hand(kind, wanted),), rollout=True, shared=14)
        made = decide(given, policy, NOW)
        assert made.count == count
        assert ("a rollout shares out 14, 3 when it is over" in made.reason) == (wanted < 14)
        assert ("a rollout shares out 14" in made.clamps) == (wanted < 14)


# -- zones -----------------------------------------------------------------------------------------


def test_odd_here_even_there():
    assert spread(5, ("a", "b")) == {"a": 3, "b": 2}
    assert spread(0, ("a", "b")) == {"a": 0, "b": 0}


@given(st.integers(0, 500), st.integers(2, 5))
def test_any_zone_may_be_lost(count, zones):
    placed = spread(spared(count, zones, True), tuple("abcde"[:zones]))
    assert sum(placed.values()) - max(placed.values()) >= count


def test_zones_come_with_the_count():
    made = decide(seen(), but(zones=("a", "b"), spare_zone=True), NOW)
    assert made.count == 28 and made.zones == {"a": 14, "b": 14}


# -- whatever the traffic --------------------------------------------------------------------------

traffic = st.lists(st.floats(0, 20_000), min_size=1, max_size=80).map(np.array)
asked = st.integers(0, 300)
minutes = st.integers(0, 3 * DAY)


@given(traffic, asked, minutes, st.integers(0, 50), st.integers(0, 100), st.floats(0, 1e5))
def test_never_below_the_floor_nor_above_the_cap(arrivals, present, minute, least, more, waiting):
    now = NOW + minute * 60
    found = seen(arrivals=arrivals, asked=present, measured_at=now, waiting=waiting)
    made = decide(found, but(least=least, most=least + more), now)
    assert least <= made.count <= least + more
    floored = found._replace(overrides=(hand("floor", 70, now + 1),))
    assert decide(floored, POLICY, now).count >= 70
    capped = found._replace(overrides=(hand("cap", 7, now + 1),))
    assert decide(capped, POLICY, now).count <= 7


@given(traffic, asked, minutes, st.floats(1, 4), st.floats(0, 1e4))
def test_more_of_the_same_traffic_never_gets_fewer_nodes(arrivals, present, minute, by, waiting):
    now = NOW + minute * 60
    less = seen(arrivals=arrivals, asked=present, measured_at=now, waiting=waiting)
    more = less._replace(arrivals=arrivals * by, waiting=waiting * by)
    assert decide(more, POLICY, now).count >= decide(less, POLICY, now).count


@given(traffic, asked, minutes)
def test_the_same_gets_the_same(arrivals, present, minute):
    now = NOW + minute * 60
    found = seen(arrivals=arrivals, asked=present, measured_at=now)
    assert decide(found, POLICY, now) == decide(found, POLICY, now)
    assert not np.isnan(list(decide(found, POLICY, now).inputs.values())).any()


@settings(max_examples=20)
@given(st.floats(0, 20_000), st.integers(0, 200))
def test_constant_load_does_not_flap(rate, present):
    counts = []
    for minute in range(90):
        arrivals = np.full(60 + minute, rate)
        found = seen(arrivals=arrivals, asked=present, measured_at=NOW + minute * 60)
        present = decide(found, POLICY, NOW + minute * 60).count
        counts.append(present)
    assert len(set(counts[5:])) == 1


def test_noise_about_a_level_moves_it_by_a_node_now_and_then():
    """Poisson about 40 calls/s, for a day: some two moves an hour, by one or two nodes."""
    chance, counts = np.random.default_rng(3), [14]
    arrivals = chance.poisson(2400, 2 * DAY).astype(float)
    for minute in range(DAY):
        now = NOW + minute * 60
        found = seen(arrivals=arrivals[: DAY + minute], asked=counts[-1], measured_at=now)
        counts.append(decide(found, POLICY, now).count)
    assert max(counts) - min(counts) <= 2
    assert np.count_nonzero(np.diff(counts)) <= 60
