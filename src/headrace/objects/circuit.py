"""Is a store asked, or is it known to be away?

    closed --a failure--> open --a probe that succeeds--> closed

While it is open nobody waits for the store: `watch` probes it in the background, soon after the
failure and then every `probe_s`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

#: The first probe comes this soon: one dropped connection is no outage.
FIRST_PROBE_S = 0.1


class Circuit:
    """`probe` succeeds, or raises. It and all else that is asked may take `limit_s`."""

    def __init__(
        self, probe: Callable[[], Awaitable[None]], *, limit_s: float, probe_s: float
    ) -> None:
        self.is_open = False
        self.opened = 0  # times it opened
        self._probe, self._limit_s, self._probe_s = probe, limit_s, probe_s
        self._watching: asyncio.Task[None] | None = None

    def close(self) -> None:
        self.is_open = False

    def open(self) -> None:
        if not self.is_open:
            self.is_open = True
            self.opened += 1
        self.watch()

    def watch(self) -> None:
        """Sees to it that somebody probes; whoever finds it open calls this, because a watch ends
        with the loop it was started on."""
        loop = asyncio.get_running_loop()
        watching = self._watching
        if watching is None or watching.done() or watching.get_loop() is not loop:
            self._watching = loop.create_task(self._watch())

    async def _watch(self) -> None:
        wait_s = FIRST_PROBE_S
        while self.is_open:
            await asyncio.sleep(min(wait_s, self._probe_s))
            wait_s = self._probe_s
            try:
                async with asyncio.timeout(self._limit_s):
                    await self._probe()
            except Exception:  # noqa: S112  whatever it says: it is not back
                continue
            self.close()
