"""The socket in the house's state folder: one process of a machine has it, whoever comes first.

A lock says who, and the kernel gives it up with its process: what a dead one left is replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from pathlib import Path

from headrace.client.control import SOCKET, reachable

LOCK = "control.lock"


class Door:
    """Raises OSError where the folder cannot be written to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / SOCKET
        self._folder = folder
        self._lock: int | None = None
        self._made: tuple[int, int] | None = None

    def take(self) -> bool:
        """False where another process has it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def bind(self) -> socket.socket:
        """Nobody but this user can open it, at no time: it is made in a folder of its own, and
        moved to its place when it is as it should be."""
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bound.setblocking(False)
        with tempfile.TemporaryDirectory(prefix=".control-", dir=self._folder) as apart:
            made = Path(apart, SOCKET)
            with reachable(made) as name:
                bound.bind(name)
            made.chmod(0o600)
            made.replace(self.path)
        bound.listen(128)
        self._made = _identity(self.path)
        return bound

    def leave(self) -> None:
        if self._made is not None and _identity(self.path) == self._made:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
        self._made = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
