"""Our own policy in a replay: the very decide that the house runs, with its memory of forecasts."""

from __future__ import annotations

from headrace.autoscale.decide import Decision, decide
from headrace.autoscale.forecast import DAY, Rates
from headrace.autoscale.margin import Settled, room
from headrace.autoscale.observed import Observed
from headrace.autoscale.replay import Moment, Scene
from headrace.policy import Policy

KEPT_MIN = 8 * DAY  # what a house reads of its history


class Ours:
    name = "ours"

    def __init__(self, scene: Scene, policy: Policy) -> None:
        self._scene, self._policy = scene, policy
        self._memory = Memory(scene.calls, policy.cycle_min, scene.boot_min)
        self._raised_at = 0.0
        self.decisions: list[Decision] = []
        self.margins: list[tuple[int, float]] = []  # minute of the trace, margin

    def count(self, moment: Moment) -> int:
        at, scene = moment.at, self._scene
        minute = scene.start_min + at
        now = minute * 60.0
        first = max(0, at - KEPT_MIN)
        seen = Observed(
            arrivals=scene.calls[first:at],
            asked=moment.present,
            lead_s=scene.boot_min * 60.0,
            measured_at=now,
            ready=moment.ready,
            waiting=moment.waiting,
            settled=self._memory.settled(minute, at),
            raised_at=self._raised_at,
        )
        made = decide(seen, self._policy, now)
        if made.foretold is not None:
            self._memory.keep(minute, at, made.foretold)
            self.margins.append((at, made.inputs["margin"]))
        if made.count > moment.present:
            self._raised_at = now
        if made.count != moment.present:
            self.decisions.append(made)
        return made.count

    def foretold(self) -> Settled:
        """All of them, with what came."""
        return self._memory.settled(0, len(self._scene.calls) + 1)


class Memory:
    """The forecasts of a replay; one is settled when the minutes that it was of are over."""

    def __init__(self, calls: Rates, cycle_min: int, lead_min: int) -> None:
        most = len(calls) + 1
        self._calls, self._lead, self._span = calls, lead_min, lead_min + cycle_min + 1
        self._all = room(most)
        self._at: list[int] = []
        self._done = 0

    def keep(self, minute: int, at: int, foretold: float) -> None:
        place = len(self._at)
        self._all.minute[place], self._all.foretold[place] = minute, foretold
        self._at.append(at)

    def settled(self, minute: int, at: int) -> Settled:
        """At minute `at` of the trace."""
        while self._done < len(self._at) and self._at[self._done] + self._span <= at:
            made = self._at[self._done]
            coming = self._calls[made + self._lead : made + self._span]
            self._all.came[self._done] = coming.max()
            self._done += 1
        done = self._done
        return Settled(self._all.minute[:done], self._all.foretold[:done], self._all.came[:done])
