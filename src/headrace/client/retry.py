"""Retry or not, and after how long. Pure: the time left and the dice are arguments.

Predict has no side effects and a submit carries a key, so a call whose connection broke may be sent
again. (A cancel, replay or discard that was done and whose answer was lost is refused with 409 when
it comes again.) Retried are:

no connection, a broken one   another gateway, or the same one started again, may answer
429, 503                      the house said "later"; `Retry-After` is honoured
502                           a proxy lost its gateway

Not: 504 (the deadline has passed, and so has the caller's), 500 (the model raised, and would
again), and other 4xx. And never beyond the budget: where most calls fail, retries would only add
load.
"""

from __future__ import annotations

import httpx

from headrace.client.read import retry_after_of

RETRIED_STATUSES = frozenset({429, 502, 503})
RETRIED_ERRORS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.CloseError,
    httpx.RemoteProtocolError,
)
FIRST_WAIT_S = 0.1  # up to 0.1 s, 0.2 s, 0.4 s ...
LONGEST_WAIT_S = 5.0
USEFUL_S = 0.005  # a retry with less time than this is not worth its packet

Outcome = httpx.Response | httpx.RequestError


class RetryBudget:
    """Retries at most `share` of the calls, and `reserve` more.

    A bucket of `reserve` tokens: each call adds `share` of one, each retry takes one. May be shared
    by clients. Threads may lose an addition to each other, which errs to fewer retries.
    """

    def __init__(self, share: float = 0.1, reserve: float = 10.0) -> None:
        if not 0 <= share <= 1 or reserve < 0:
            raise ValueError(f"RetryBudget({share}, {reserve}): expected 0 <= share <= 1, reserve")
        self.share, self.reserve = share, reserve
        self.tokens = reserve

    def earn(self) -> None:
        self.tokens = min(self.reserve, self.tokens + self.share)

    def spend(self) -> bool:
        """False where it is used up."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def may_retry(outcome: Outcome) -> bool:
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in RETRIED_STATUSES
    return isinstance(outcome, RETRIED_ERRORS)


def wait_s(outcome: Outcome, attempt: int, dice: float) -> float:
    """Seconds to wait after the `attempt`th (1, 2, ...): full jitter on a doubling limit, on top of
    what the house asked for. `dice`: 0 to 1."""
    asked_s = retry_after_of(outcome) if isinstance(outcome, httpx.Response) else None
    limit_s: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt - 1, 30))
    return (asked_s or 0.0) + dice * limit_s


def decide(
    outcome: Outcome, attempt: int, most: int, *, left_s: float, budget: RetryBudget, dice: float
) -> float | None:
    """Seconds to wait before the next attempt, or None to give up now. Spends from the budget."""
    if attempt >= most or not may_retry(outcome):
        return None
    wait = wait_s(outcome, attempt, dice)
    if wait + USEFUL_S > left_s or not budget.spend():
        return None
    return wait
