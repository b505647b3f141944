"""Webhooks out: claims deliveries that are due, sends each, writes what came of it.

    claim --> send (a task each, at most `at_once` to one webhook) --> record, many at once

A clerk that dies in between leaves a lease that ends: another one sends again, under the same id.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable

import structlog

from headrace.egress import Egress
from headrace.errors import Refusal
from headrace.settings import WebhooksSettings
from headrace.signatures import sign
from headrace.store.deliveries import Deliveries, Send, Sent

log = structlog.get_logger("headrace.clerk")

MINUTE_S, HOUR_S = 60.0, 3_600.0
#: Pauses after the first failure, the second, ...: those of the Standard Webhooks specification.
PAUSES_S = (5.0, 5 * MINUTE_S, 30 * MINUTE_S, 2 * HOUR_S, 5 * HOUR_S, 10 * HOUR_S, 14 * HOUR_S,
            20 * HOUR_S, 24 * HOUR_S)  # fmt: skip
MARGIN_S = 5.0  # a lease outlives its attempt by this: the time to write what came of it
MOST_FLYING = 512  # to all webhooks together; one has a socket and some 50 KB
SWEEP_EVERY_S = 60.0


def pause_s(tries: int, chance: float) -> float:
    """After `tries` failures before this one: the table's, and up to a fifth more by `chance` (0 to
    1), so that what failed together does not come back together."""
    return PAUSES_S[min(tries, len(PAUSES_S) - 1)] * (1 + chance / 5)


class Deliver:
    """One for a clerk. `taken`, `refused` (answered otherwise) and `unanswered` count attempts."""

    def __init__(
        self,
        deliveries: Deliveries,
        egress: Egress,
        settings: WebhooksSettings,
        *,
        every_s: float,
        margin_s: float = MARGIN_S,
        pause_s: Callable[[int, float], float] = pause_s,
    ) -> None:
        self._deliveries, self._egress = deliveries, egress
        self._at_once = settings.at_once
        self._lease_s = settings.timeout_s + margin_s
        self._every_s, self._pause_s = every_s, pause_s
        self._flying: dict[asyncio.Task[None], str] = {}
        self._done: list[Sent] = []
        self._landed = asyncio.Event()
        self._stopping = False
        self._sweep_at = 0.0
        self.taken = self.refused = self.unanswered = 0

    @property
    def flying(self) -> int:
        """Attempts under way."""
        return len(self._flying)

    async def run(self) -> None:
        """Until `stop`, and then until the attempts under way are written down."""
        while not self._stopping or self._flying or self._done:
            more = False
            try:
                await self._record()
                if not self._stopping:
                    more = await self._claim()
                    await self._sweep()
            except Refusal as refusal:  # the database is away, and said so in the log
                log.debug("webhooks wait", reason=refusal.detail)
                await asyncio.sleep(self._every_s)
            except Exception:  # what was not written down is sent again when its lease ends
                log.exception("webhooks broke")
                await asyncio.sleep(1)
            if not more:
                await self._rest()

    def stop(self) -> None:
        """Nothing more is claimed. Who cannot wait for `run` cancels it: leases end."""
        self._stopping = True
        self._landed.set()

    async def _rest(self) -> None:
        """Until something landed: its place is free, and its outcome is to be written."""
        try:
            async with asyncio.timeout(self._every_s):
                await self._landed.wait()
        except TimeoutError:
            pass
        self._landed.clear()

    async def _claim(self) -> bool:
        """True where there may be more."""
        if len(self._flying) >= MOST_FLYING:
            return False
        sends = await self._deliveries.claim(
            Counter(self._flying.values()), self._at_once, self._lease_s
        )
        for send in sends:
            task = asyncio.create_task(self._send(send))
            self._flying[task] = send.webhook_id
            task.add_done_callback(self._land)
        return bool(sends)

    def _land(self, task: asyncio.Task[None]) -> None:
        del self._flying[task]
        self._landed.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("webhook attempt broke", exc_info=error)  # its lease ends, it is sent again

    async def _send(self, send: Send) -> None:
        status, error = await self._attempt(send)
        sent = Sent(send.id, send.claim, status, error, self._pause_s(send.tries, random.random()))
        if sent.taken:
            self.taken += 1
        elif status is None:
            self.unanswered += 1
        else:
            self.refused += 1
        log.info("webhook", delivery=send.id, webhook=send.webhook_id, status=status, reason=error)
        self._done.append(sent)

    async def _attempt(self, send: Send) -> tuple[int | None, str]:
        """The status of the answer, and what is wrong with it. What it says is not read: it would
        be a way to read what is behind an address."""
        headers = {"Content-Type": "application/json", "User-Agent": "Headrace-Webhooks"}
        try:
            headers |= sign(send.secrets, send.id, int(send.at), send.payload)
            answer = await self._egress.send("POST", send.url, headers=headers, body=send.payload)
        except Refusal as refusal:
            return None, f"{refusal.code}: {refusal.detail}"
        status = answer.status
        return status, "" if 200 <= status < 300 else f"answered with {status}"

    async def _record(self) -> None:
        outcomes, self._done = self._done, []
        if not outcomes:
            return
        try:
            written = await self._deliveries.record(outcomes)
        except Refusal:
            self._done = outcomes + self._done  # once more with the next round
            raise
        if len(written) < len(outcomes):
            log.warning("webhooks sent late", count=len(outcomes) - len(written))

    async def _sweep(self) -> None:
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_EVERY_S
            await self._deliveries.sweep()
