"""Is there room, and by when? A pure decision: Ticket or Refusal, before anything is queued.

    predicted wait = calls outstanding in the whole house / items a second of the live workers

A call that cannot be answered by its deadline is refused at once: it would take its place from one
that can, and its caller is told in a millisecond what else it would learn at the deadline.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from headrace.errors import DeadlineExceeded, Refusal, Unavailable

#: The prediction is a mean; refuse only what would be late by more than it is usually wrong.
SLACK = 1.0


class Load(NamedTuple):
    """What admission looks at: `per_second` is 0 while nobody knows the model's pace."""

    ready: bool
    reason: str
    outstanding: int  # this gateway's calls for the model
    elsewhere: int  # other gateways' calls for it
    per_second: float
    max_outstanding: int


class Ticket(NamedTuple):
    """Let in: the wait that was predicted, in seconds."""

    predicted_wait_s: float


def admit(load: Load, deadline: float, now: float) -> Ticket | Refusal:
    """`deadline` and `now` are Unix times."""
    if not load.ready:
        return Unavailable(f"the model is not ready: {load.reason}", code="model-not-ready")
    if deadline <= now:
        return DeadlineExceeded("the deadline has passed")
    if load.outstanding >= load.max_outstanding:
        return Unavailable("too many calls wait for this model", code="queue-full")
    wait_s = predicted_wait_s(load)
    late_s = wait_s * SLACK - (deadline - now)
    if late_s > 0:
        return Unavailable(
            f"the wait would be {wait_s:.1f} s, beyond the deadline",
            code="overloaded",
            retry_after_s=max(1, math.ceil(late_s)),
        )
    return Ticket(wait_s)


def predicted_wait_s(load: Load) -> float:
    if not load.per_second:
        return 0.0
    return (load.outstanding + load.elsewhere + 1) / load.per_second
