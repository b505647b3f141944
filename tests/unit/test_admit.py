"""Admission: a pure decision, worked by hand."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import DeadlineExceeded, Refusal, Unavailable
from headrace.gateway.admit import Load, Ticket, admit

IDLE = Load(True, "", 0, 0, 100.0, 1000)


def test_an_idle_model_lets_in():
    ticket = admit(IDLE, deadline=1010.0, now=1000.0)
    assert ticket == Ticket(0.01)


def test_a_wait_beyond_the_deadline_is_refused_with_when_to_come_back():
    # 299 before it at 100 a second: 3 s to wait, 2 s to go, so come back in 1 s.
    refusal = admit(IDLE._replace(outstanding=200, elsewhere=99), deadline=1002.0, now=1000.0)
    assert isinstance(refusal, Unavailable)
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (503, "overloaded", 1)


def test_other_gateways_calls_count():
    load = IDLE._replace(elsewhere=500)
    assert isinstance(admit(load, deadline=1004.0, now=1000.0), Unavailable)
    assert isinstance(admit(load, deadline=1006.0, now=1000.0), Ticket)


def test_the_bound_refuses():
    refusal = admit(IDLE._replace(outstanding=1000), deadline=1e9, now=1000.0)
    assert isinstance(refusal, Unavailable) and refusal.code == "queue-full"


def test_a_model_that_is_not_ready_says_why():
    refusal = admit(Load(False, "loading", 0, 0, 0.0, 10), 1010.0, 1000.0)
    assert isinstance(refusal, Unavailable) and refusal.code == "model-not-ready"
    assert "loading" in refusal.detail


def test_a_deadline_that_is_now_is_past():
    assert isinstance(admit(IDLE, 1000.0, 1000.0), DeadlineExceeded)


def test_an_unknown_pace_lets_in():
    assert admit(IDLE._replace(per_second=0.0, outstanding=999), 1000.001, 1000.0) == Ticket(0.0)


loads = st.builds(
    Load, st.just(True), st.just(""), st.integers(0, 2000), st.integers(0, 2000),
    st.floats(0.1, 1e5), st.just(10_000), st.floats(0, 60), st.floats(0, 60), st.integers(1, 256),
)  # fmt: skip


@given(loads, st.floats(0.001, 300))
def test_more_load_never_lets_in_what_less_refused(load, seconds):
    now = 1000.0
    less = admit(load, now + seconds, now)
    more = admit(load._replace(outstanding=load.outstanding + 1), now + seconds, now)
    if isinstance(less, Refusal):
        assert isinstance(more, Refusal)


@given(loads, st.floats(0.001, 300))
def test_whoever_is_refused_is_told_to_wait_at_least_a_second(load, seconds):
    outcome = admit(load, 1000.0 + seconds, 1000.0)
    if isinstance(outcome, Unavailable):
        assert outcome.retry_after_s >= 1
