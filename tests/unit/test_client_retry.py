"""What is retried, when, and how often at most."""

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.client.retry import LONGEST_WAIT_S, RetryBudget, decide, may_retry, wait_s


def reply(status: int, retry_after: str | None = None) -> httpx.Response:
    return httpx.Response(status, headers={"Retry-After": retry_after} if retry_after else {})


@pytest.mark.parametrize("status", [429, 502, 503])
def test_statuses_that_are_retried(status: int) -> None:
    assert may_retry(reply(status))


@pytest.mark.parametrize("status", [400, 404, 408, 413, 415, 422, 500, 501, 504])
def test_statuses_that_are_not(status: int) -> None:
    assert not may_retry(reply(status))


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.WriteError("reset"),
        httpx.RemoteProtocolError("closed without an answer"),
    ],
)
def test_broken_connections_are_retried(error: httpx.RequestError) -> None:
    assert may_retry(error)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("late"),
        httpx.WriteTimeout("late"),
        httpx.PoolTimeout("late"),
        httpx.LocalProtocolError("ours"),
        httpx.UnsupportedProtocol("gopher"),
    ],
)
def test_lateness_and_our_own_mistakes_are_not(error: httpx.RequestError) -> None:
    assert not may_retry(error)


@settings(deadline=None)  # a busy machine proves nothing
@given(st.integers(1, 10_000), st.floats(0, 1), st.integers(0, 100))
def test_waits_are_jittered_below_a_doubling_limit(
    attempt: int, dice: float, retry_after: int
) -> None:
    outcome = reply(503, str(retry_after))
    extra = wait_s(outcome, attempt, dice) - retry_after
    assert -1e-9 <= extra <= min(LONGEST_WAIT_S, 0.1 * 2 ** min(attempt - 1, 30)) + 1e-9


def test_waits_double() -> None:
    waits = [wait_s(httpx.ReadError("reset"), attempt, 1.0) for attempt in (1, 2, 3, 20)]
    assert waits == [0.1, 0.2, 0.4, LONGEST_WAIT_S]


def test_retry_after_beyond_the_deadline_is_not_waited_for() -> None:
    budget = RetryBudget()
    given_up = decide(reply(503, "5"), 1, 3, left_s=4.9, budget=budget, dice=0.0)
    assert given_up is None
    assert budget.tokens == budget.reserve  # nothing was spent
    assert decide(reply(503, "5"), 1, 3, left_s=5.1, budget=budget, dice=0.0) == 5.0


def test_at_most_so_many_attempts() -> None:
    budget = RetryBudget()
    assert decide(reply(503), 2, 3, left_s=9, budget=budget, dice=0.5) is not None
    assert decide(reply(503), 3, 3, left_s=9, budget=budget, dice=0.5) is None


@settings(deadline=None)  # a busy machine proves nothing
@given(
    st.integers(1, 300), st.sampled_from([0.0, 0.1, 0.2, 1.0]), st.floats(0, 20), st.integers(1, 5)
)
def test_the_budget_bounds_the_extra_calls(
    calls: int, share: float, reserve: float, most: int
) -> None:
    """Where every call fails, retries are at most share * calls + reserve."""
    budget = RetryBudget(share, reserve)
    retries = 0
    for _ in range(calls):
        budget.earn()
        attempt = 1
        while decide(reply(503), attempt, most, left_s=99, budget=budget, dice=0.0) is not None:
            attempt += 1
            retries += 1
    assert retries <= share * calls + reserve + 1e-6


def test_a_budget_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="share"):
        RetryBudget(share=2)
