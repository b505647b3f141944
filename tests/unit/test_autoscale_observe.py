"""Announcements -> minutes: what is counted once, what is lost, and what nobody saw."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.announce import Announcement, Backlog, Outstanding
from headrace.autoscale.observe import Observer

M = 29_460_000  # a minute of Unix time
T = M * 60.0


def gateway(name="g", **more):
    given = {"gateway": name, "calls": {}, "up_s": 3_600.0} | more
    return Outstanding(**given)


def worker(name="w", **more):
    given = {
        "worker": name, "model": "ocr", "ready": True, "reason": "", "card": None, "slots": 2,
        "slots_ready": 2, "busy": 0, "in_hand": 0, "waiting": 0, "golden": True, "fixed_ms": 1.0,
        "per_item_ms": 1.0, "max_size": 1,
    }  # fmt: skip
    return Announcement(**(given | more))


def observer(now=T, **more):
    return Observer(["ocr"], now, **more)


def tell(seen, arrived, begins, ends, every=1.0, name="g", **more):
    """A gateway, each second of [begins, ends); `arrived` of the time is its counter."""
    at = begins
    while at < ends:
        seen.hear(gateway(name, arrived={"ocr": arrived(at)}, **more), at)
        at += every


def calls(seen, before=M + 1):
    return [minute.calls for minute in seen.close(before)]


def test_calls_of_a_minute_are_the_differences_of_all_gateways():
    seen = observer()
    tell(seen, lambda at: 7_000 + int(at - T) * 10, T, T + 62, name="a")
    tell(seen, lambda at: int(at - T) * 5, T + 0.5, T + 62, name="b")
    assert calls(seen) == [pytest.approx(900, abs=10)], "what an old gateway had is not of now"


def test_the_first_minute_is_not_whole_and_so_not_known():
    seen = observer(T + 1)
    tell(seen, lambda at: int(at - T), T + 1, T + 122)
    assert calls(seen, M + 2) == [None, pytest.approx(60, abs=1)]


def test_a_new_gateway_begins_at_zero():
    seen = observer()
    tell(seen, lambda at: 100, T, T + 20, name="old")
    seen.hear(gateway("new", arrived={"ocr": 7}, up_s=0.5), T + 20.6)
    tell(seen, lambda at: 7 + int(at - T - 20), T + 21, T + 62, name="new")
    assert calls(seen) == [pytest.approx(46, abs=2)]


def test_hearing_twice_and_late_counts_nothing():
    seen = observer()
    for at in range(62):
        for n in (at, at, max(0, at - 3)):  # two ears, and one that is slow
            seen.hear(gateway(arrived={"ocr": 10 * n}), T + at)
    assert calls(seen) == [pytest.approx(600, abs=10)]


def test_silence_is_not_zero_and_zero_is_not_silence():
    seen = observer()
    tell(seen, lambda at: 5, T, T + 62)
    assert calls(seen) == [0.0]
    assert calls(seen, M + 3) == [None, None], "nobody was heard"


def test_a_gateway_that_falls_silent_before_the_end_makes_the_minute_unknown():
    seen = observer()
    tell(seen, lambda at: int(at - T), T, T + 50)
    seen.look(T + 61)
    assert calls(seen) == [None]


def test_a_gap_within_a_minute_makes_it_unknown():
    seen = observer()
    tell(seen, lambda at: int(at - T), T, T + 20)
    tell(seen, lambda at: int(at - T), T + 30, T + 62, name="another")
    assert calls(seen) == [None]


def test_what_came_while_the_line_was_cut_is_spread_over_that_time():
    seen = observer()
    tell(seen, lambda at: int(at - T) * 10, T, T + 20)
    tell(seen, lambda at: int(at - T) * 10, T + 80, T + 122)
    assert calls(seen, M + 2) == [pytest.approx(600, abs=15), pytest.approx(600, abs=15)]


def test_of_a_long_silence_no_minute_gets_the_calls_of_all():
    seen = observer()
    tell(seen, lambda at: int(at - T) * 10, T, T + 20)
    assert calls(seen, M + 10) == [None] * 10
    tell(seen, lambda at: int(at - T) * 10, T + 630, T + 722)
    assert calls(seen, M + 12) == [pytest.approx(600, abs=15)] * 2


def test_what_is_told_a_moment_after_the_minute_counts_in_the_next():
    seen = observer()
    tell(seen, lambda at: int(at - T) * 10, T, T + 59.5)
    [first] = calls(seen)
    tell(seen, lambda at: int(at - T) * 10, T + 60.5, T + 122)
    [second] = calls(seen, M + 2)
    assert first + second == pytest.approx(1_200, abs=15)


@given(st.lists(st.tuples(st.floats(0.1, 40), st.integers(0, 500)), min_size=1, max_size=40))
def test_no_call_is_counted_twice_and_none_is_lost_that_is_told_in_time(steps):
    seen, at, total = observer(), T, 0
    seen.hear(gateway(arrived={"ocr": 0}), at)
    for wait_s, came in steps:
        at, total = at + wait_s, total + came
        seen.hear(gateway(arrived={"ocr": total}), at)
    counted = sum(sums.of("ocr").calls for sums in seen._minutes.values())
    assert counted == pytest.approx(total)


def test_a_gateway_that_leaves_is_not_missed_and_one_that_vanishes_is():
    seen = observer()
    tell(seen, lambda at: 0, T, T + 60, name="a")
    tell(seen, lambda at: 0, T, T + 30, name="b")
    assert seen.measured_at() == T + 29, "b may still serve"
    seen.hear(gateway("b", leaving=True), T + 59)
    assert seen.measured_at() == T + 59
    tell(seen, lambda at: 0, T + 59, T + 60, name="c")
    tell(seen, lambda at: 0, T + 60, T + 700, name="a")
    seen.look(T + 700)
    assert seen.measured_at() == T + 699, "c is forgotten after ten minutes"


def test_depth_is_of_the_queue_and_not_of_each_worker():
    seen = observer()
    seen.hear(gateway(calls={"ocr": 30}), T)
    seen.hear(worker("a", waiting=8, in_hand=10, busy=2), T)
    seen.hear(worker("b", waiting=9, in_hand=11, busy=1), T + 0.1)
    seen.look(T + 0.5)
    seen.hear(worker("b", leaving=True), T + 1)
    [minute] = seen.close(M + 1)
    assert (minute.waiting, minute.ready, minute.slots) == (9.0, 2.0, 4.0)
    assert (minute.busy, minute.open, minute.replies) == (0.75, None, None)


def test_versions_have_queues_of_their_own():
    seen = observer()
    seen.hear(gateway(calls={"ocr": 600}), T)
    seen.hear(worker("old", version=3, waiting=400, in_hand=2), T)
    seen.hear(worker("older", version=3, waiting=390, in_hand=2), T - 0.1)
    seen.hear(worker("new", version=4, waiting=20, in_hand=1), T + 0.1)
    seen.look(T + 0.5)
    sums = seen._minutes[M].of("ocr")
    assert (sums.waiting, sums.slots, sums.replies) == (420.0, 6, 600 - 420 - 5)


def test_messages_that_carry_several_jobs_are_not_more_than_calls_are_open():
    seen = observer()
    seen.hear(worker(waiting=10, in_hand=4, max_size=8), T)
    for open_calls, queued in ((1_000, 40), (25, 21), (3, 10)):
        seen.hear(gateway(calls={"ocr": open_calls}), T)
        seen.look(T + 1)
        assert seen._minutes[M].of("ocr").waiting == queued


def test_stored_jobs_that_wait_are_not_counted_twice():
    seen = observer()
    seen.hear(worker(waiting=40), T)
    for stored, waiting in ((30, 40), (500, 500)):
        seen.hear(Backlog({"ocr": stored}), T)
        seen.look(T)
        assert seen._minutes[M].of("ocr").waiting == waiting
    seen.look(T + 60)
    assert seen._minutes[M + 1].of("ocr").waiting == 0, "a clerk that fell silent"


def test_calls_that_wait_on_their_way_home_do_not_wait_for_workers():
    seen = observer()
    at = T
    while at < T + 62:
        seen.hear(worker(busy=1, in_hand=1), at)
        seen.hear(gateway(calls={"ocr": 500}, oldest_s={"ocr": 9.0}, reply_lag_s=8.0), at)
        seen.look(at)
        at += 1
    [minute] = seen.close(M + 1)
    assert (minute.waiting, minute.replies, minute.reply_lag_s) == (0.0, 499.0, 8.0)
    assert minute.oldest_s == 9.0


def test_a_silent_worker_is_gone():
    seen = observer()
    seen.hear(worker(), T)
    seen.look(T + 3)
    assert seen._minutes[M].of("ocr").ready == 1
    seen.look(T + 5)
    assert seen._minutes[M].of("ocr").ready == 0


def test_a_worker_is_ready_for_the_first_time_once():
    ready = []
    seen = observer(on_ready=lambda model, at: ready.append((model, at)))
    seen.hear(worker(ready=False), T)
    seen.hear(worker(), T + 1)
    seen.hear(worker(ready=False), T + 2)
    seen.hear(worker(), T + 3)
    seen.hear(worker("another"), T + 4)
    assert ready == [("ocr", T + 1), ("ocr", T + 4)]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -5.0])
def test_figures_that_are_none_were_not_measured(broken):
    seen = observer()
    for at in range(62):
        news = gateway(calls={"ocr": 1}, oldest_s={"ocr": broken}, reply_lag_s=broken, up_s=broken)
        seen.hear(news, T + at)
        seen.look(T + at)
    [minute] = seen.close(M + 1)
    assert (minute.calls, minute.oldest_s, minute.reply_lag_s) == (0.0, 0.0, 0.0)


def test_a_fast_clock_has_its_ages_and_its_patience_in_policy_time():
    seen = observer(speed=60.0)
    for at in range(0, 130, 15):  # four times a real second
        arrived = {"ocr": at}
        seen.hear(gateway(calls={"ocr": 1}, arrived=arrived, oldest_s={"ocr": 0.5}), T + at)
        seen.look(T + at)
    first, second = seen.close(M + 2)
    assert (first.calls, second.calls, second.oldest_s) == (60.0, 60.0, 30.0)


def test_other_models_are_not_watched():
    seen = observer()
    seen.hear(worker(model="other"), T)
    seen.hear(gateway(arrived={"other": 9}), T + 1)
    seen.look(T + 1)
    assert [minute.model for minute in seen.close(M + 1)] == ["ocr"]
