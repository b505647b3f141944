"""When a model is trained again: once for each wish, within cool-down and budget, by any clock."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.retrain.decide import Raised, Start, Wait, decide
from headrace.retraining import Budget, Cron, Retrain, Training

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0
DAY = 24 * HOUR
NIGHTLY = Retrain(pipeline="p:P", cron="0 3 * * *", zone="Europe/London")
WATCHED = Retrain(pipeline="p:P", alarms=("drift", "quality"))
FELL = Raised("a1", "quality", NOON - 60, "accuracy 0.7, 0.9 is wanted")


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def trained(begun: float, took_s: float = 60.0, key: str = "", **more: object) -> Training:
    given = {"model": "wine", "key": key, "at": begun, "reason": "", "run": "r1",
             "state": "registered", "ended": begun + took_s, "took_s": took_s}  # fmt: skip
    return msgspec.convert(given | more, Training)


def changed(policy: Retrain, **more: object) -> Retrain:
    return msgspec.structs.replace(policy, **more)


def asked(policy, now=NOON, past=(), alarms=(), since=0.0, **more):
    return decide(policy, now, past, alarms, since=since, **more)


# -- alarms ----------------------------------------------------------------------------------------


def test_an_alarm_starts_a_run_and_the_sentence_says_why():
    found = asked(WATCHED, alarms=[FELL])
    assert found == Start(
        "alarm a1 after 0.000",
        "alarm quality since 2026-11-22 11:59 UTC: accuracy 0.7, 0.9 is wanted",
    )
    assert asked(WATCHED) == Wait("no alarm is on")
    assert asked(WATCHED, alarms=[Raised("a2", "queue", NOON)]) == Wait("no alarm is on")


def test_all_alarms_are_named_and_the_first_is_the_key():
    both = [Raised("a9", "drift", NOON - 5), FELL]
    found = asked(WATCHED, alarms=both)
    assert found == asked(WATCHED, alarms=both[::-1])
    assert found.key.startswith("alarm a1") and "quality" in found.reason
    assert "; alarm drift since" in found.reason


def test_while_a_run_or_a_rollout_goes_on_nothing_starts():
    open_one = trained(NOON - DAY, ended=None, state="asked", run="key-1")
    assert asked(WATCHED, past=[open_one], alarms=[FELL]).reason.endswith("run key-1 goes on")
    waits = asked(WATCHED, alarms=[FELL], moving="a rollout goes on")
    assert isinstance(waits, Wait) and waits.reason.endswith("but a rollout goes on")


def test_an_alarm_that_stays_on_asks_again_after_the_cool_down_under_another_key():
    policy = changed(WATCHED, cool_down_s=HOUR)
    first = asked(policy, alarms=[FELL])
    past = [trained(NOON, 600, first.key)]
    waits = asked(policy, NOON + 700, past, [FELL])
    assert waits.until == NOON + 600 + HOUR and "cools down until 2026-11-22 13:10" in waits.reason
    assert isinstance(asked(policy, waits.until - 1, past, [FELL]), Wait)
    again = asked(policy, waits.until, past, [FELL])
    assert isinstance(again, Start) and again.key != first.key


def test_it_cools_down_after_the_rollout_too_of_which_the_alarm_has_not_heard_yet():
    policy = changed(WATCHED, cool_down_s=HOUR)
    past = [trained(NOON - 2 * HOUR)]
    assert isinstance(asked(policy, past=past, alarms=[FELL]), Start)
    waits = asked(policy, past=past, alarms=[FELL], settled=NOON - 60)
    assert isinstance(waits, Wait) and waits.until == NOON - 60 + HOUR
    assert isinstance(asked(policy, waits.until, past, [FELL], settled=NOON - 60), Start)


def test_two_retrainers_find_the_same_key():
    past = [trained(NOON - DAY)]
    one = asked(WATCHED, NOON, past, [FELL])
    other = asked(WATCHED, NOON + 1.7, past, [FELL], since=NOON)
    assert one.key == other.key


# -- the budget ------------------------------------------------------------------------------------


def test_no_more_runs_than_the_budget_has():
    policy = changed(WATCHED, cool_down_s=0, budget=Budget(runs=3, days=2))
    past = [trained(NOON - n * HOUR) for n in (1, 40, 30)]
    waits = asked(policy, past=past, alarms=[FELL])
    assert waits.until == NOON - 40 * HOUR + 2 * DAY
    assert "3 of 3 runs in 2 days were made: none before" in waits.reason
    assert isinstance(asked(policy, waits.until, past, [FELL]), Start)
    assert isinstance(asked(policy, past=past[:2], alarms=[FELL]), Start)


def test_no_more_minutes_than_the_budget_has():
    policy = changed(WATCHED, cool_down_s=0, budget=Budget(minutes=90, days=1))
    past = [trained(NOON - 20 * HOUR, 40 * 60), trained(NOON - 2 * HOUR, 50 * 60)]
    waits = asked(policy, past=past, alarms=[FELL])
    assert waits.until == NOON + 4 * HOUR and "90 of 90 minutes in 1 days were used" in waits.reason
    assert isinstance(asked(policy, waits.until, past, [FELL]), Start)
    assert isinstance(asked(policy, past=past[:1], alarms=[FELL]), Start)


@given(
    st.lists(st.tuples(st.floats(0, 20 * DAY), st.floats(1, 5 * HOUR)), max_size=8),
    st.integers(1, 5),
    st.floats(10, 600),
    st.floats(0, DAY),
)
def test_what_a_wait_promises_comes_true(begun, runs, minutes, cool_down_s):
    """Step by step from wait to wait: it starts in the end, and never before its time."""
    policy = changed(WATCHED, cool_down_s=cool_down_s, budget=Budget(runs=runs, minutes=minutes))
    past = [trained(NOON - before - took, took) for before, took in begun]
    now = NOON
    for _ in range(30):
        found = asked(policy, now, past, [FELL])
        if isinstance(found, Start):
            break
        assert found.until is not None and found.until > now
        assert isinstance(asked(policy, (now + found.until) / 2, past, [FELL]), Wait)
        now = found.until
    else:
        raise AssertionError("it never started")
    of_days = [each for each in past if each.at > now - 7 * DAY]
    assert len(of_days) < runs and sum(each.took_s for each in of_days) < minutes * 60


# -- the schedule ----------------------------------------------------------------------------------


def test_a_time_starts_one_run():
    night = at("2026-11-22 03:00", "Europe/London")
    found = asked(NIGHTLY, night + 5)
    assert found == Start(
        "time 2026-11-22 03:00 Europe/London", "scheduled for 2026-11-22 03:00 Europe/London"
    )
    done = asked(changed(NIGHTLY, cool_down_s=0), night + 100, [trained(night + 5, 60, found.key)])
    assert done == Wait("the next time is 2026-11-23 03:00 Europe/London", night + DAY)


def test_a_missed_time_is_made_up_for_within_its_time():
    night = at("2026-11-22 03:00", "Europe/London")
    found = asked(NIGHTLY, night + 5 * HOUR)
    assert isinstance(found, Start) and found.reason.endswith(", made up for")
    assert isinstance(asked(NIGHTLY, night + 7 * HOUR), Wait)
    assert isinstance(asked(changed(NIGHTLY, late_s=0), night + 1), Wait)


def test_what_was_due_before_there_was_a_policy_is_not_missed():
    night = at("2026-11-22 03:00", "Europe/London")
    assert isinstance(asked(NIGHTLY, night + HOUR, since=night + 60), Wait)
    before = [trained(night - DAY)]
    assert isinstance(asked(NIGHTLY, night + HOUR, before, since=night + 60), Start)


def test_a_run_for_an_alarm_in_the_night_holds_the_schedule_off_for_its_cool_down():
    policy = changed(NIGHTLY, alarms=("quality",), cool_down_s=2 * HOUR)
    night = at("2026-11-22 03:00", "Europe/London")
    past = [trained(night - HOUR, 600, "alarm a1 after 0.000")]
    assert "cools down" in asked(policy, night + 60, past).reason
    found = asked(policy, night + 80 * 60, past)
    assert isinstance(found, Start) and found.key.startswith("time ")
    late = changed(policy, late_s=HOUR)
    assert isinstance(asked(late, night + 80 * 60, past), Wait), "too late for that night"


def test_a_time_and_an_alarm_are_one_run():
    policy = changed(NIGHTLY, alarms=("quality",))
    night = at("2026-11-22 03:00", "Europe/London")
    found = asked(policy, night + 1, alarms=[FELL._replace(began=night - 60)])
    assert found.key == "time 2026-11-22 03:00 Europe/London"
    assert found.reason.startswith("scheduled for") and "; alarm quality since" in found.reason


# -- clocks ----------------------------------------------------------------------------------------


def test_the_hour_that_comes_twice_is_one_time():
    half_past_one = Cron("30 1 * * *", "Europe/London")
    first = at("2026-10-25 01:30", "Europe/London", fold=0)
    second = at("2026-10-25 01:30", "Europe/London", fold=1)
    assert second - first == HOUR
    assert half_past_one.last(first) == (first, "2026-10-25 01:30")
    assert half_past_one.last(second) == (first, "2026-10-25 01:30")
    assert half_past_one.next(first)[1] == "2026-10-26 01:30"
    policy = changed(NIGHTLY, cron="30 1 * * *", cool_down_s=0)
    key = asked(policy, first).key
    assert isinstance(asked(policy, second, [trained(first, 60, key)]), Wait)


def test_a_time_in_the_hour_that_is_left_out_comes_all_the_same():
    half_past_one = Cron("30 1 * * *", "Europe/London")
    came, wall = half_past_one.last(at("2026-03-29 12:00", "Europe/London"))
    assert (came, wall) == (at("2026-03-29 02:30", "Europe/London"), "2026-03-29 01:30")
    assert came - at("2026-03-28 01:30", "Europe/London") == DAY
    assert half_past_one.last(came - 1)[1] == "2026-03-28 01:30"


@given(st.integers(0, 2 * 365 * 24 * 60), st.sampled_from(["Europe/London", "Asia/Kolkata", "UTC"]))
def test_last_and_next_leave_no_time_out(minute, zone):
    cron = Cron("*/20 1,2 * * *", zone)
    now = at("2026-01-01") + 60 * minute
    following, _ = cron.next(now)
    last = cron.last(now)
    assert last is not None and last[0] <= now < following
    assert cron.last(following)[0] == following
    assert cron.last(following - 1) == last
    assert datetime.fromtimestamp(last[0], ZoneInfo(zone)).hour in (1, 2, 3)


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("0 3 * * mon", ["2026-11-23 03:00", "2026-11-30 03:00"]),
        ("0 3 * * 0", ["2026-11-29 03:00", "2026-12-06 03:00"]),
        ("0 3 * * 7", ["2026-11-29 03:00", "2026-12-06 03:00"]),
        ("0 9-11/2 * nov,dec 1-5", ["2026-11-23 09:00", "2026-11-23 11:00", "2026-11-24 09:00"]),
        ("*/30 13 * * *", ["2026-11-22 13:00", "2026-11-22 13:30", "2026-11-23 13:00"]),
        ("5/25 13 * * *", ["2026-11-22 13:05", "2026-11-22 13:30", "2026-11-22 13:55"]),
        ("0 0 1 * *", ["2026-12-01 00:00", "2027-01-01 00:00"]),
        ("0 0 1 * sat", ["2026-11-28 00:00", "2026-12-01 00:00"]),  # either will do
        ("0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00"]),
    ],
)
def test_what_a_cron_means(text, times):
    cron, now = Cron(text, "UTC"), NOON
    for wall in times:
        now, said = cron.next(now)
        assert (now, said) == (at(wall), wall)


def test_times_only_grow():
    cron, now, seen = Cron("15 */2 * * *", "America/New_York"), at("2026-03-07"), []
    for _ in range(40):
        now, _ = cron.next(now)
        seen.append(now)
    assert all(a < b for a, b in pairwise(seen))


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *",
     "1- * * * *", "5-1 * * * *", "*/0 * * * *", "* * * * mond", "0 0 30 2 *", "*-3 * * * *",
     "-1 * * * *", "1,,2 * * * *"],
)  # fmt: skip
def test_what_is_no_cron_is_told(text):
    with pytest.raises(ValueError, match="cron = "):
        Cron(text, "UTC")


def test_a_policy_that_cannot_be_is_refused_where_it_is_read():
    base = {"pipeline": "p:P"}
    for wrong, said in (
        ({}, "expected cron, alarms, or both"),
        ({"cron": "daily"}, "cron = 'daily'"),
        ({"cron": "0 3 * * *", "zone": "Moon/Base"}, "zone = 'Moon/Base'"),
        ({"alarms": ["drift"], "then": "pray"}, "pray"),
    ):
        with pytest.raises(msgspec.ValidationError, match=said):
            msgspec.convert(base | wrong, Retrain)
