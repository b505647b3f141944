"""Trainings that a policy asked for, in the database: one for each wish, whoever finds it first."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from headrace.retraining import Training
from headrace.store.engine import Database
from headrace.store.tables import retrainings


class Trainings:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, training: Training) -> bool:
        """False where there is one for that key already: it stands."""
        values = msgspec.structs.asdict(training)

        def work(connection: Connection) -> bool:
            insert = _INSERT[connection.dialect.name](retrainings).values(values)
            return bool(connection.execute(insert.on_conflict_do_nothing()).rowcount)

        return await self._database.write(work)

    async def end(self, training: Training) -> bool:
        """Writes what came of it. False where another has done so."""
        came = {
            name: getattr(training, name)
            for name in ("state", "ended", "took_s", "version", "outcome")
        }
        done = (
            update(retrainings)
            .where(
                retrainings.c.model == training.model,
                retrainings.c.key == training.key,
                retrainings.c.ended.is_(None),
            )
            .values(came)
        )
        return bool(
            await self._database.write(lambda connection: connection.execute(done).rowcount)
        )

    async def of(self, model: str, limit: int = 200) -> list[Training]:
        """The newest first."""
        query = (
            _SHOWN.where(retrainings.c.model == model)
            .order_by(retrainings.c.at.desc(), retrainings.c.key)
            .limit(limit)
        )
        return await self._database.read(
            lambda connection: [Training(**row._mapping) for row in connection.execute(query)]
        )


_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_SHOWN = select(*(retrainings.c[name] for name in Training.__struct_fields__))
