"""The versions that this machine keeps, by their digest: what serves needs no registry.

    sha256/3f/3f9a.../      the files of one version, read-only; appears by one rename
    pins/iris/3             the digest that iris 3 had when it was first seen here
    state.json              the aliases that were seen last

Every use compares all bytes with the digest again: 1 GB takes about a second, and a disk that has
turned a bit is noticed before a model answers. What the registry says later is compared with the
pin: a version that is now another one is refused, and what is kept stays.

Who decides about a version asks `get`, which hears the registry; who runs what was decided asks
`meant`, by the digest of the decision.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from headrace.errors import Unavailable
from headrace.registry import disk
from headrace.registry.fetch import fetch
from headrace.registry.inspect import inspect
from headrace.registry.port import Registry, State
from headrace.registry.refusals import Rejected, unavailable
from headrace.registry.rules import Rules
from headrace.registry.version import (
    MANIFEST,
    File,
    Version,
    checked_model,
    digest_of,
    listing_of,
    version_of,
)

log = structlog.get_logger("headrace.registry")

LISTING = ".listing"  # beside the files; no file of a version has such a name
CREATED = ".created"
#: What nobody has finished for this long is left over from a process that died.
ABANDONED_S = 86_400.0


class Kept:
    """`folder`: of this house alone."""

    def __init__(self, folder: Path, rules: Rules) -> None:
        self.folder, self._rules = folder, rules
        self._fetching: dict[str, asyncio.Lock] = {}

    async def get(self, registry: Registry, model: str, number: int) -> Version:
        """As the registry says; where it is down, as it was kept. Raises Rejected where the
        registry now says something else than it once did; NotFound; Unavailable."""
        try:
            version = await registry.get(model, number)
        except Unavailable:
            return await self.remembered(model, number)
        await asyncio.to_thread(self._pin, version)
        return version

    async def meant(self, registry: Registry, model: str, number: int, digest: str) -> Version:
        """The one with that digest, or, where it is "", with the one that it had when it was first
        seen here. What is kept needs no registry, and is believed before it. Raises Rejected where
        the registry has another, NotFound, Unavailable."""
        found = await asyncio.to_thread(self._meant, model, number, digest)
        if found is None:
            found = await registry.get(model, number)
            if digest and found.digest != digest:
                raise Rejected(
                    f"{found.name} was {digest[:19]} when it was deployed, and the registry now "
                    f"says {found.digest[:19]}: a version never changes, so this one is not used"
                )
            await asyncio.to_thread(self._pin, found)
        return found

    async def remembered(self, model: str, number: int) -> Version:
        """As it is kept, whatever the registry says. Raises Unavailable."""
        return await asyncio.to_thread(self._remembered, model, number)

    async def files(self, registry: Registry, version: Version) -> Path:
        """The folder of its files, whole and inspected, fetched where it is not here yet. Raises
        Rejected; Unavailable; NotFound; OSError."""
        folder = self._folder(version.digest)
        async with self._fetching.setdefault(version.digest, asyncio.Lock()):
            if await asyncio.to_thread(self._is_whole, folder, version):
                return folder
            await self._fetch(registry, version, folder)
        return folder

    async def state(self, registry: Registry) -> tuple[State, bool]:
        """The aliases, and whether the registry said so just now: else those seen last. Raises
        Unavailable where none were."""
        try:
            state = await registry.state()
        except Unavailable:
            return await asyncio.to_thread(self._last_state), False
        await asyncio.to_thread(self._keep_state, state)
        return state, True

    def remove(self, digest: str) -> None:
        """Raises OSError."""
        folder = self._folder(digest)
        with suppress(FileNotFoundError):
            doomed = disk.unfinished(folder.parent)
            folder.rename(doomed)
            disk.remove(doomed)

    def sweep(self, older_than_s: float = ABANDONED_S) -> None:
        """Removes what processes that died while they fetched have left."""
        for folder in self.folder.glob("sha256/??"):
            disk.sweep(folder, older_than_s)

    def digests(self) -> list[str]:
        """Of all that is here."""
        return sorted(f"sha256:{path.name}" for path in self.folder.glob("sha256/??/[0-9a-f]*"))

    # -- files -------------------------------------------------------------------------------

    def _folder(self, digest: str) -> Path:
        kind, _, text = digest.partition(":")
        assert kind == "sha256" and len(text) == 64 and text.isalnum(), digest
        return self.folder / kind / text[:2] / text

    def _is_whole(self, folder: Path, version: Version) -> bool:
        """Also removes what is not."""
        if not folder.is_dir():
            return False
        damaged = [file.path for file in version.files if not _is(folder / file.path, file)]
        damaged += _names(folder) - {file.path for file in version.files} - {LISTING, CREATED}
        if not _says(folder / LISTING, listing_of(version.files)):
            damaged.append(LISTING)
        if damaged:
            log.warning("kept version is damaged", version=version.name, files=damaged[:10])
            self.remove(version.digest)
        return not damaged

    async def _fetch(self, registry: Registry, version: Version, folder: Path) -> None:
        unfinished = disk.unfinished(folder.parent)
        unfinished.mkdir(parents=True, mode=0o700)
        try:
            await fetch(registry, version, unfinished)
            await asyncio.to_thread(self._finish, unfinished, version, folder)
        except BaseException:
            disk.remove(unfinished)
            raise

    def _finish(self, unfinished: Path, version: Version, folder: Path) -> None:
        """Whoever registered it may have had other rules: inspected here, too."""
        inspect(unfinished, self._rules)
        listing = listing_of(version.files)
        assert digest_of(listing) == version.digest, version
        (unfinished / LISTING).write_text(listing)
        (unfinished / CREATED).write_text(repr(version.created))
        disk.sync_all(unfinished)
        for path in (*unfinished.rglob("*"), unfinished):
            path.chmod(0o555 if path.is_dir() else 0o444)  # also against a __pycache__
        try:
            unfinished.rename(folder)
        except OSError:
            if not self._is_whole(folder, version):  # else another process was quicker
                raise
            disk.remove(unfinished)
        disk.sync(folder.parent)

    # -- what the registry said --------------------------------------------------------------

    def _pin(self, version: Version) -> None:
        path = self.folder / "pins" / version.model / str(version.number)
        pinned = _read(path)
        if not pinned:
            disk.write(path, version.digest.encode())
        elif pinned != version.digest:
            raise Rejected(
                f"{version.name} was {pinned[:19]} when it was first seen, and the registry now "
                f"says {version.digest[:19]}: a version never changes, so this one is not used"
            )

    def _meant(self, model: str, number: int, digest: str) -> Version | None:
        """What is kept of it. The decision's word goes before what this machine took for it."""
        path = self.folder / "pins" / checked_model(model) / str(number)
        pinned = _read(path)
        if digest and pinned not in ("", digest):
            log.warning("seen here with another digest", version=f"{model} {number}", seen=pinned)
            disk.write(path, digest.encode())
        try:
            return self._of(model, number, digest or pinned) if digest or pinned else None
        except (Unavailable, Rejected, ValueError):  # what is on the disk may be anything
            return None

    def _remembered(self, model: str, number: int) -> Version:
        digest = _read(self.folder / "pins" / checked_model(model) / str(number))
        if not digest:
            raise unavailable(f"the registry is down, and {model} {number} was never seen here")
        return self._of(model, number, digest)

    def _of(self, model: str, number: int, digest: str) -> Version:
        folder = self._folder(digest)
        listing, created = _read(folder / LISTING), _read(folder / CREATED)
        if not listing or digest_of(listing) != digest:
            raise unavailable(f"the registry is down, and {model} {number} is not kept here")
        manifest = _read(folder / MANIFEST).encode()
        return version_of(model, number, float(created or 0), listing, manifest)

    def _keep_state(self, state: State) -> None:
        data = msgspec.json.encode(state, order="sorted")
        if _read(self.folder / "state.json") != data.decode():
            disk.write(self.folder / "state.json", data)

    def _last_state(self) -> State:
        try:
            return msgspec.json.decode(_read(self.folder / "state.json"), type=State)
        except msgspec.DecodeError:
            raise unavailable("the registry is down, and was never seen from here") from None


def _is(path: Path, file: File) -> bool:
    try:
        with path.open("rb") as source:
            same = path.stat().st_size == file.bytes
            return same and hashlib.file_digest(source, "sha256").hexdigest() == file.sha256
    except OSError:
        return False


def _read(path: Path) -> str:
    """ "" where there is none."""
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _says(path: Path, text: str) -> bool:
    try:
        return _read(path) == text
    except UnicodeDecodeError:
        return False


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
