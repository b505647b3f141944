"""What the registry's aliases name: asked every few seconds, and at once when a hint came.

A hint (a webhook, a person) says where to look, never what is so. While the registry is down
nothing is known, and nothing moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from headrace.errors import Refusal
from headrace.registry.choose import Desk
from headrace.registry.port import State

log = structlog.get_logger("headrace.deploy")

EVERY_S = 2.0
PATIENCE_S = 15.0  # for one answer


class Word(NamedTuple):
    """What the registry said. `asked`: Unix time before which it may have been otherwise."""

    state: State
    asked: float


class Watch:
    """`heard` is called after each word."""

    def __init__(self, desk: Desk, heard: Callable[[], None]) -> None:
        self._desk, self._heard = desk, heard
        self._look = asyncio.Event()
        #: The last word; None: none yet, or the registry is down.
        self.word: Word | None = None
        #: Aliases that were kept from an earlier word, while there is none.
        self.kept: State = {}
        self.asked_once = False
        self._down = False
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._keep_asking())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def look(self) -> None:
        """The registry may say something new."""
        self._look.set()

    async def _keep_asking(self) -> None:
        while True:
            self._look.clear()
            await self._ask()
            self._heard()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), EVERY_S)

    async def _ask(self) -> None:
        asked = time.time()
        try:
            async with asyncio.timeout(PATIENCE_S):
                state, fresh = await self._desk.kept.state(self._desk.registry)
        except (Refusal, OSError, TimeoutError) as error:
            state, fresh = {}, False
            detail = getattr(error, "detail", "") or type(error).__name__
        except Exception as error:
            log.exception("the registry's answer is not understood")
            state, fresh, detail = {}, False, type(error).__name__
        else:
            detail = "as it was last"
        self.asked_once = True
        if fresh:
            self.word = Word(state, asked)
        else:
            self.word, self.kept = None, state
        if fresh is self._down:
            self._down = not fresh
            if fresh:
                log.info("the registry is back")
            else:
                log.warning("the registry is down: nothing moves", reason=detail)
