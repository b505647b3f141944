"""A rollout from start to end, by each strategy: shares, counts, what sends it back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from headrace.announce import FRESH_S, Announcement, Outstanding
from headrace.deploy.hear import LASTS_S, Ear, Workers
from headrace.deploy.rollout import (
    BREAKS,
    GONE_S,
    Seen,
    advance,
    asked,
    grown,
    over,
    route_shares,
    shadowed,
)
from headrace.deploy.traffic import QUIET_S, Traffic
from headrace.deployments import WHOLE, Deploy, Rollout, Share, Verdict

POLICY = Deploy(steps=(5.0, 25.0), hold_s=10.0, wait_s=60.0, keep_s=20.0, ready_s=30.0)
GOOD = (Verdict(gate="errors", verdict="good"),)
FEW = (Verdict(gate="errors", verdict="few", text="3 calls are too few"),)
BAD = (*GOOD, Verdict(gate="latency", verdict="bad", text="its p95 is 90 ms"))
DOUBT = (Verdict(gate="refusals", verdict="doubtful", text="perhaps"),)


def rollout(strategy="canary", **more):
    made = {
        "id": "r", "model": "wine", "from_version": 1, "to_version": 2, "strategy": strategy,
        "author": "ann", "reason": "better", "started": 0.0, "updated": 0.0, "since": 0.0,
        "named": 2,
    }  # fmt: skip
    return Rollout(**(made | more))


def seen(ready=0, full=4, verdicts=GOOD, stable=None, **more):
    given_new = {"unready_s": 0.0 if ready else None} | more.pop("new", {})
    return Seen(
        new=Workers(ready, **given_new),
        stable=Workers(full if stable is None else stable, unready_s=0.0),
        full=full,
        verdicts=verdicts,
        **more,
    )


def drive(one, policy=POLICY, full=4, verdicts=GOOD, until=400, **more):
    """Workers come as they are asked for. What happened, with shares and counts of that moment."""
    happened, ready = [], 0
    for now in range(until):
        following = advance(one, seen(ready, full, verdicts, **more), policy, float(now))
        one = following.rollout
        shares = {each.version: each.of_whole for each in route_shares(one, policy, full)}
        assert sum(shares.values()) == WHOLE
        for kind, _ in following.events:
            happened.append((now, kind, shares.get(2, 0), following.counts))
        ready = following.counts.get(2, ready)
        if not one.is_open:
            break
    return one, happened


@pytest.mark.parametrize(
    "one",
    [rollout("blue-green"), rollout(state="promoting", step=1)],
    ids=["starting", "promoting"],
)
@pytest.mark.parametrize("paused", [False, True])
def test_more_workers_than_a_moment_ago_have_their_time_to_start(one, paused):
    one = structs.replace(one, paused=paused)
    late = POLICY.ready_s + 5
    assert advance(one, seen(4, 5), POLICY, late).rollout.state == "rolled-back"
    more = grown(one, late)
    assert advance(more, seen(4, 5), POLICY, late).rollout.is_open
    assert advance(more, seen(4, 5), POLICY, late + POLICY.ready_s).rollout.is_open
    assert not advance(more, seen(4, 5), POLICY, late + POLICY.ready_s + 1).rollout.is_open


def test_a_step_is_held_no_longer_for_workers_that_others_were_given():
    one = rollout(state="stepping")
    assert grown(one, 5.0) == one


def test_a_canary_goes_by_steps_with_workers_that_are_there_before_the_calls():
    one, happened = drive(rollout(), full=10)
    assert happened == [
        (1, "step", 500, {2: 1}),
        (12, "step", 2500, {2: 3}),
        (22, "promoting", 2500, {2: 10}),
        (23, "keeping", WHOLE, {2: 10}),
        (43, "done", WHOLE, {2: 10}),
    ]
    assert (one.state, one.ended, one.barred) == ("done", 43.0, False)


def test_rolling_takes_one_by_one_with_their_share():
    _, happened = drive(rollout("rolling"), full=3)
    assert happened == [
        (1, "step", 3333, {2: 1, 1: 2}),
        (12, "step", 6666, {2: 2, 1: 1}),
        (23, "keeping", WHOLE, {2: 3}),
        (43, "done", WHOLE, {2: 3}),
    ]
    _, happened = drive(rollout("rolling"), full=1)
    assert [each[1] for each in happened] == ["keeping", "done"]


def test_blue_green_is_all_at_once_at_full_strength():
    one, happened = drive(rollout("blue-green"))
    assert happened == [(1, "keeping", WHOLE, {2: 4}), (21, "done", WHOLE, {2: 4})]
    keeping = structs.replace(rollout("blue-green"), state="keeping")
    assert route_shares(keeping, POLICY, 4) == (Share(1, 0), Share(2, WHOLE)), "1 stands by"
    assert route_shares(one, POLICY, 4) == (Share(2, WHOLE),)


def test_a_shadow_answers_nobody_until_a_person_promotes_it():
    one, happened = drive(rollout("shadow"), until=100)
    assert happened == [(1, "stepping", 0, {2: 1})]
    assert shadowed(one, POLICY) == (2, 1000)
    promoted = asked(one, "promote", "looks good", seen(1), 100.0)
    assert promoted.rollout.state == "promoting"
    assert shadowed(promoted.rollout, POLICY) == (2, 1000)
    following = advance(promoted.rollout, seen(1), POLICY, 101.0)
    assert following.counts == {2: 4}
    following = advance(following.rollout, seen(4), POLICY, 102.0)
    assert following.rollout.state == "keeping"
    assert shadowed(following.rollout, POLICY) == (0, 0)


@pytest.mark.parametrize(
    "more",
    [
        {"one": rollout(from_version=0)},
        {"one": rollout(), "stable": 0},
        {"one": rollout(), "idle": True},
    ],
)
def test_with_nothing_to_compare_it_goes_at_once(more):
    _, happened = drive(**more)
    assert happened[0][1] in ("keeping", "done")
    assert happened[0][0] == 1
    assert happened[0][3] == {2: 4}


def test_a_strict_canary_that_nobody_calls_keeps_to_its_steps():
    strict = structs.replace(POLICY, strict=True)
    _, happened = drive(rollout(), strict, idle=True, verdicts=FEW)
    assert [each[1] for each in happened] == ["step", "rolled-back"]
    assert happened[-1][0] == 61


def test_too_few_calls_are_waited_for_and_then_gone_on_with():
    for verdicts in (FEW, DOUBT, ()):
        _, happened = drive(rollout(), verdicts=verdicts)
        assert [each[:2] for each in happened][:2] == [(1, "step"), (61, "step")]
    one = advance(rollout(state="stepping"), seen(1, verdicts=FEW), POLICY, 30.0).rollout
    assert one.why == "errors: 3 calls are too few"


def test_a_gate_that_falls_sends_it_back_at_once():
    for state in ("stepping", "promoting", "keeping"):
        one = rollout(state=state, paused=state == "stepping")
        following = advance(one, seen(1, verdicts=BAD), POLICY, 5.0)
        back = following.rollout
        assert (back.state, back.why) == ("rolled-back", "latency: its p95 is 90 ms")
        assert (back.barred, back.ended, back.paused) == (True, 5.0, False)
        assert route_shares(back, POLICY, 4) == (Share(1, WHOLE),)
        assert following.counts == {1: 4}
        assert back.figures["latency"]["verdict"] == "bad"


def test_our_own_files_are_no_measure_but_for_errors():
    first = rollout(from_version=0, state="keeping")
    assert advance(first, seen(4, verdicts=BAD), POLICY, 5.0).rollout.is_open
    errors = (Verdict(gate="errors", verdict="bad", text="all fail"),)
    assert not advance(first, seen(4, verdicts=errors), POLICY, 5.0).rollout.is_open


@pytest.mark.parametrize("state", ["starting", "stepping", "promoting", "keeping"])
def test_workers_that_do_not_come_up_send_it_back(state):
    one = rollout(state=state)
    sick = seen(0, new={"trouble": "golden call: got 3, expected 4"})
    back = advance(one, sick, POLICY, 5.0).rollout
    assert back.state == "rolled-back"
    assert "golden call: got 3" in back.why
    late = seen(0)
    assert advance(one, late, POLICY, 30.0).rollout.is_open
    assert "0 of" in advance(one, late, POLICY, 30.1).rollout.why
    assert advance(one, late, POLICY, 30.1).rollout.state == "rolled-back"
    assert advance(one, late._replace(looked_s=3.0), POLICY, 30.1).rollout.is_open
    assert advance(one, late._replace(heard=False), POLICY, 99.0).rollout.is_open


def test_workers_that_are_gone_or_break_again_and_again_send_it_back():
    one = rollout(state="stepping")
    gone = seen(0, new={"unready_s": GONE_S - 0.1})
    assert advance(one, gone, POLICY, 5.0).rollout.is_open
    gone = seen(0, new={"unready_s": GONE_S})
    assert "was ready for 5 s" in advance(one, gone, POLICY, 5.0).rollout.why
    loop = seen(1, new={"breaks": BREAKS})
    assert "ended 3 times" in advance(one, loop, POLICY, 5.0).rollout.why
    both = loop._replace(stable=Workers(4, breaks=2))
    assert advance(one, both, POLICY, 5.0).rollout.is_open, "production breaks, too"


def test_the_next_step_does_not_wait_for_workers_for_ever():
    one = rollout(state="stepping")
    waits = advance(one, seen(1, full=10), POLICY, 99.0)
    assert waits.rollout.why == "1 of 3 workers for the next step are ready"
    assert waits.counts == {2: 3}
    assert advance(one, seen(1, full=10), POLICY, 101.0).rollout.state == "rolled-back"


def test_a_person_pauses_resumes_promotes_and_takes_back():
    one = rollout(state="stepping")
    paused = asked(one, "pause", "lunch", seen(1), 20.0)
    assert paused.events == (("pause", "lunch"),)
    assert isinstance(asked(paused.rollout, "pause", "again", seen(1), 20.0), str)
    assert isinstance(asked(one, "resume", "again", seen(1), 20.0), str)
    stands = advance(paused.rollout, seen(1), POLICY, 300.0)
    assert (stands.rollout.state, stands.rollout.step, stands.rollout.why) == (
        "stepping", 0, "paused",
    )  # fmt: skip
    resumed = asked(paused.rollout, "resume", "back", seen(1), 300.0).rollout
    assert advance(resumed, seen(1), POLICY, 305.0).rollout.step == 0, "held anew"
    assert advance(resumed, seen(1), POLICY, 310.0).rollout.step == 1
    promoted = asked(one, "promote", "now", seen(1), 20.0).rollout
    assert promoted.state == "promoting"
    assert advance(promoted, seen(4), POLICY, 21.0).rollout.state == "keeping"
    assert isinstance(asked(promoted, "promote", "now", seen(1), 20.0), str)
    assert isinstance(asked(one, "start", "now", seen(1), 20.0), str)
    early = asked(rollout(), "promote", "now", seen(1), 1.0).rollout
    assert advance(early, seen(4), POLICY, 2.0).rollout.state == "keeping"
    back = asked(one, "rollback", "callers complain", seen(1), 20.0)
    assert (back.rollout.state, back.rollout.barred) == ("rolled-back", True)
    assert [kind for kind, _ in back.events] == ["rollback", "rolled-back"]


def test_without_a_time_to_keep_it_is_done_at_once():
    _, happened = drive(rollout("blue-green"), structs.replace(POLICY, keep_s=0.0))
    assert happened == [(1, "done", WHOLE, {2: 4})]
    stopped = over(rollout(state="stepping"), "stopped", "not wanted", seen(1), 9.0).rollout
    assert (stopped.barred, route_shares(stopped, POLICY, 4)) == (False, (Share(1, WHOLE),))


@given(
    st.sampled_from(["canary", "rolling", "blue-green", "shadow"]),
    st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from([GOOD, FEW, DOUBT, BAD, ()])), max_size=60
    ),
    st.integers(1, 6),
)
def test_whatever_comes_shares_are_whole_and_an_end_is_an_end(strategy, moments, full):
    one = rollout(strategy)
    for place, (ready, verdicts) in enumerate(moments):
        before = one
        following = advance(one, seen(ready, full, verdicts), POLICY, place * 7.0)
        one = following.rollout
        shares = route_shares(one, POLICY, full)
        assert sum(share.of_whole for share in shares) == WHOLE
        assert all(share.of_whole >= 0 for share in shares)
        assert all(count >= 1 for count in following.counts.values())
        if verdicts is BAD and before.state != "starting":
            assert one.state == "rolled-back"
        grew = {s.version: s.of_whole for s in shares}.get(2, 0)
        was = {s.version: s.of_whole for s in route_shares(before, POLICY, full)}.get(2, 0)
        if grew > was:
            assert ready >= 1, "calls go only where somebody is ready"
        if grew == WHOLE > was:
            assert ready >= full
        if not one.is_open:
            assert one.state in ("done", "rolled-back")
            return


# -- what workers and gateways say -----------------------------------------------------------------


def said(worker="w", version=2, ready=True, reason="", slots=1, **more):
    given_ = {"in_hand": 0, "waiting": 0, "leaving": False} | more
    return Announcement(
        worker=worker, model="wine", ready=ready, reason=reason, card=None, slots=1,
        slots_ready=slots if ready else 0, busy=0, golden=True, fixed_ms=1.0, per_item_ms=1.0,
        max_size=8, version=version, **given_,
    )  # fmt: skip


def test_who_is_ready_and_for_how_long_nobody_was():
    ear = Ear()
    assert ear.workers(2, 0.0) == Workers()
    ear.hear(said(ready=False, reason="loading"), 1.0)
    assert ear.workers(2, 2.0) == Workers()
    ear.hear(said(in_hand=2, waiting=3), 3.0)
    ear.hear(said("other", version=1), 3.0)
    assert ear.workers(2, 4.0) == Workers(ready=1, unready_s=0.0, waiting=5)
    after = ear.workers(2, 3.0 + FRESH_S + 0.1)
    assert (after.ready, after.breaks) == (0, 1), "it fell silent"
    assert after.unready_s == pytest.approx(FRESH_S + 0.1)
    ear.forget(2)
    assert ear.workers(2, 9.0) == Workers()


def test_a_reason_counts_when_it_lasts_and_nobody_is_ready():
    ear = Ear()
    for at in (0.0, 1.0, 2.0, LASTS_S):
        ear.hear(said(ready=False, reason="exit status 3"), at)
        trouble = ear.workers(2, at).trouble
        assert bool(trouble) == (at >= LASTS_S)
    ear.hear(said("better"), LASTS_S)
    assert ear.workers(2, LASTS_S).trouble == ""
    ear.hear(said(), LASTS_S)
    ear.hear(said(ready=False, reason="exit status 3"), LASTS_S + 1)
    assert ear.workers(2, LASTS_S + 1).breaks == 1


def test_who_leaves_did_not_break():
    ear = Ear()
    ear.hear(said(), 0.0)
    ear.hear(said(ready=False, reason="leaving", leaving=True), 1.0)
    assert ear.workers(2, 1.0).breaks == 0
    assert ear.workers(2, 9.0).breaks == 0


def test_a_model_that_nobody_calls_is_idle():
    traffic = Traffic()
    assert not traffic.heard(0.0)
    assert not traffic.idle("wine", 0.0), "nobody says so"
    traffic.hear(Outstanding("g", {}, {"ale": 9}), 1.0)
    assert traffic.idle("wine", 1.0)
    assert not traffic.idle("ale", 1.0)
    traffic.hear(Outstanding("g", {}, {"ale": 9, "wine": 1}), 2.0)
    assert not traffic.idle("wine", 2.0)
    late = 2.0 + QUIET_S + 0.1
    traffic.hear(Outstanding("g", {}, {"ale": 9, "wine": 1}), late)
    assert traffic.idle("wine", late) and traffic.idle("ale", late)
    traffic.hear(Outstanding("g", {}, {"ale": 10, "wine": 1}, leaving=True), late)
    assert not traffic.idle("ale", late)
    assert not traffic.heard(late + FRESH_S + 0.1)


def test_rolling_lets_nobody_go_before_who_follows_is_ready():
    one = rollout("rolling", state="stepping", step=1)
    following = advance(one, seen(1, full=3), POLICY, 30.0)
    assert following.counts == {1: 2, 2: 2}, "one is on its way, and both old ones work on"
    following = advance(following.rollout, seen(2, full=3), POLICY, 31.0)
    assert following.counts == {1: 1, 2: 2}
