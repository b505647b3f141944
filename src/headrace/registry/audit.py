"""Who moved an alias, when, why, from which version to which: written down, never changed.

A promotion has two lines of one id: what is about to be done, and what came of it. Without the
second, whoever did it was interrupted, and the registry says which it was.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from headrace.registry import disk


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    #: Unix seconds.
    at: float
    #: asked, done or failed.
    outcome: str
    model: str
    alias: str
    #: The version that the alias names now; None: none.
    to: int | None
    #: ... and before.
    before: int | None = None
    #: Of the version `to`: what was meant, byte for byte.
    digest: str = ""
    author: Annotated[str, Meta(max_length=200)]
    reason: Annotated[str, Meta(max_length=1000)]
    #: Why it failed.
    detail: str = ""


class Audit(Protocol):
    async def append(self, entry: Entry) -> None:
        """Returns when it would survive a power cut. Raises OSError."""

    async def entries(self, model: str = "", limit: int = 100) -> list[Entry]:
        """The newest first; of one model where it is named."""


class FileAudit:
    """A line of JSON an entry, in a file that is only ever added to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def append(self, entry: Entry) -> None:
        await asyncio.to_thread(self._append, msgspec.json.encode(entry) + b"\n")

    async def entries(self, model: str = "", limit: int = 100) -> list[Entry]:
        return await asyncio.to_thread(self._entries, model, limit)

    def _append(self, line: bytes) -> None:
        with disk.locked(self.path.parent):
            new = not self.path.exists()
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    line = b"\n" + line  # whoever wrote last was cut off
                written = 0
                while written < len(line):
                    written += os.write(fd, line[written:])
                os.fsync(fd)
            finally:
                os.close(fd)
            if new:
                disk.sync(self.path.parent)

    def _entries(self, model: str, limit: int) -> list[Entry]:
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found: list[Entry] = []
        for line in reversed(lines):
            if len(found) >= limit:
                break
            try:
                entry = msgspec.json.decode(line, type=Entry)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # cut off
            if not model or entry.model == model:
                found.append(entry)
        return found
