"""Registry: versions of models by number, and the aliases that say which is in production.

    v1 v2 v3 v4      versions: numbered from 1, never changed, never renumbered
          |  |
          |  canary
          production  aliases: moved by a promotion, back by a rollback

What an adapter promises (the exam in `testing.registry_exam` checks it): what was registered is
read back byte for byte; a number is given once; two who register at the same time get two numbers;
the same files again are the version that they are; every verb ends, and says `Unavailable` when it
could not be done.

What an adapter answers is not trusted: whoever reads files does so through `fetch.fetch`, which
compares each byte with the digest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple, Protocol

from headrace.registry.version import File, Manifest, Version

#: Model -> alias -> number. A model without aliases is there, too.
State = dict[str, dict[str, int]]

PRODUCTION, CANARY = "production", "canary"


class Inspected(NamedTuple):
    """A folder that may be registered. Only `inspect.inspect` makes one."""

    folder: Path
    files: tuple[File, ...]
    manifest: Manifest


class Registry(Protocol):
    """Every verb raises errors.Unavailable (`registry-unavailable`)."""

    async def open(self) -> None:
        """Connects to nobody: a registry that is down is no error before it is asked."""

    async def close(self) -> None: ...

    async def register(self, inspected: Inspected) -> Version:
        """A new version; where the model has one of the same digest, that one. Raises Rejected
        where the files have changed since they were inspected."""

    async def versions(self, model: str) -> list[Version]:
        """The newest first; none of a model that is not known. Those that others put there without
        us are left out."""

    async def get(self, model: str, number: int) -> Version:
        """Raises NotFound; Rejected where it was not registered by us."""

    async def state(self) -> State:
        """All models and their aliases: cheap enough to ask every few seconds."""

    async def point(self, model: str, alias: str, number: int | None) -> int | None:
        """Lets the alias name that version (None: nothing); gives what it named before. Raises
        NotFound; Invalid. People come through `promote.promote`, which writes down who and why."""

    async def hook(self, url: str, secret: str) -> str:
        """A signed webhook goes there whenever an alias moves; told again, with that secret. One is
        sent at once: "", or why it was not taken. Raises Invalid where none are sent."""

    def chunks(self, version: Version, file: File) -> AsyncIterator[bytes]:
        """The bytes as they come, unverified: for `fetch.fetch` alone. Raises NotFound."""
