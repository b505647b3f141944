"""A cache that nobody has to wait for: bounded in time and number, left alone while it is down.

    closed --3 failures in a row--> open --probe every second, by nobody's call--> closed

`get` and `put` never raise. `get` takes no longer than the timeout; while the circuit is open it
takes no time at all. What is late is let finish behind the caller's back, within a second: to break
off would cost the connection, and the next call the making of a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from headrace.cache.port import Cache

log = structlog.get_logger("headrace.cache")

FAILURES = 3
PROBE_S = 1.0
PATIENCE_S = 1.0
#: Under way at once; what comes above it does without. A slow cache is not worth a queue.
MOST = 256
_PROBE = b"\0" * 32


class Guard:
    def __init__(
        self,
        cache: Cache,
        timeout_s: float,
        on_error: Callable[[str], None],
        probe_s: float = PROBE_S,
    ) -> None:
        """`on_error` is told late (no answer in time) or failed."""
        self._cache, self._timeout_s, self._on_error = cache, timeout_s, on_error
        self._probe_s = probe_s
        self._under_way: set[asyncio.Task[Any]] = set()
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def usable(self) -> bool:
        """Is a `get` worth an await?"""
        return self._probing is None and len(self._under_way) < MOST and not self._closed

    async def open(self) -> None:
        """A cache that does not answer yet is left alone until it does."""
        if not await self._answers():
            self._trip("no answer")

    async def close(self) -> None:
        self._closed = True
        tasks = [*self._under_way, *([self._probing] if self._probing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(PATIENCE_S):
                await self._cache.close()

    async def get(self, key: bytes) -> bytes | None:
        if not self.usable:
            return None
        asked = self._start(self._cache.get(key))
        if not (await asyncio.wait((asked,), timeout=self._timeout_s))[0]:
            self._failed("late")
            return None
        try:
            value: bytes | None = asked.result()
        except Exception as error:
            self._failed(_why(error), str(error))
            return None
        self._failures = 0
        return value

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """A server that is full refuses this and still answers `get`: the circuit stays closed."""
        if not self.usable:
            return
        try:
            await self._start(self._cache.put(key, value, ttl_s))
        except Exception as error:
            self._on_error(_why(error))

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(_patiently(work))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # who was late is told of already

    def _failed(self, why: str, reason: str = "") -> None:
        self._on_error(why)
        self._failures += 1
        if self._failures >= FAILURES and self._probing is None:
            self._trip(reason or why)

    def _trip(self, reason: str) -> None:
        log.warning("cache left alone", reason=reason)
        self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(self._probe_s)
            if await self._answers():
                break
        self._failures = 0
        self._probing = None
        log.info("cache back")

    async def _answers(self) -> bool:
        """In the time that a call has; the first time a connection may have to be made."""
        try:
            await _patiently(self._cache.open())
            await _patiently(self._cache.get(_PROBE))
            async with asyncio.timeout(self._timeout_s):
                await self._cache.get(_PROBE)
        except Exception:
            return False
        return True


async def _patiently(work: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await work


def _why(error: Exception) -> str:
    """Libraries have timeouts of their own, not all of them TimeoutError."""
    return "late" if "timeout" in type(error).__name__.lower() else "failed"
