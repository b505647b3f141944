"""When a finding becomes an alarm, and when that is over. Pure.

It begins when the same was found in so many looks on end, and ends when it was not found in so
many. A look that could not say (too few samples) counts for neither.
"""

from __future__ import annotations

from typing import NamedTuple


class Change(NamedTuple):
    """An alarm begins or ends."""

    name: str
    began: bool
    detail: str


class Alarm:
    """One name of one model. `on`: it is open, in the books."""

    __slots__ = ("_begins", "_ends", "_found", "_quiet", "name", "on")

    def __init__(self, name: str, begins: int, ends: int, *, on: bool = False) -> None:
        self.name, self.on = name, on
        self._begins, self._ends = begins, ends
        self._found = self._quiet = 0

    def look(self, found: bool | None, detail: str) -> Change | None:
        """`found`: None where it could not be said."""
        if found is None:
            return None
        self._found = self._found + 1 if found else 0
        self._quiet = 0 if found else self._quiet + 1
        if not self.on and self._found >= self._begins:
            self.on = True
            return Change(self.name, True, detail)
        if self.on and self._quiet >= self._ends:
            self.on = False
            return Change(self.name, False, detail)
        return None
