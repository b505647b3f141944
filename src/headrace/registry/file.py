"""`file:///folder`: a registry that is a folder, on this machine or one that it mounts.

    iris/aliases.json       {"production": 3}
    iris/3/record.json      {"created": 1700000000.0, "listing": "..."}
    iris/3/files/...        what was registered, manifest.json among them

Whoever changes something holds the lock of the model's folder. A version appears by one rename.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from headrace.errors import Invalid
from headrace.registry import disk
from headrace.registry.port import Inspected, State
from headrace.registry.refusals import Rejected, no_version, unavailable
from headrace.registry.version import (
    MANIFEST,
    MODEL,
    File,
    Version,
    checked_alias,
    checked_model,
    digest_of,
    listing_of,
    version_of,
)

CHUNK = 1 << 20
_T = TypeVar("_T")


class Record(msgspec.Struct):
    created: float
    listing: str


class FileRegistry:
    def __init__(self, url: str) -> None:
        self.folder = Path(unquote(urlsplit(url).path))

    async def open(self) -> None:
        """The folder is made when something is registered."""

    async def close(self) -> None:
        """Nothing is held."""

    async def register(self, inspected: Inspected) -> Version:
        return await self._run(self._register, inspected)

    async def versions(self, model: str) -> list[Version]:
        return await self._run(self._versions, model)

    async def get(self, model: str, number: int) -> Version:
        return await self._run(self._get, model, number)

    async def state(self) -> State:
        return await self._run(self._state)

    async def point(self, model: str, alias: str, number: int | None) -> int | None:
        return await self._run(self._point, model, alias, number)

    async def hook(self, url: str, secret: str) -> str:
        raise Invalid("a folder sends no webhooks, and needs none: deploy looks every 2 s")

    async def chunks(self, version: Version, file: File) -> AsyncIterator[bytes]:
        path = self._at(version.model, version.number) / "files" / file.path
        source = await self._run(self._open, path, version)
        with source:
            while chunk := await self._run(source.read, CHUNK):
                yield chunk

    async def _run(self, act: Callable[..., _T], *args: Any) -> _T:
        try:
            return await asyncio.to_thread(act, *args)
        except OSError as error:
            raise unavailable(f"{self.folder}: {error.strerror}") from error

    def _at(self, model: str, number: int) -> Path:
        return self.folder / checked_model(model) / str(number)

    def _register(self, inspected: Inspected) -> Version:
        model, listing = inspected.manifest.model, listing_of(inspected.files)
        folder = self.folder / model
        with disk.locked(folder):
            disk.sweep(folder)
            known = self._versions(model)
            for version in known:
                if version.digest == digest_of(listing):
                    return version
            number = max((version.number for version in known), default=0) + 1
            while (folder / str(number)).exists():  # one that cannot be read
                number += 1
            unfinished = disk.unfinished(folder)
            try:
                _copy_all(inspected, unfinished / "files")
                record = Record(time.time(), listing)
                disk.write(unfinished / "record.json", msgspec.json.encode(record))
                disk.sync_all(unfinished)
                unfinished.rename(folder / str(number))
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            disk.sync(folder)
        return self._get(model, number)

    def _versions(self, model: str) -> list[Version]:
        found = []
        for number in sorted(self._numbers(model), reverse=True):
            try:
                found.append(self._get(model, number))
            except Rejected:
                continue  # `get` says what is wrong with it
        return found

    def _numbers(self, model: str) -> list[int]:
        folder = self._at(model, 0).parent
        if not folder.is_dir():
            return []
        return [int(entry.name) for entry in folder.iterdir()
                if re.fullmatch(r"[1-9]\d{0,8}", entry.name)]  # fmt: skip

    def _get(self, model: str, number: int) -> Version:
        at = self._at(model, number)
        try:
            record = msgspec.json.decode((at / "record.json").read_bytes(), type=Record)
            manifest = (at / "files" / MANIFEST).read_bytes()
        except FileNotFoundError:
            raise no_version(model, number) from None
        except msgspec.DecodeError as error:
            raise Rejected(f"{model} {number}: record.json: {error}") from None
        return version_of(model, number, record.created, record.listing, manifest)

    def _state(self) -> State:
        if not self.folder.exists():
            return {}
        return {
            entry.name: self._aliases(entry.name)
            for entry in sorted(self.folder.iterdir())
            if re.fullmatch(MODEL, entry.name) and self._numbers(entry.name)
        }

    def _aliases(self, model: str) -> dict[str, int]:
        path = self.folder / model / "aliases.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            return {}
        except msgspec.DecodeError as error:
            raise unavailable(f"{path}: {error}") from None

    def _point(self, model: str, alias: str, number: int | None) -> int | None:
        checked_alias(alias)
        if number is not None:
            self._get(model, number)
        folder = self._at(model, 0).parent
        if number is None and not folder.is_dir():
            return None
        with disk.locked(folder):
            aliases = self._aliases(model)
            before = aliases.pop(alias, None)
            if number is not None:
                aliases[alias] = number
            if before != number:
                disk.write(folder / "aliases.json", msgspec.json.encode(aliases))
        return before

    def _open(self, path: Path, version: Version) -> Any:
        try:
            return path.open("rb")
        except FileNotFoundError:
            raise no_version(version.model, version.number) from None


def _copy_all(inspected: Inspected, folder: Path) -> None:
    """Raises Rejected where a file is no longer the one that was inspected."""
    for file in inspected.files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest = hashlib.sha256()
        with (inspected.folder / file.path).open("rb") as source, target.open("xb") as copy:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                copy.write(chunk)
        if digest.hexdigest() != file.sha256:
            raise Rejected(f"{file.path} has changed since it was looked at")
