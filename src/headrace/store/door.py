"""The way to the store, opened aside: SQLAlchemy takes 0.3 s to load, on a busy machine two, which
neither the first answer of a house should wait for nor a job in a new worker's hand."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.store.open import Store


WARM_AFTER_S = 3.0
MIGRATED_WITHIN_S = 5.0


class StoreDoor:
    def __init__(self, settings: Settings, *, waits: bool = True) -> None:
        """`waits`: for whoever brings the schema up to date, in the first seconds of a house."""
        self._settings, self._waits = settings, waits
        self._store: Store | None = None
        self._opening: asyncio.Task[Store] | None = None

    async def open(self) -> Store:
        """Raises Unavailable, or ImportError where an extra is missing."""
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.ensure_future(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Store:
        def load() -> Store:
            from headrace.store.open import open_store

            return open_store(self._settings)

        if self._store is None:
            self._store = await asyncio.to_thread(load)  # the import blocks for as long
        if self._waits:
            await self._store.migrated(MIGRATED_WITHIN_S)
        return self._store

    def trouble(self) -> dict[tuple[str, ...], float]:
        """What befell the bodies since it was opened, for a metric."""
        return self._store.trouble() if self._store is not None else {}

    async def warm(self, after_s: float = WARM_AFTER_S) -> None:
        """Opens it when the start is over; whoever needs it sooner opens it then."""
        await asyncio.sleep(after_s)
        with contextlib.suppress(Exception):  # told to who asks
            await self.open()

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()
