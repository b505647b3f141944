"""One content under way, and the calls that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from headrace.cache.content import Content
from headrace.errors import Refusal
from headrace.jobs import Outcome, Returned

#: Raises the refusal of a call that would have to be run; takes the Unix time.
Admit = Callable[[float], None]


class OnAnswer(Protocol):
    """As `dispatch.OnOutcome`, with how the result was come by: hit, coalesced, or empty."""

    def __call__(
        self, outcome: Outcome | Refusal, returned: Returned | None, how: bytes = b"", /
    ) -> None: ...


class Waiter:
    """One call of a flight. `deadline` is a Unix time."""

    __slots__ = ("admit", "deadline", "flight", "late", "number", "on_answer", "request_id")

    def __init__(
        self, number: int, request_id: str, deadline: float, admit: Admit, on_answer: OnAnswer
    ) -> None:
        self.number, self.request_id, self.deadline = number, request_id, deadline
        self.admit, self.on_answer = admit, on_answer
        self.late: asyncio.TimerHandle | None = None  # of one that does not lead
        self.flight: Flight | None = None

    def in_time(self) -> None:
        """Its own deadline need not be watched any more."""
        if self.late is not None:
            self.late.cancel()
            self.late = None


class Flight:
    """Who waits, the first first; the leader is the one whose job runs."""

    __slots__ = ("content", "job", "keep", "key", "leader", "leaders", "waiting")

    def __init__(self, content: Content, key: bytes, keep: bool) -> None:
        """`key` is empty where nobody may join."""
        self.content, self.key, self.keep = content, key, keep
        self.waiting: dict[int, Waiter] = {}
        self.job = 0  # 0 while none is dispatched
        self.leader = 0  # its number; it may have left
        self.leaders = 0  # so far
