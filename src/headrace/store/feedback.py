"""Labels that came later, in the database: one for each call, the last word counts."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from headrace.monitoring import Label
from headrace.store.engine import Database
from headrace.store.tables import labels


class Feedback:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, model: str, told: Sequence[Label]) -> None:
        """Raises Unavailable."""
        values: list[dict[str, Any]] = [
            {
                "model": model, "id": label.id, "at": label.at, "received": label.received,
                "label": msgspec.json.encode(label.label).decode(),
            }
            for label in {label.id: label for label in told}.values()
        ]  # fmt: skip
        # In one order: two who write the same rows wait for each other, and not in a circle.
        values.sort(key=itemgetter("id"))
        if values:
            await self._database.write(
                lambda connection: connection.execute(_PUT[connection.dialect.name], values)
            )

    async def since(self, model: str, received: float, limit: int = 10_000) -> list[Label]:
        """Those that came at that Unix time or later, the oldest first."""
        query = (
            select(labels.c.id, labels.c.label, labels.c.at, labels.c.received)
            .where(labels.c.model == model, labels.c.received >= received)
            .order_by(labels.c.received, labels.c.id)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [
            Label(row.id, msgspec.json.decode(row.label, type=float | str), row.at, row.received)
            for row in rows
        ]

    async def remove(self, model: str, before: float = float("inf")) -> None:
        """What came before that time."""
        over = delete(labels).where(labels.c.model == model, labels.c.received < before)
        await self._database.write(lambda connection: connection.execute(over).rowcount)


def _put(dialect: Any) -> Any:
    insert = dialect.insert(labels)
    changed = {name: insert.excluded[name] for name in ("label", "at", "received")}
    return insert.on_conflict_do_update(index_elements=["model", "id"], set_=changed)


_PUT: dict[str, Any] = {"sqlite": _put(sqlite), "postgresql": _put(postgresql)}
