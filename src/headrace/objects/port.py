"""Objects: bytes by name, for bodies too large for the broker and for those that must stay.

What an adapter promises (the exam in `testing.objects_exam` checks it): what was put is got whole
or not at all; getting what is not there raises `ObjectMissing`; deleting it is no error; every verb
ends, and says `ObjectsDown` when it could not be done.

Names are parts of letters, digits, `.`, `_` and `-` with `/` between them; no part begins with a
dot or is longer than 201, no name than 512. A name is not also the folder of another: where `a` is
an object, whether `a/b` can be put is up to the adapter.
"""

from __future__ import annotations

import re
from typing import Protocol

_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}"
_NAME = re.compile(rf"(?=.{{1,512}}\Z){_PART}(?:/{_PART})*")


class ObjectMissing(KeyError):
    """No object of this name."""


class ObjectCorrupt(Exception):
    """What lies under this name is not what was put."""


class ObjectsDown(Exception):
    """Not reached, not allowed, full or too slow. A put or delete may have been done all the same;
    a retry is safe."""


class Objects(Protocol):
    """Every verb raises ObjectsDown; ValueError for a name that is none."""

    async def put(self, name: str, data: bytes) -> None: ...

    async def get(self, name: str) -> bytes:
        """Raises ObjectMissing."""

    async def delete(self, name: str) -> None: ...

    async def names(self, prefix: str = "") -> list[str]:
        """Those below a folder, by whole parts (`jobs/a` is not the folder of `jobs/ab/1`); all
        without one. For sweeping up."""


def checked(name: str) -> str:
    """The name. Raises ValueError where it is none."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"object name {name!r}: expected parts like {_PART} with / between them")
    return name


def folder_of(prefix: str) -> str:
    """What the names below a prefix begin with: "" or "a/b/"."""
    return f"{checked(prefix.removesuffix('/'))}/" if prefix else ""
