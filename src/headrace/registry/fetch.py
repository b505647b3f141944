"""The files of a version, from a registry that is not trusted: each byte against its digest."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from headrace.registry.port import Registry
from headrace.registry.refusals import Rejected
from headrace.registry.version import File, Version


async def fetch(registry: Registry, version: Version, folder: Path) -> None:
    """Writes them into an empty folder, which is left half full where this fails. Raises Rejected
    where they are not what was registered; Unavailable; NotFound; OSError."""
    for file in version.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        await _one(registry, version, file, path)


async def _one(registry: Registry, version: Version, file: File, path: Path) -> None:
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as target:
        async for chunk in registry.chunks(version, file):
            size += len(chunk)
            if size > file.bytes:  # it may go on for ever
                break
            await asyncio.to_thread(_take, digest, target, chunk)
    if size != file.bytes or digest.hexdigest() != file.sha256:
        raise Rejected(
            f"{version.name}: {file.path} is not what was registered as {version.digest[:19]}: "
            + (f"{size:,} bytes of {file.bytes:,}" if size < file.bytes else "other bytes")
        )


def _take(digest: hashlib._Hash, target: object, chunk: bytes) -> None:
    digest.update(chunk)
    target.write(chunk)  # type: ignore[attr-defined]
