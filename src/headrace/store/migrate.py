"""Brings a database's schema to the newest revision, once, whoever comes first.

Alembic is loaded only where there is something to do: it takes a third of a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from headrace.store.engine import Database

HEAD = "0005"
_LOCK = 0x68656164  # of PostgreSQL's advisory locks: two clerks that start together


async def migrate(database: Database) -> bool:
    """True where something was done. Raises Unavailable."""
    return await database.write(_migrate)


def revision(connection: Connection) -> str:
    """The database's; "" for a new one."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def _migrate(connection: Connection) -> bool:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    if revision(connection) >= HEAD:  # or newer: old code runs on a new schema
        return False
    _upgrade(connection)
    return True


def _upgrade(connection: Connection) -> Any:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
