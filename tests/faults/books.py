"""The books at the end of a run: straight from the database, with SQL of our own and a driver that
the house does not use for it, so that a mistake of the store is not made twice.

A trigger that only these tests set writes down each change of a job's state: what was overwritten
is seen, too.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from typing import Any, Protocol

import asyncpg
import msgspec

from .checker import TERMINAL, Move, Row

_ROWS = "SELECT id, key, state, attempt, version, result, problem, due, result_ref FROM jobs"
_MOVES = "SELECT id, old_state, new_state, old_attempt, new_attempt FROM faults_moves ORDER BY n"
_ENDED = ", ".join(f"'{state}'" for state in sorted(TERMINAL))
_OPEN = f"SELECT count(*) FROM jobs WHERE state NOT IN ({_ENDED}) OR due IS NOT NULL"

_WATCH_SQLITE = """
    CREATE TABLE faults_moves (n INTEGER PRIMARY KEY, id, old_state, new_state, old_attempt,
                               new_attempt);
    CREATE TRIGGER faults_moves AFTER UPDATE OF state, attempt, result ON jobs BEGIN
        INSERT INTO faults_moves (id, old_state, new_state, old_attempt, new_attempt)
        VALUES (new.id, old.state, new.state, old.attempt, new.attempt);
    END;
"""
_WATCH_POSTGRESQL = """
    CREATE TABLE faults_moves (n bigserial PRIMARY KEY, id text, old_state text, new_state text,
                               old_attempt int, new_attempt int);
    CREATE FUNCTION faults_moves() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO faults_moves (id, old_state, new_state, old_attempt, new_attempt)
        VALUES (new.id, old.state, new.state, old.attempt, new.attempt);
        RETURN NULL;
    END $$;
    CREATE TRIGGER faults_moves AFTER UPDATE OF state, attempt, result ON jobs
        FOR EACH ROW EXECUTE FUNCTION faults_moves();
"""


class Books(Protocol):
    async def watch(self) -> None:
        """From now on moves are written down. Once, on a database that is migrated."""

    async def migrated(self) -> bool:
        """Somebody has made the table."""

    async def open(self) -> int:
        """How many jobs are not over, or have something left to do."""

    async def rows(self) -> list[Row]: ...

    async def moves(self) -> list[Move]: ...


#: name -> bytes, of results that lie outside their rows
Fetch = Callable[[str], bytes]


def books_of(url: str, fetch: Fetch | None = None) -> Books:
    if url.startswith("sqlite:///"):
        return SqliteBooks(url.removeprefix("sqlite:///"), fetch)
    return PostgresqlBooks(url, fetch)


class SqliteBooks:
    def __init__(self, path: str, fetch: Fetch | None = None) -> None:
        self._path, self._fetch = path, fetch

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self._path, timeout=10.0)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def _watch(self) -> None:
        connection = sqlite3.connect(self._path, timeout=10.0)
        try:
            connection.executescript(_WATCH_SQLITE)
        finally:
            connection.close()

    async def watch(self) -> None:
        await asyncio.to_thread(self._watch)

    async def migrated(self) -> bool:
        try:
            return await asyncio.to_thread(self._ask, _OPEN) is not None
        except sqlite3.OperationalError:
            return False

    async def open(self) -> int:
        return int((await asyncio.to_thread(self._ask, _OPEN))[0][0])

    async def rows(self) -> list[Row]:
        found = await asyncio.to_thread(self._ask, _ROWS)
        return await asyncio.to_thread(_rows, found, self._fetch)

    async def moves(self) -> list[Move]:
        return [Move(*found) for found in await asyncio.to_thread(self._ask, _MOVES)]


class PostgresqlBooks:
    def __init__(self, url: str, fetch: Fetch | None = None) -> None:
        self._url, self._fetch = url, fetch

    async def _ask(self, query: str) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self._url)
        try:
            return [tuple(found) for found in await connection.fetch(query)]
        finally:
            await connection.close()

    async def watch(self) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(_WATCH_POSTGRESQL)
        finally:
            await connection.close()

    async def migrated(self) -> bool:
        try:
            return await self._ask(_OPEN) is not None
        except asyncpg.UndefinedTableError:
            return False

    async def open(self) -> int:
        return int((await self._ask(_OPEN))[0][0])

    async def rows(self) -> list[Row]:
        return await asyncio.to_thread(_rows, await self._ask(_ROWS), self._fetch)

    async def moves(self) -> list[Move]:
        return [Move(*found) for found in await self._ask(_MOVES)]


def _rows(found: list[tuple[Any, ...]], fetch: Fetch | None) -> list[Row]:
    return [_row(fetch, *columns) for columns in found]


def _row(
    fetch: Fetch | None,
    job: str,
    key: str | None,
    state: str,
    attempt: int,
    version: str,
    *rest: Any,
) -> Row:
    """`rest`: result, problem, due, name of the result's object."""
    result, problem, due, ref = rest
    if ref and fetch:
        result = fetch(ref)
    plain: Any = None
    if isinstance(problem, bytes):
        plain = msgspec.msgpack.decode(problem)[1]
    elif isinstance(result, bytes):
        plain = _plain(result)
    return Row(job, key or "", state, attempt, version, plain, owed=due is not None)


def _plain(result: bytes) -> Any:
    """JSON or canonical msgpack, as the door asked for it."""
    try:
        return json.loads(result)
    except ValueError:
        return msgspec.msgpack.decode(result)
