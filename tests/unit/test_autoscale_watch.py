"""A model from minute to minute: its history, its forecasts, its start-up times, broken figures."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.autoscale.forecast import DAY
from headrace.autoscale.foretold import Forecasted, Foretold
from headrace.autoscale.history import KEPT_MIN, History
from headrace.autoscale.starts import Starts, lead_s
from headrace.autoscale.watch import Standing, Watch
from headrace.policy import Entry, Node, Override, Policy
from headrace.store.scaling import Minute

M = 29_460_000  # on a cycle
POLICY = Policy(model="ocr", node=Node(start_s=600.0), most=40, every_min=5)


def seen(calls, minute=M, **more):
    given = {"waiting": 0.0, "ready": 14.0, "busy": 0.6} | more
    return Minute(model="ocr", minute=minute, calls=calls, **given)


def watched(level=2_400.0, minutes=60, policy=POLICY):
    """An hour of 40 calls a second: 14 nodes are wanted."""
    known = [(M - minutes + n, level) for n in range(minutes)]
    return Watch(policy, History(known))


def hear(watch, *calls, **more):
    return [watch.hear(seen(n, M + place, **more)) for place, n in enumerate(calls)]


def decided(watch, minute, asked=14, measured_at=None, **more):
    now = minute * 60.0 + 1.5
    return watch.decide(Standing(asked, **more), now, now if measured_at is None else measured_at)


# -- history --------------------------------------------------------------------------------------


def test_minutes_between_are_unknown():
    history = History([(M, 1.0), (M + 3, 4.0)])
    history.put(M + 5, None)
    np.testing.assert_equal(history.before(M + 7), [1, np.nan, np.nan, 4, np.nan, np.nan, np.nan])
    assert history.end == M + 7
    history.put(M + 1, 2.0)
    history.put(M, None)
    np.testing.assert_equal(history.before(M + 2), [1, 2])
    assert not len(History().before(M)) and not len(history.before(M - 5))


def test_history_is_as_long_as_forecasts_look_back():
    history = History()
    for n in range(3 * KEPT_MIN):
        history.put(M + n, float(n))
    kept = history.before(M + 3 * KEPT_MIN)
    assert len(kept) == KEPT_MIN and kept[-1] == 3 * KEPT_MIN - 1 and kept[0] == 2 * KEPT_MIN
    history.put(M + 50 * KEPT_MIN, 1.0)
    assert history.before(M + 50 * KEPT_MIN + 1).tolist() == [1.0]


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 9) | st.none()), max_size=40))
def test_history_is_as_a_table_of_minutes(steps):
    history, table, at = History(), {}, M
    for wait, calls in steps:
        at += wait
        history.put(at, calls)
        if calls is not None or at not in table:
            table[at] = math.nan if calls is None else calls
    first = min(table, default=at)
    expected = [table.get(minute, math.nan) for minute in range(first, at + 1)] if table else []
    np.testing.assert_equal(history.before(at + 1), expected)


# -- forecasts ------------------------------------------------------------------------------------


def test_a_forecast_is_settled_when_its_minutes_are_over():
    history, foretold = History([(M + n, float(n)) for n in range(16)]), Foretold()
    foretold.keep(Forecasted(M, M + 10, M + 15, 99.0))
    assert foretold.settle(history, M + 15) == {}
    assert foretold.settle(history, M + 16) == {M: 15.0}
    settled = foretold.settled()
    assert (settled.minute.tolist(), settled.foretold.tolist()) == ([M], [99.0])
    assert settled.came.tolist() == [15.0] and foretold.settle(history, M + 17) == {}


def test_a_forecast_of_minutes_that_nobody_saw_says_nothing():
    history, foretold = History([(M, 1.0), (M + 12, 5.0)]), Foretold()
    history.put(M + 30, 1.0)
    foretold.keep(Forecasted(M, M + 10, M + 15, 99.0))
    assert foretold.settle(history, M + 31) == {} and not len(foretold.settled().minute)


def test_forecasts_are_made_with_each_plan_and_remembered():
    watch = watched()
    hear(watch, 2_400.0)
    made, forecasted = decided(watch, M)
    assert forecasted == Forecasted(M, M + 10, M + 15, made.foretold)
    assert decided(watch, M + 1)[1] is None
    hear(watch, *[2_500.0] * 16)
    assert watch.settle((M + 16) * 60.0) == {M: 2_500.0}


def test_forecasts_of_eight_days_are_kept():
    history, foretold = History(), Foretold()
    for n in range(2 * KEPT_MIN):
        foretold.keep(Forecasted(M + n, M + n + 1, M + n + 2, float(n)), came=n + 0.5)
    assert foretold.settle(history, M + 2 * KEPT_MIN) == {}
    for kept in (foretold.settled(), foretold.settled()):
        assert kept.minute.tolist() == [*range(M + KEPT_MIN, M + 2 * KEPT_MIN)]
        assert kept.foretold[0] == KEPT_MIN and kept.came[-1] == 2 * KEPT_MIN - 0.5
    before = foretold.settled()
    for n in range(2 * KEPT_MIN, 4 * KEPT_MIN):
        foretold.keep(Forecasted(M + n, M + n + 1, M + n + 2, float(n)), came=0.0)
        if n % KEPT_MIN == 0:
            foretold.settle(history, M + n)
    assert before.came[-1] == 2 * KEPT_MIN - 0.5, "what was given to a decision stays as it was"


# -- start-up times -------------------------------------------------------------------------------


def test_start_up_times_are_of_those_who_were_asked_for():
    starts = Starts()
    assert starts.ready(5.0) is None, "restarted by somebody else"
    starts.asked(2, 5, 100.0)
    starts.asked(5, 6, 160.0)
    assert [starts.ready(at) for at in (130.0, 131.0)] == [30.0, 31.0]
    starts.asked(6, 5, 170.0)
    assert starts.ready(180.0) == 80.0, "the newest is not wanted any more"
    assert starts.ready(181.0) is None
    starts.asked(1, 2, 200.0)
    assert starts.ready(200.0 + 4_000) is None, "it never came"


def test_lead_is_the_p95_of_what_was_measured():
    assert lead_s([], 60.0) == 60.0
    assert lead_s([5.0], 60.0) == 5.0
    assert lead_s([float(n) for n in range(1, 51)], 60.0) == 48.0


def test_measured_start_up_times_move_the_plan():
    watch = watched()
    _, forecasted = decided(watch, M, starts=[119.0] * 5)
    assert (forecasted.first, forecasted.last) == (M + 2, M + 7)


# -- decisions ------------------------------------------------------------------------------------


def test_nothing_is_lowered_for_a_while_after_anybody_raised():
    policy = msgspec.structs.replace(POLICY, cool_down_s=600.0)
    watch = watched(policy=policy)
    decided(watch, M - 1, asked=14)
    assert decided(watch, M, asked=30)[0].count == 30, "somebody did"
    hear(watch, *[2_400.0] * 5)
    assert decided(watch, M + 5, asked=30)[0].clamps == ("the last raise was 5 min ago",)
    hear(watch, *[2_400.0] * 15)
    assert decided(watch, M + 15, asked=30)[0].count < 30


def test_where_nobody_knows_the_count_it_is_of_those_who_are_there():
    watch = watched()
    hear(watch, 2_400.0, ready=16.0)
    assert decided(watch, M + 1, asked=None)[0].count == 16
    assert decided(watch, M + 1, asked=20)[0].count == 20
    assert decided(watch, M + 1, asked=None)[0].count == 20, "as it was last told"


def test_a_hand_and_a_rollout_are_heard():
    watch = watched()
    hand = Override(kind="set", count=3, author="ann", reason="a sale", expires=(M + 99) * 60.0)
    assert decided(watch, M, overrides=(hand,))[0].count == 3
    assert decided(watch, M, asked=30, moving=True)[0].clamps == ("a version is being rolled out",)


def test_on_the_reply_side_only_the_time_table_raises():
    table = (Entry(start="00:00", end="24:00", floor=17),)
    for schedule, count in (((), 14), (table, 17)):
        watch = watched(policy=msgspec.structs.replace(POLICY, schedule=schedule))
        slow = {"busy": 0.1, "replies": 5_000.0, "open": 5_000.0}
        changes = hear(watch, 2_400.0, 4_800.0, 9_600.0, 9_600.0, **slow)
        assert [each.began for each in changes[1]] == [True]
        made = decided(watch, M + 4)[0]
        assert made.count == count
        assert schedule or "answers wait on their way home" in made.reason


# -- broken figures (F18) -------------------------------------------------------------------------


def test_missing_minutes_lower_nothing_and_raise_an_alarm():
    watch = watched()
    changes = hear(watch, *[None] * 6)
    assert [(c.name, c.began) for each in changes for c in each] == [("arrivals-lost", True)]
    made = decided(watch, M + 5, asked=30)[0]
    assert made.count == 30 and "missing" in made.reason


def test_zeros_where_there_was_traffic_lower_nothing_and_raise_an_alarm():
    watch = watched()
    changes = hear(watch, *[0.0] * 5)
    assert [(c.name, c.began) for each in changes for c in each] == [("arrivals-lost", True)]
    assert decided(watch, M + 5)[0].count == 14


def test_a_billion_calls_are_not_believed_and_move_nothing():
    watch = watched()
    changes = hear(watch, *[1e9] * 5)
    assert ("not-believed", True) in [(c.name, c.began) for each in changes for c in each]
    made = decided(watch, M + 5)[0]
    assert made.count == 14
    np.testing.assert_equal(watch.history.before(M + 5)[-5:], [np.nan] * 5)


def test_old_figures_lower_nothing():
    watch = watched()
    hear(watch, *[2_400.0] * 5)
    made = decided(watch, M + 5, asked=30, measured_at=(M - 10) * 60.0)[0]
    assert made.count == 30 and "min old" in made.reason


BROKEN = st.sampled_from([None, 0.0, 1e9, math.inf, 1e300]) | st.floats(0, 1e6)


@given(st.lists(BROKEN, min_size=1, max_size=30), st.integers(1, 40), BROKEN)
@settings(max_examples=60, deadline=None)
def test_whatever_the_figures_are_the_count_is_within_its_bounds(calls, asked, waiting):
    watch = watched()
    for place, n in enumerate(calls):
        watch.hear(seen(n, M + place, waiting=waiting))
        made = decided(watch, M + place + 1, asked=asked)[0]
        assert 1 <= made.count <= POLICY.most
        if n is None or place == 0:
            assert made.count >= min(asked, POLICY.most), "nothing is lowered on what is missing"
        asked = made.count


def test_a_day_of_history_makes_a_season():
    known = [(M - 2 * DAY + n, 600.0) for n in range(2 * DAY)]
    watch = Watch(POLICY, History(known))
    assert decided(watch, M)[0].inputs["season"] == pytest.approx(10.0)
