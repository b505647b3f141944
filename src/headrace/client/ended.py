"""Until a stored job has ended, as steps without I/O: long polls, one after the other.

A house that is away meanwhile (a gateway that is started again, a database that is down) is asked
again, for as long as a call may take, before the caller hears of it: the job goes on without us.
"""

from __future__ import annotations

import time

from headrace.client import asks
from headrace.client.attempt import Steps, Wait, attempts
from headrace.client.errors import DeadlinePassed
from headrace.client.read import Found
from headrace.client.retry import RetryBudget

POLL_S = 20.0  # shorter than what proxies allow an answer
PAUSE_S = 0.5  # after an answer that came early without an end: a gateway that leaves
_ALWAYS = 1_000_000


def ended(found: Found, url: str, timeout_s: float | None, deadline_s: float) -> Steps[Found]:
    """The job at its end. `timeout_s`: None for as long as it takes; `deadline_s`: how long the
    house may be away. Raises DeadlinePassed and what a call raises."""
    end = None if timeout_s is None else time.monotonic() + timeout_s
    patience = RetryBudget(0.0, float(_ALWAYS))
    while not found.view.ended:
        left_s = POLL_S if end is None else end - time.monotonic()
        if left_s <= 0:
            raise _late(found, timeout_s)
        wait_s = min(left_s, POLL_S)
        ask = asks.job(found.view.id, wait_s)
        most_s = POLL_S + deadline_s if end is None else min(left_s, POLL_S + deadline_s)
        began = time.monotonic()
        try:
            found = yield from attempts(ask, url, most_s, _ALWAYS, patience)
        except DeadlinePassed:
            if end is not None and time.monotonic() >= end:
                raise _late(found, timeout_s) from None
            raise
        if not found.view.ended and time.monotonic() - began < wait_s / 2:
            yield Wait(min(PAUSE_S, left_s))
    return found


def _late(found: Found, timeout_s: float | None) -> DeadlinePassed:
    view = found.view
    return DeadlinePassed(
        f"job {view.id} has not ended in {round(timeout_s or 0, 2):g} s: it was {view.state}",
        request_id=view.request_id,
    )
