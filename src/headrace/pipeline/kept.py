"""Bytes and files by their SHA-256, below one folder: what is there is whole, and stays.

sha256/ab/abcdef...      read-only; the same content is there once
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path

_CHUNK = 1 << 20


class Lost(Exception):
    """What was kept is not there any more, or not what it was."""


class Kept:
    def __init__(self, folder: Path) -> None:
        self._root = folder / "sha256"

    def put(self, data: bytes) -> str:
        """The digest. On the disk when this returns."""
        digest = hashlib.sha256(data).hexdigest()
        if not self._has(digest):
            unfinished = self._unfinished()
            try:
                unfinished.write_bytes(data)
                self._settle(unfinished, digest)
            finally:
                unfinished.unlink(missing_ok=True)
        return digest

    def put_file(self, path: Path) -> str:
        """The same, of a file that need not fit into memory."""
        unfinished = self._unfinished()
        try:
            shutil.copyfile(path, unfinished)
            digest = _digest(unfinished)  # of the copy: the original may be written to
            if not self._has(digest):
                self._settle(unfinished, digest)
        finally:
            unfinished.unlink(missing_ok=True)
        return digest

    def get(self, digest: str) -> bytes:
        """Raises Lost."""
        try:
            data = self.path(digest).read_bytes()
        except OSError as error:
            raise Lost(f"sha256:{digest[:12]}: {error.strerror}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise Lost(f"sha256:{digest[:12]}: the file was changed")
        return data

    def copy(self, digest: str, to: Path) -> None:
        """Raises Lost."""
        try:
            shutil.copyfile(self.path(digest), to)
        except OSError as error:
            raise Lost(f"sha256:{digest[:12]}: {error.strerror}") from None
        if _digest(to) != digest:
            raise Lost(f"sha256:{digest[:12]}: the file was changed")

    def path(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise Lost(f"{digest!r} is not a digest")
        return self._root / digest[:2] / digest

    def _has(self, digest: str) -> bool:
        """A file that somebody changed is written anew."""
        path = self.path(digest)
        return path.is_file() and _digest(path) == digest

    def _unfinished(self) -> Path:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._root / f".{secrets.token_hex(8)}"

    def _settle(self, unfinished: Path, digest: str) -> None:
        path = self.path(digest)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        unfinished.chmod(0o400)
        _sync(unfinished)
        unfinished.replace(path)
        _sync(path.parent)
        _sync(self._root)


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
