"""Coroutines that nobody awaits: kept from being forgotten, and ended together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


class Background:
    def __init__(self, failed: Callable[[BaseException], None] | None = None) -> None:
        """`failed`: what one has raised. Without it the loop says so, when it comes to see."""
        self._tasks: set[asyncio.Future[Any]] = set()
        self._failed = failed

    def spawn(self, work: Awaitable[Any]) -> asyncio.Future[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard if self._failed is None else self._done)
        return task

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        assert self._failed is not None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def idle(self, within_s: float) -> None:
        """Until all have ended, also those that began meanwhile, or the time is over."""
        end_at = time.monotonic() + within_s
        while self._tasks and (left_s := end_at - time.monotonic()) > 0:
            await asyncio.wait(list(self._tasks), timeout=left_s)

    async def close(self) -> None:
        """Cancels them, and returns when they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
