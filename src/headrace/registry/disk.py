"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, flock
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Replaces what is there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    half = unfinished(path.parent)
    try:
        with half.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """A file, or the names in a folder, to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_all(folder: Path) -> None:
    """All that is below it, and itself."""
    for found, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(found) / name)
        sync(Path(found))


def unfinished(folder: Path) -> Path:
    """A name for what is to be renamed when it is whole. Nothing is there yet."""
    return folder / f".{secrets.token_hex(8)}"


def sweep(folder: Path, older_than_s: float = 0.0) -> None:
    """Removes what is unfinished since then: by its maker's death, where nobody else writes."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(r"\.[0-9a-f]{16}", path.name):
            with suppress(OSError):
                if path.lstat().st_mtime < time.time() - older_than_s:
                    remove(path)


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it, read-only or not."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for inside in (path, *path.rglob("*")):
        if inside.is_dir() and not inside.is_symlink():
            inside.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time, on this machine or, where the file system knows locks, on all."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / ".lock").open("ab") as file:
        flock(file, LOCK_EX)
        yield
