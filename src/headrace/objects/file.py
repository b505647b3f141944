"""`file:///folder`: one file an object, `/` in a name is a folder.

Files are written under a hidden name in the folder and renamed, so that nobody reads half of one.
Two forms:

    quick     the default, for a tmpfs: no sync, and no thread: 1 MB takes 0.2 ms, less than the hop
    durable   what `put` returned from survives a power cut, and so does a deletion:
              write, fsync of the file, rename, fsync of the folders up to ours; in threads of its
              own, because an fsync waits for the disk
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from headrace.objects.port import ObjectMissing, ObjectsDown, checked, folder_of

#: An unfinished file that nobody wrote to for this long is left over from a process that died.
ABANDONED_S = 3600.0
#: Journals of file systems gather the syncs that wait together: more threads, more puts a second.
THREADS = 8

_T = TypeVar("_T")


class FileObjects:
    def __init__(self, url: str, *, durable: bool = False) -> None:
        self.folder = Path(unquote(urlsplit(url).path))
        self._threads = ThreadPoolExecutor(THREADS, "objects") if durable else None
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if durable:
            for folder in self.folder.parents:
                with suppress(PermissionError):  # not ours, so not made by us just now
                    _sync(folder)
        self.sweep()

    async def put(self, name: str, data: bytes) -> None:
        await self._run(self._put, self.folder / checked(name), data)

    async def get(self, name: str) -> bytes:
        return await self._run(self._get, self.folder / checked(name), name)

    async def delete(self, name: str) -> None:
        await self._run(self._delete, self.folder / checked(name))

    async def names(self, prefix: str = "") -> list[str]:
        return await self._run(self._names, folder_of(prefix))

    def sweep(self, older_than_s: float = ABANDONED_S) -> int:
        """Removes unfinished files of the dead; gives their number."""
        swept = 0
        for path in self.folder.glob(".*"):
            try:
                if path.is_file() and path.stat().st_mtime < time.time() - older_than_s:
                    path.unlink()
                    swept += 1
            except FileNotFoundError:
                continue  # finished, or swept by another
        return swept

    async def _run(self, act: Callable[..., _T], *args: Any) -> _T:
        try:
            if self._threads is None:
                return act(*args)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, act, *args)
        except OSError as error:
            raise ObjectsDown(f"{self.folder}: {error.strerror}") from error

    def _put(self, path: Path, data: bytes) -> None:
        unfinished = self.folder / f".{secrets.token_hex(8)}"
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                if self._threads:
                    file.flush()
                    os.fsync(file.fileno())
            self._rename(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        if self._threads:
            self._sync_up(path.parent)

    def _rename(self, unfinished: Path, path: Path) -> None:
        for _ in range(100):
            try:
                unfinished.rename(path)
                return
            except FileNotFoundError:
                # No such folder yet; or a deletion has just taken the empty one, and we try again.
                try:
                    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                except (FileExistsError, NotADirectoryError):
                    break
            except (IsADirectoryError, NotADirectoryError):
                break
        raise ValueError(f"object name {path.relative_to(self.folder)}: the folder of another")

    def _get(self, path: Path, name: str) -> bytes:
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ObjectMissing(name) from None

    def _delete(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except (IsADirectoryError, NotADirectoryError):
            return
        folder = path.parent
        while folder != self.folder:
            try:
                with suppress(FileNotFoundError):
                    folder.rmdir()
            except OSError:
                break  # not empty
            folder = folder.parent
        # Also where nothing was there: whoever deleted it may have died before this line.
        if self._threads:
            self._sync_up(folder)

    def _names(self, folder: str) -> list[str]:
        names = []
        for found, inner, files in os.walk(self.folder / folder):
            inner[:] = [name for name in inner if not name.startswith(".")]
            below = Path(found).relative_to(self.folder)
            names += [str(below / name) for name in files if not name.startswith(".")]
        return names

    def _sync_up(self, folder: Path) -> None:
        """Every folder up to ours: another process may have made one and not have synced yet."""
        while folder != self.folder:
            _sync(folder)
            folder = folder.parent
        _sync(self.folder)


def _sync(folder: Path) -> None:
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return  # deleted meanwhile, with all that was in it
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
