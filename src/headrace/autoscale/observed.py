"""What a decision is made of: the records of one model, as they are read each minute."""

from __future__ import annotations

from typing import NamedTuple

from headrace.autoscale.forecast import Rates
from headrace.autoscale.margin import NONE, Settled
from headrace.policy import Override


class Observed(NamedTuple):
    #: Calls of each minute, oldest first, the last of the minute before now. NaN: nobody saw it.
    arrivals: Rates
    #: The count that was asked for last: nodes that are on their way count as present.
    asked: int
    #: L: the measured p95 from asking for a node to its first answer.
    lead_s: float
    #: Unix time of the newest figures.
    measured_at: float
    ready: int = 0
    #: Jobs that wait, beside those in hand.
    waiting: float = 0.0
    settled: Settled = NONE
    #: Another version is being rolled out.
    rollout: bool = False
    #: Workers that the rollout shares out among its two versions: there are as many to its end.
    shared: int = 0
    #: Answers wait on their way home while workers are idle: more of those would not help.
    reply_side: bool = False
    #: Unix time of the last raise.
    raised_at: float = 0.0
    overrides: tuple[Override, ...] = ()
