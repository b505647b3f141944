"""What waits to be told at one address: the urgent first, equal things once, never too much. Pure.

A decision takes the place of an older one of its model; an alarm that says what was said last is
counted, not repeated; what is left out is summed up in the next message.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from headrace.notify.notice import Notice

MOST = 100
STALE_S = 900.0  # a decision as old as this is no news
AGAIN_S = 3600.0  # an alarm that goes on is told again after this


class Message(NamedTuple):
    notice: Notice
    #: How often it was told since it was said last.
    times: int = 1
    #: kind -> how many were not told.
    left_out: dict[str, int] = {}


class Pile:
    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._waiting: dict[str, Notice] = {}  # by id, oldest first
        self._times: Counter[str] = Counter()  # by id
        self._left_out: Counter[str] = Counter()
        self._said: dict[tuple[str, str, str], tuple[str, float]] = {}  # subject -> state, when
        self._held: Counter[tuple[str, str, str]] = Counter()  # repetitions since
        self.flying = ""  # the id of what is being sent: it is not replaced

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, notice_id: str) -> bool:
        return notice_id in self._waiting

    @property
    def urgent(self) -> bool:
        """What is next is urgent."""
        return any(one.urgent for one in self._waiting.values())

    def put(self, notice: Notice, now: float) -> None:
        same = [one for one in self._waiting.values() if one.subject == notice.subject]
        if notice.urgent:
            if same and same[-1].state == notice.state:
                self._times[same[-1].id] += 1
                return
            if not same and self._was_said(notice, now):
                self._held[notice.subject] += 1
                return
            self._times[notice.id] = self._held.pop(notice.subject, 0)
        elif notice.kind == "decision":
            for old in same:
                if old.id != self.flying:
                    self.drop(old)
        self._times[notice.id] += 1
        self._waiting[notice.id] = notice
        if len(self._waiting) > self._most:
            self._make_room()

    def _was_said(self, notice: Notice, now: float) -> bool:
        state, at = self._said.get(notice.subject, ("", 0.0))
        return state == notice.state and now - at < AGAIN_S

    def _make_room(self) -> None:
        others = [one for one in self._waiting.values() if one.id != self.flying]
        self.drop(min(others, key=lambda one: one.urgent))  # the oldest of the least urgent

    def next(self, now: float) -> Message | None:
        """What is to be sent now, and stays until it is `done`."""
        for one in list(self._waiting.values()):
            if one.kind == "decision" and now - one.at > STALE_S and one.id != self.flying:
                self.drop(one)
        if not self._waiting:
            return None
        first = max(
            self._waiting.values(), key=lambda one: one.urgent
        )  # the oldest of the most urgent
        return Message(first, self._times[first.id], dict(self._left_out))

    def done(self, message: Message, now: float) -> None:
        """It was taken, with what it says of others."""
        notice = message.notice
        self._forget(notice)
        self._left_out -= Counter(message.left_out)
        if notice.urgent:
            self._said[notice.subject] = notice.state, now
            for subject, (_, at) in list(self._said.items()):
                if now - at > AGAIN_S:
                    del self._said[subject]
                    self._held.pop(subject, None)

    def drop(self, notice: Notice) -> None:
        if notice.id in self._waiting:
            self._left_out[notice.kind] += 1
            self._forget(notice)

    def _forget(self, notice: Notice) -> None:
        self._waiting.pop(notice.id, None)
        self._times.pop(notice.id, None)
