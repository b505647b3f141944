"""The books are read right, over both databases, and a write that changes nothing is seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from headrace.store.tables import metadata
from headrace.testing.services import Postgres

from .books import books_of
from .checker import Move, Row
from .models import REFUSED

JOB = """
    INSERT INTO jobs (id, tenant, model, state, priority, attempt, max_attempts, request_id,
                      created, deadline, due, input_digest, key, result, problem, version)
    VALUES (:id, 'default', 'prove', :state, 0, 1, 5, 'q', 0, 0, :due, '', :key, :result, :problem,
            '1')
"""
JOBS = [
    {"id": "a", "state": "succeeded", "due": None, "key": "r.1", "result": b'{"number":1}',
     "problem": None},
    {"id": "b", "state": "succeeded", "due": None, "key": "r.2",
     "result": msgspec.msgpack.encode({"number": 2}), "problem": None},
    {"id": "c", "state": "failed", "due": None, "key": "r.49", "result": None,
     "problem": msgspec.msgpack.encode([422, REFUSED, "odd"])},
    {"id": "d", "state": "waiting", "due": 7.0, "key": None, "result": None, "problem": None},
]  # fmt: skip
WRITES = (
    "UPDATE jobs SET state = 'running', attempt = 2 WHERE id = 'd'",
    "UPDATE jobs SET state = 'succeeded' WHERE id = 'a'",
    "UPDATE jobs SET due = 8 WHERE id = 'd'",  # says nothing of state, attempt or result
)


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/jobs.db")
        metadata.create_all(engine)
        engine.dispose()
        yield f"sqlite:///{tmp_path}/jobs.db"
        return
    with Postgres() as postgres:
        remote = create_async_engine(postgres.url.replace("postgresql:", "postgresql+asyncpg:"))
        async with remote.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await remote.dispose()
        yield postgres.url


async def run(url: str, *statements: tuple[str, list[dict[str, object]]]) -> None:
    if url.startswith("sqlite:"):
        engine = create_engine(url)
        with engine.begin() as there:
            for statement, rows in statements:
                there.execute(text(statement), rows or None)
        engine.dispose()
        return
    remote = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
    async with remote.begin() as connection:
        for statement, rows in statements:
            await connection.execute(text(statement), rows or None)
    await remote.dispose()


async def test_rows_and_moves(url: str) -> None:
    books = books_of(url)
    assert await books.migrated()
    await run(url, (JOB, JOBS))
    await books.watch()
    assert sorted(await books.rows()) == [
        Row("a", "r.1", "succeeded", 1, "1", {"number": 1}),
        Row("b", "r.2", "succeeded", 1, "1", {"number": 2}),
        Row("c", "r.49", "failed", 1, "1", REFUSED),
        Row("d", "", "waiting", 1, "1", None, owed=True),
    ]
    assert await books.open() == 1
    assert await books.moves() == []
    await run(url, *((write, []) for write in WRITES))
    assert await books.moves() == [
        Move("d", "waiting", "running", 1, 2),
        Move("a", "succeeded", "succeeded", 1, 1),
    ]
