"""The store, made from the settings."""

from __future__ import annotations

import asyncio
import time

from headrace.errors import Unavailable
from headrace.objects.chain import Chained
from headrace.objects.port import Objects
from headrace.objects.whole import Whole
from headrace.settings import Settings
from headrace.store.bodies import Bodies
from headrace.store.ends import Ends, Keep
from headrace.store.engine import Database
from headrace.store.jobs import Jobs
from headrace.store.migrate import HEAD, revision
from headrace.store.places import places, sealer_of
from headrace.store.retention import Retention


class Store:
    def __init__(
        self, database: Database, jobs: Jobs, bodies: Bodies, places: Whole | Chained
    ) -> None:
        self.database, self.jobs, self.bodies, self._places = database, jobs, bodies, places
        #: the objects, where there are two places for them
        self.chain = places if isinstance(places, Chained) else None
        self.retention = Retention(database)

    async def migrated(self, wait_s: float) -> None:
        """Returns when the schema is as this code needs it. Raises Unavailable."""
        end_at = time.monotonic() + wait_s
        while not await self._is_migrated():
            if time.monotonic() > end_at:
                detail = "the database has no tables yet: is a clerk running?"
                raise Unavailable(detail, code="storage-unavailable")
            await asyncio.sleep(0.1)

    async def _is_migrated(self) -> bool:
        try:
            return await self.database.read(revision) >= HEAD
        except Unavailable:
            if not self.database.sqlite:
                raise
            return False  # several open a new file at once: all but one find it locked

    def trouble(self) -> dict[tuple[str, ...], float]:
        """How many bodies the fallback served, and how many were damaged."""
        counts: dict[tuple[str, ...], float] = {("corrupt",): self._places.corrupt}
        if self.chain:
            counts["fell_back",] = self.chain.fell_back
        return counts

    async def close(self) -> None:
        await self.database.close()


def keep_of(settings: Settings, tenant: str, model: str) -> Keep:
    """How long after a job's end its input and its row are kept: the tenant's word, else the
    model's, else the house's."""
    sources = (settings.jobs.tenants.get(tenant), settings.models.get(model), settings.jobs)
    hours = [s.retain_input_hours for s in sources if s and s.retain_input_hours is not None]
    days = [s.retain_result_days for s in sources if s and s.retain_result_days is not None]
    return Keep(hours[0] * 3600, days[0] * 86400)


def open_store(settings: Settings) -> Store:
    database = Database(
        settings.database_url(),
        connections=settings.database.connections,
        timeout_s=settings.database.timeout_s,
    )
    ends = Ends(
        lambda tenant, model: keep_of(settings, tenant, model),
        settings.webhooks.retry_hours * 3600,
    )
    sealer = sealer_of(settings)
    found = places(settings)
    objects: Objects = found
    if sealer:
        from headrace.objects.sealed import Sealed

        objects = Sealed(found, sealer)
    bodies = Bodies(objects, settings.jobs.inline_limit_bytes, sealer)
    return Store(database, Jobs(database, ends), bodies, found)
