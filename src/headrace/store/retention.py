"""What is past its time: inputs first, later the whole row. That something was removed is kept, and
nothing of what it was."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select, update

from headrace.store.engine import Database, now
from headrace.store.tables import jobs, removals


class Old(NamedTuple):
    id: str
    input_ref: str
    result_ref: str


class Retention:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def inputs(self, most: int) -> list[Old]:
        return await self._old(jobs.c.input_until, most)

    async def rows(self, most: int) -> list[Old]:
        return await self._old(jobs.c.row_until, most)

    async def _old(self, until: Any, most: int) -> list[Old]:
        query = (
            select(jobs.c.id, jobs.c.input_ref, jobs.c.result_ref)
            .where(until <= now())
            .order_by(until)
            .limit(most)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [Old(row.id, row.input_ref, row.result_ref) for row in rows]

    async def known(self, ids: set[str]) -> set[str]:
        """Those of the ids that have a row."""
        query = select(jobs.c.id).where(jobs.c.id.in_(ids))
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {row.id for row in rows}

    async def forget_inputs(self, ids: list[str]) -> None:
        def work(connection: Connection) -> None:
            old = self._note(connection, ids, "input", jobs.c.input_until)
            connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(old))
                .values(input=None, input_ref="", input_until=None)
            )

        if ids:
            await self._database.write(work)

    async def forget_rows(self, ids: list[str]) -> None:
        def work(connection: Connection) -> None:
            old = self._note(connection, ids, "row", jobs.c.row_until)
            connection.execute(delete(jobs).where(jobs.c.id.in_(old)))

        if ids:
            await self._database.write(work)

    @staticmethod
    def _note(connection: Connection, ids: list[str], what: str, until: Any) -> list[str]:
        """Gives those that are still to go: not what another clerk removed or a replay called back
        since they were looked up."""
        at = connection.execute(select(now())).scalar_one()
        found = connection.execute(
            select(jobs.c.id, jobs.c.tenant)
            .where(jobs.c.id.in_(ids), until <= at)
            .order_by(jobs.c.id)
            .with_for_update()
        ).all()
        rows = [{"job_id": row.id, "tenant": row.tenant, "what": what, "why": "retention", "at": at}
                for row in found]  # fmt: skip
        if rows:
            connection.execute(removals.insert(), rows)
        return [row.id for row in found]

    async def later(self, ids: list[str], wait_s: float) -> None:
        def work(connection: Connection) -> None:
            for until in (jobs.c.input_until, jobs.c.row_until):
                late = update(jobs).where(jobs.c.id.in_(ids), until <= now())
                connection.execute(late.values({until: now() + wait_s}))

        await self._database.write(work)
