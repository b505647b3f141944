"""Which side is slow? Pure, of the last minutes.

reply-side     answers pile up on their way home while workers are under half busy: those who read
               them, the gateways, are too few, and workers are not
worker-side    calls wait and grow old while workers are busy: capacity comes too late, or is capped
arrivals-lost  no gateway is heard, or the traffic fell as it falls when callers are cut off
not-believed   figures that cannot be: taken for missing

A model that answers slowly is none of these. An alarm begins when the same is found in minutes one
after the other, and ends when it was not found for some.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from headrace.policy import Policy

Name = Literal["reply-side", "worker-side", "arrivals-lost", "not-believed"]

JUDGED = 3  # minutes that are looked at
IDLE, BUSY = 0.5, 0.8  # share of the slots that work
FEW = 10  # answers on their way, and calls a minute, that are nothing to speak of
SLOW = 0.25  # of the promise: answers that take so long for their way home alone are late
BEGINS, ENDS = 2, 3  # minutes
BEYOND = 100  # times what the most nodes carry: no traffic, but a broken figure


class Minute(Protocol):
    """What is looked at of one, see `store.scaling`. None: nobody saw it."""

    @property
    def calls(self) -> float | None: ...
    @property
    def waiting(self) -> float | None: ...
    @property
    def oldest_s(self) -> float | None: ...
    @property
    def busy(self) -> float | None: ...
    @property
    def ready(self) -> float | None: ...
    @property
    def replies(self) -> float | None: ...


class Finding(NamedTuple):
    name: Name
    detail: str


class Change(NamedTuple):
    """An alarm begins or ends."""

    name: str
    began: bool
    detail: str


def believed(minute: Minute, policy: Policy) -> bool:
    most = 60 * max(1, policy.most) * policy.node.throughput
    return minute.calls is None or minute.calls <= BEYOND * max(most, FEW)


def classify(minutes: Sequence[Minute], policy: Policy, fell: bool) -> Finding | None:
    """`minutes`: oldest first, the last of now. `fell`: see `decide.cut_off`."""
    last = minutes[-JUDGED:]
    if not last:
        return None
    return _reply_side(last, policy) or _lost(last, fell) or _worker_side(last, policy)


def _reply_side(last: Sequence[Minute], policy: Policy) -> Finding | None:
    now = last[-1]
    idle = all(each.busy is not None and each.busy < IDLE for each in last[-2:])
    if not idle or not now.ready or not now.calls or (now.replies or 0.0) <= FEW:
        return None
    # Little's law, which needs no two clocks that agree.
    home_s = (now.replies or 0.0) * 60 / now.calls
    if home_s < SLOW * policy.target.slo_s:
        return None
    return Finding(
        "reply-side",
        f"{now.replies:.0f} answers wait on their way home, {home_s:.1f} s in the mean, while"
        f" workers are {now.busy:.0%} busy: more gateways would help, more workers would not",
    )


def _lost(last: Sequence[Minute], fell: bool) -> Finding | None:
    if len(last) == JUDGED and all(each.calls is None for each in last):
        return Finding("arrivals-lost", f"no gateway was heard for {JUDGED} min")
    if fell:
        return Finding(
            "arrivals-lost",
            f"{last[-1].calls or 0:.0f} calls came in the last minute: the traffic fell as it falls"
            " when callers are cut off",
        )
    return None


def _worker_side(last: Sequence[Minute], policy: Policy) -> Finding | None:
    now = last[-1]
    if not now.waiting or (now.oldest_s or 0.0) < policy.target.slo_s:
        return None
    if now.ready and (now.busy or 0.0) < BUSY:
        return None
    workers = f"{now.ready or 0:.0f} workers are {now.busy or 0:.0%} busy"
    return Finding(
        "worker-side",
        f"{now.waiting:.0f} calls wait, the oldest for {now.oldest_s:.1f} s, and {workers}",
    )


class Alarms:
    """Of one model: what is found each minute -> what begins and ends."""

    def __init__(self, on: Sequence[str] = ()) -> None:
        """`on`: those that began in another life."""
        self._found: dict[str, int] = {}  # minutes in a row
        self._missed: dict[str, int] = dict.fromkeys(on, 0)  # of those that are on

    def on(self, name: Name) -> bool:
        return name in self._missed

    def hear(self, findings: Sequence[Finding]) -> list[Change]:
        """Once a minute."""
        details: dict[str, str] = {finding.name: finding.detail for finding in findings}
        self._found = {name: self._found.get(name, 0) + 1 for name in details}
        changes = []
        for name, minutes in self._found.items():
            if minutes >= BEGINS and name not in self._missed:
                self._missed[name] = 0
                changes.append(Change(name, True, details[name]))
        for name in list(self._missed):
            self._missed[name] = 0 if name in details else self._missed[name] + 1
            if self._missed[name] >= ENDS:
                del self._missed[name]
                changes.append(Change(name, False, ""))
        return changes
