"""Jobs that wait for a version that has no ready worker, or gets no calls any more: they go to the
one that has.

Whether they ran there nobody knows; the first outcome is the caller's, a second is dropped as any.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.deployments import parted
from headrace.dispatch import Dispatch
from headrace.gateway.snapshot import Snapshot

PATIENCE_S = 1.0  # a version that is taken out in peace has answered by then


class Strays:
    def __init__(
        self, snapshot: Snapshot, dispatch: Dispatch, moved: Callable[[str, int], None]
    ) -> None:
        """`moved` hears from which workload, and how many."""
        self._snapshot, self._dispatch, self._moved = snapshot, dispatch, moved
        self._since: dict[str, float] = {}

    def look(self) -> None:
        """Several times a second."""
        now = time.monotonic()
        for workload, calls in list(self._dispatch.by_workload.items()):
            if not calls or self._snapshot.serves(workload):
                self._since.pop(workload, None)
                continue
            if now - self._since.setdefault(workload, now) < PATIENCE_S:
                continue
            if to := self.instead(workload):
                self._moved(workload, self._dispatch.move(workload, to))

    def poisoned(self, workload: str) -> str:
        """A job ended each process that had it: its input may be poison, or the version is. Where
        it goes next; "" where the version is the one that the others stand on."""
        routing = self._snapshot.routings.get(parted(workload)[0])
        if routing is None or routing.standby.queue == workload:
            return ""
        to = routing.instead(workload)
        if to:
            self._moved(workload, 1)
        return to

    def instead(self, workload: str) -> str:
        """The workload that a job goes to that this one brought to no result; "": none."""
        routing = self._snapshot.routings.get(parted(workload)[0])
        return routing.instead(workload) if routing else ""
