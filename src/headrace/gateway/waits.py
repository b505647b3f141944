"""Who waits for a stored job to end. Workers say at once which jobs have ended; what they say may
be lost, so that those that are waited for are looked up now and then as well."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

LOOK_EVERY_S = 1.0


class Waits:
    def __init__(self) -> None:
        self._waits: dict[str, list[asyncio.Event]] = {}

    def heard(self, ids: list[str]) -> None:
        if self._waits:
            for job_id in ids:
                for event in self._waits.get(job_id, ()):
                    event.set()

    def wake(self) -> None:
        """All look now."""
        self.heard(list(self._waits))

    @contextlib.contextmanager
    def on(self, job_id: str) -> Iterator[asyncio.Event]:
        """Gives an event that is set when the job is said to have ended."""
        event = asyncio.Event()
        self._waits.setdefault(job_id, []).append(event)
        try:
            yield event
        finally:
            events = self._waits[job_id]
            events.remove(event)
            if not events:
                del self._waits[job_id]


async def heard_within(event: asyncio.Event, wait_s: float) -> None:
    """Returns when the event is set, or after so long, or when it is time to look."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), min(wait_s, LOOK_EVERY_S))
    event.clear()
