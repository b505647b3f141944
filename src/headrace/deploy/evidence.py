"""What gateways tell of calls -> what became of the calls of each version since a time. Pure.

Gateways tell totals: what is counted here are differences, so that a message that is lost loses
nothing. A gateway that is heard for the first time is counted from then on; one that falls silent
leaves what it told. Times are given, in seconds of a clock that does not go back.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from headrace.announce import Evidence

RECENT_S = 20.0  # a version may go bad after a long good time: these are looked at alone, too
WARM_S = 2.0  # the times of the first calls are not those of the later ones


@dataclass
class Counts:
    """Of one version in one span of time."""

    answered: int = 0
    failed: int = 0
    refused: int = 0
    took_ms: Counter[float] = field(default_factory=Counter)
    #: The same by the second in which it was told.
    seconds: dict[int, Counter[float]] = field(default_factory=dict)
    #: Of a shadow: answers like those that were given, others, and none.
    same: int = 0
    other: int = 0
    missing: int = 0

    @property
    def calls(self) -> int:
        return self.answered + self.failed + self.refused

    def add(self, more: Counts, *, times: bool = True) -> None:
        self.answered += more.answered
        self.failed += more.failed
        self.refused += more.refused
        self.same += more.same
        self.other += more.other
        self.missing += more.missing
        if times:
            self.took_ms += more.took_ms
            for second, took_ms in more.seconds.items():
                self.seconds[second] = self.seconds.get(second, Counter()) + took_ms


Seen = dict[str, list[float | str]]  # field of a prediction -> its values


class Ledger:
    """Of one model."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, int], Evidence] = {}  # gateway, version
        self._since = 0.0
        self._whole: dict[int, Counts] = {}
        self._before: dict[int, Counts] = {}
        self._recent: deque[tuple[float, int, Counts]] = deque()

    def begin(self, now: float) -> None:
        """What was counted until now is that of before."""
        self._since = now
        self._before, self._whole = self._whole, {}
        self._recent.clear()

    def hear(self, said: Evidence, now: float) -> None:
        known = self._totals.get((said.gateway, said.version))
        self._totals[said.gateway, said.version] = said
        if known is None:
            return
        if _total(said) < _total(known):
            return  # it counts anew
        new = _difference(said, known)
        if new.took_ms:
            new.seconds[int(now)] = new.took_ms
        warm = now - self._since >= WARM_S
        self._whole.setdefault(said.version, Counts()).add(new, times=warm)
        if not warm:
            new.took_ms, new.seconds = Counter(), {}
        self._recent.append((now, said.version, new))
        while self._recent and self._recent[0][0] < now - RECENT_S:
            self._recent.popleft()

    def whole(self, version: int) -> Counts:
        """Since it began."""
        return self._whole.get(version, Counts())

    def before(self, version: int) -> Counts:
        """Of before."""
        return self._before.get(version, Counts())

    def recent(self, version: int, now: float) -> Counts:
        """Of the last seconds, since it began."""
        found = Counts()
        for at, which, counts in self._recent:
            if which == version and at >= now - RECENT_S:
                found.add(counts)
        return found

    def seen(self, version: int) -> Seen:
        """The last predictions, of all gateways."""
        found: Seen = {}
        for (_, which), said in self._totals.items():
            if which == version:
                for name, values in said.seen.items():
                    found.setdefault(name, []).extend(values)
        return found

    def forget(self, version: int) -> None:
        """It is started anew: what it did in another life does not count."""
        self._totals = {key: said for key, said in self._totals.items() if key[1] != version}
        self._whole.pop(version, None)
        self._before.pop(version, None)


def _total(said: Evidence) -> int:
    return said.answered + said.failed + said.refused + said.same + said.other + said.missing


def _difference(new: Evidence, old: Evidence) -> Counts:
    return Counts(
        answered=max(0, new.answered - old.answered),
        failed=max(0, new.failed - old.failed),
        refused=max(0, new.refused - old.refused),
        took_ms=Counter(new.took_ms) - Counter(old.took_ms),  # without what is 0
        same=max(0, new.same - old.same),
        other=max(0, new.other - old.other),
        missing=max(0, new.missing - old.missing),
    )
