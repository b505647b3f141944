"""What workers say of themselves -> how many of a version are ready, and what is wrong. Pure.

Times are given, in seconds of a clock that does not go back.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from headrace.announce import FRESH_S, Announcement

LASTS_S = 3.0  # a reason that stands for so long is why no worker is ready
#: What a worker says that has nothing wrong with it.
WELL = ("", "loading", "leaving")


class Workers(NamedTuple):
    """Of one version, now."""

    ready: int = 0
    #: Why none is ready; "" where nothing was heard that lasts.
    trouble: str = ""
    #: Since one was ready last; None: none ever was.
    unready_s: float | None = None
    #: Workers and model processes that were ready and broke.
    breaks: int = 0
    #: Jobs in its queue, and with its workers.
    waiting: int = 0


@dataclass
class _Worker:
    said: Announcement
    at: float
    #: Since it says what is wrong.
    ill_since: float | None = None


class Ear:
    """Of one model's workers."""

    def __init__(self) -> None:
        self._workers: dict[int, dict[str, _Worker]] = {}
        self._ready_at: dict[int, float] = {}
        self._breaks: Counter[int] = Counter()

    def hear(self, said: Announcement, now: float) -> None:
        crew = self._workers.setdefault(said.version, {})
        known = crew.get(said.worker)
        if said.leaving:
            crew.pop(said.worker, None)
            return
        if known is not None and said.slots_ready < known.said.slots_ready:
            self._breaks[said.version] += 1
        ill = said.reason not in WELL and not said.ready
        since = (known.ill_since if known and known.ill_since is not None else now) if ill else None
        crew[said.worker] = _Worker(said, now, since)
        if said.ready:
            self._ready_at[said.version] = now

    def workers(self, version: int, now: float) -> Workers:
        crew = self._fresh(version, now)
        ready = sum(each.said.ready for each in crew)
        lasting = [
            each for each in crew if each.ill_since is not None and now - each.ill_since >= LASTS_S
        ]
        at = self._ready_at.get(version)
        return Workers(
            ready=ready,
            trouble=lasting[0].said.reason if lasting and not ready else "",
            unready_s=None if at is None else 0.0 if ready else now - at,
            breaks=self._breaks[version],
            waiting=max((each.said.waiting for each in crew), default=0)
            + sum(each.said.in_hand for each in crew),
        )

    def forget(self, version: int) -> None:
        """It is started anew: what befell it in another life does not count."""
        self._breaks.pop(version, None)
        self._ready_at.pop(version, None)
        for each in self._workers.get(version, {}).values():
            each.ill_since = None

    def _fresh(self, version: int, now: float) -> list[_Worker]:
        """Whoever fell silent without a word has died."""
        crew = self._workers.get(version, {})
        for name in [name for name, each in crew.items() if now - each.at > FRESH_S]:
            self._breaks[version] += bool(crew.pop(name).said.slots_ready)
        return list(crew.values())
