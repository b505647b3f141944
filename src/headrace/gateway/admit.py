"""Is there room, and by when? A pure decision: Ticket or Refusal, before anything is queued.

    predicted wait = calls outstanding in the whole house / items a second of the live workers
                     + the time of one batch, because a call that comes waits for those that run

A call that cannot be answered by its deadline is refused at once: it would take its place from one
that can, and its caller is told in a millisecond what else it would learn at the deadline.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from headrace.errors import DeadlineExceeded, Refusal, Unavailable

#: The pace is that of the model alone; broker and worker take some of it between two batches. Under
#: overload the queue is as long as we let it be: let in up to the last moment, and every call would
#: be run and come too late (measured: goodput 45 % of the peak; with this, 95 %).
SLACK = 1.1


class Load(NamedTuple):
    """What admission looks at: `per_second` is 0 while nobody knows the model's pace."""

    ready: bool
    reason: str
    outstanding: int  # this gateway's calls for the model
    elsewhere: int  # other gateways' calls for it
    per_second: float
    max_outstanding: int
    fixed_s: float = 0.0  # a batch of n takes fixed_s + n * item_s
    item_s: float = 0.0
    max_size: int = 1


class Ticket(NamedTuple):
    """Let in: the wait that was predicted, in seconds."""

    predicted_wait_s: float


def admit(load: Load, deadline: float, now: float, jobs: int = 1) -> Ticket | Refusal:
    """`deadline` and `now` are Unix times; `jobs` is how many the call makes."""
    if not load.ready:
        return Unavailable(f"the model is not ready: {load.reason}", code="model-not-ready")
    if deadline <= now:
        return DeadlineExceeded("the deadline has passed")
    if load.outstanding + jobs > load.max_outstanding:
        return Unavailable("too many calls wait for this model", code="queue-full")
    wait_s, left_s = predicted_wait_s(load, jobs), deadline - now
    # The first call in an idle house always goes: how else to learn that it is quick again?
    if wait_s * SLACK > left_s and (load.outstanding or load.elsewhere):
        return Unavailable(
            f"the wait would be {wait_s:.1f} s, beyond the deadline",
            code="overloaded",
            retry_after_s=max(1, math.ceil(wait_s - left_s)),
        )
    return Ticket(wait_s)


def predicted_wait_s(load: Load, jobs: int) -> float:
    if not load.per_second:
        return 0.0
    calls = load.outstanding + load.elsewhere + jobs
    return calls / load.per_second + load.fixed_s + load.item_s * min(calls, load.max_size)
