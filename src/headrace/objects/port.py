"""Objects: bytes by name, for bodies too large for the broker.

What an adapter promises (the exam in `testing.objects_exam` checks it): what was put is got whole
or not at all; getting what is not there raises `ObjectMissing`; deleting it is no error.
"""

from __future__ import annotations

from typing import Protocol


class ObjectMissing(KeyError):
    """No object of this name."""


class Objects(Protocol):
    async def put(self, name: str, data: bytes) -> None: ...

    async def get(self, name: str) -> bytes:
        """Raises ObjectMissing."""

    async def delete(self, name: str) -> None: ...

    async def names(self) -> list[str]:
        """All names, for sweeping up."""
