"""One model, minute by minute: its history, its forecasts, its alarms -> a decision. Pure.

hear(minute) -> alarms that begin or end        each minute, whatever else fails
decide(...)  -> the decision, and its forecast  where the counts and overrides are known
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from headrace.autoscale.alarm import (
    FEW,
    JUDGED,
    Alarms,
    Change,
    Finding,
    believed,
    classify,
)
from headrace.autoscale.decide import Decision, cut_off, decide, lead_min
from headrace.autoscale.foretold import Forecasted, Foretold
from headrace.autoscale.history import History
from headrace.autoscale.observed import Observed
from headrace.autoscale.starts import lead_s
from headrace.policy import Override, Policy
from headrace.store.scaling import Minute


class Standing(NamedTuple):
    """What is asked of others before a decision. `asked` is None where nobody knows the count."""

    asked: int | None
    moving: bool = False
    #: Workers that a rollout shares out among its two versions; 0: none does.
    shared: int = 0
    overrides: tuple[Override, ...] = ()
    #: Start-up times that were measured.
    starts: Sequence[float] = ()


class Watch:
    def __init__(
        self,
        policy: Policy,
        history: History | None = None,
        foretold: Foretold | None = None,
        alarms: Alarms | None = None,
        raised_at: float = 0.0,
    ) -> None:
        self.policy = policy
        self.history, self.foretold = history or History(), foretold or Foretold()
        self.alarms = alarms or Alarms()
        self._raised_at = raised_at
        self._last: deque[Minute] = deque(maxlen=JUDGED)
        self._known: int | None = None  # the last count that somebody told
        self.asked = policy.least  # that the last decision was made from

    def hear(self, minute: Minute) -> list[Change]:
        """A minute that is over. Those between it and the last one were seen by nobody."""
        findings = []
        if not believed(minute, self.policy):
            detail = f"{minute.calls:.3g} calls in a minute are taken for none that was seen"
            findings.append(Finding("not-believed", detail))
            minute = msgspec.structs.replace(minute, calls=None)
        self._last.append(minute)
        self.history.put(minute.minute, minute.calls)
        arrivals = self.history.before(minute.minute + 1)
        found = classify([*self._last], self.policy, cut_off(arrivals, self.policy, FEW))
        return self.alarms.hear([*findings, found] if found else findings)

    def settle(self, now: float) -> dict[int, float]:
        """What came of the forecasts that are over, by the minutes in which they were made."""
        return self.foretold.settle(self.history, int(now // 60))

    def decide(
        self, standing: Standing, now: float, measured_at: float
    ) -> tuple[Decision, Forecasted | None]:
        """`now` and `measured_at`, of the oldest figures, in Unix seconds."""
        last = self._last[-1] if self._last else None
        asked = self.asked = self._count(standing, last, now)
        seen = Observed(
            arrivals=self.history.before(int(now // 60)),
            asked=asked,
            lead_s=lead_s(standing.starts, self.policy.node.start_s),
            measured_at=measured_at,
            ready=int(last.ready or 0) if last else 0,
            waiting=(last.waiting or 0.0) if last else 0.0,
            settled=self.foretold.settled(),
            rollout=standing.moving,
            shared=standing.shared,
            reply_side=self.alarms.on("reply-side"),
            raised_at=self._raised_at,
            overrides=standing.overrides,
        )
        made = decide(seen, self.policy, now)
        if made.foretold is None:
            return made, None
        first = int(now // 60) + lead_min(seen)
        forecasted = Forecasted(int(now // 60), first, first + self.policy.cycle_min, made.foretold)
        self.foretold.keep(forecasted)
        return made, forecasted

    def _count(self, standing: Standing, last: Minute | None, now: float) -> int:
        """The count that stands. Whoever raised it, nothing is lowered for a while after."""
        known = self._known
        if standing.asked is not None:
            self._known = standing.asked
            if known is not None and standing.asked > known:
                self._raised_at = now
        if self._known is not None:
            return self._known
        return max(self.policy.least, int(last.ready or 0) if last else 0)  # those who are there
