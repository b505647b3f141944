"""One address that is told: its pile, its bucket, its tries. A slow one holds up no other."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

import httpx
import structlog

from headrace.notify.bucket import Bucket
from headrace.notify.notice import Notice
from headrace.notify.pile import Message, Pile
from headrace.signatures import ID, TIMESTAMP, sign

log = structlog.get_logger("headrace.notify")

TIMEOUT_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
GIVE_UP_S = 300.0  # from the first try on
REST_S = 60.0  # old decisions are dropped at least as often
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Sink:
    """`name` stands in logs, for the address may be a secret. `told` and `lost` count messages."""

    def __init__(
        self,
        name: str,
        url: str,
        form: Callable[[Message], bytes],
        most_per_hour: int,
        *,
        secret: str = "",
        clock: Callable[[], float] = time.time,
        first_pause_s: float = FIRST_PAUSE_S,
        give_up_s: float = GIVE_UP_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._name, self._url, self._form, self._secret = name, url, form, secret
        self._clock, self._first_pause_s, self._give_up_s = clock, first_pause_s, give_up_s
        self._timeout_s = timeout_s
        self._pile, self._bucket = Pile(), Bucket(most_per_hour, clock())
        self._woken, self._closing = asyncio.Event(), False
        self._failures, self._not_before = 0, 0.0
        self._tried: dict[str, float] = {}  # id of a notice that was paid for -> its first try
        self._http: httpx.AsyncClient | None = None
        self._running: asyncio.Task[None] | None = None
        self.told = self.lost = 0

    def open(self) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would write down the address
        parsed = httpx.URL(self._url)
        self._http = httpx.AsyncClient(
            timeout=self._timeout_s,
            follow_redirects=False,
            verify=parsed.scheme == "https",
            trust_env=parsed.host not in LOOPBACK,
        )
        self._running = asyncio.create_task(self._run())

    def put(self, notice: Notice) -> None:
        self._pile.put(notice, self._clock())
        self._woken.set()

    async def close(self, grace_s: float) -> None:
        """What may go at once is sent, for as long as `grace_s`."""
        self._closing = True
        self._woken.set()
        if self._running:
            await asyncio.wait([self._running], timeout=grace_s)
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        if self._http:
            await self._http.aclose()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                rest_s = await self._step()
            except Exception:
                log.exception("a notice broke", sink=self._name)
                rest_s = FIRST_PAUSE_S
            if rest_s <= 0:
                continue
            if self._closing:
                return
            try:
                async with asyncio.timeout(rest_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _step(self) -> float:
        """At most one try; gives the seconds until the next one may be, 0: at once."""
        now = self._clock()
        if now < self._not_before:
            return self._not_before - now
        message = self._next(now)
        if message is None:
            urgent = self._pile.urgent
            return min(REST_S, self._bucket.wait_s(now, urgent)) if len(self._pile) else REST_S
        notice = message.notice
        if notice.id not in self._tried:
            self._bucket.take(now, notice.urgent)
            self._tried[notice.id] = now
        self._pile.flying = notice.id
        status = await self._send(message)
        self._pile.flying = ""
        self._settle(message, status)
        return 0.0

    def _next(self, now: float) -> Message | None:
        """What was paid for needs no second token."""
        message = self._pile.next(now)
        self._tried = {one: at for one, at in self._tried.items() if one in self._pile}
        if message is None or message.notice.id in self._tried:
            return message
        return message if self._bucket.wait_s(now, message.notice.urgent) <= 0 else None

    def _settle(self, message: Message, status: int | None) -> None:
        notice, now = message.notice, self._clock()
        if status is not None and 200 <= status < 300:
            self._pile.done(message, now)
            self._failures, self.told = 0, self.told + 1
            return
        self._failures += 1
        for_good = status is not None and status < 500 and status not in (408, 425, 429)
        late = now - self._tried[notice.id] >= self._give_up_s
        if for_good or late:
            self._pile.drop(notice)
            self.lost += 1
            log.warning("a notice was not taken", sink=self._name, kind=notice.kind, status=status)
        pause_s = self._first_pause_s * 2 ** min(self._failures - 1, 16)
        self._not_before = now + min(pause_s, LONGEST_PAUSE_S) * random.uniform(0.75, 1.0)

    async def _send(self, message: Message) -> int | None:
        """The status of the answer, which is not read; None: there was none."""
        assert self._http is not None
        body, at = self._form(message), int(time.time())
        headers = {
            "Content-Type": "application/json", "User-Agent": "Headrace-Notify",
            ID: message.notice.id, TIMESTAMP: str(at),
        }  # fmt: skip
        if self._secret:
            headers |= sign([self._secret], message.notice.id, at, body)
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                status = answer.status_code
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            log.info("a notice waits", sink=self._name, reason=type(error).__name__)
            return None
        if status >= 300:
            log.info("a notice waits", sink=self._name, status=status)
        return status
