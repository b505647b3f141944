"""What is done for every job finds its rows by an index, however many wait. PostgreSQL keeps the
plan of a statement that it was given before, which must be right for the table as it has become:
counted in blocks, which are the same on any machine."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import column, text
from sqlalchemy.dialects import sqlite

from headrace.records import Ending, State, new_id
from headrace.store import lean
from headrace.store.ends import _HOOKS
from headrace.store.jobs import _CLAIM, _OWNED, _RENEW

from .stored import FAILED, LEASE_S, done, opened, submit

FEW, MANY = 300, 4_000
AT_ONCE = 8

#: Of the jobs and their indexes, in this session since it last told the server.
BLOCKS = text("""
    SELECT sum(pg_stat_get_xact_blocks_fetched(part)) AS blocks FROM (
        SELECT 'jobs'::regclass::oid AS part
        UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = 'jobs'::regclass
    ) AS parts
""").columns(column("blocks"))


@pytest.fixture
async def store(postgres):
    """On one connection: each statement has one plan."""
    async with opened(
        await asyncio.to_thread(postgres.database), connections=1, timeout_s=10.0
    ) as store:
        yield store


async def plain(store, *statements):
    """Outside of a transaction, as VACUUM wants it."""
    connection = await asyncpg.connect(store.url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def counting(store):
    """From now on: the blocks that each act touched."""
    blocks, run = [], store.database.write_lean

    async def counted(work, **_):
        def both(connection):
            before = connection.execute(BLOCKS).scalar_one()
            answer = work(connection)
            blocks.append(int(connection.execute(BLOCKS).scalar_one() - before))
            return answer

        return await run(both)

    store.database.write_lean = counted
    return blocks


async def lives(store, ids):
    """What happens to a job, of several at once."""
    claims = await store.jobs.claim(ids, "w", LEASE_S)
    assert not await store.jobs.renew({each.id: each.attempt for each in claims}, "w", LEASE_S)
    again = [Ending(each.id, each.attempt, State.WAITING, problem=FAILED) for each in claims]
    assert len(await store.jobs.finish(again)) == len(ids)
    claims = await store.jobs.claim(ids, "w", LEASE_S)
    assert len(await store.jobs.finish([done(each) for each in claims])) == len(ids)


async def idle(store):
    """Of jobs that are gone: plans are made, and nothing is changed."""
    ids = [new_id() for _ in range(AT_ONCE)]
    assert not await store.jobs.claim(ids, "w", LEASE_S)
    assert await store.jobs.renew(dict.fromkeys(ids, 1), "w", LEASE_S) == set(ids)
    assert not await store.jobs.finish([Ending(job, 1, State.SUCCEEDED) for job in ids])


@pytest.mark.parametrize("how", ["new", "vacuumed"])
async def test_what_is_done_for_every_job_costs_the_same_however_many_wait(store, how, monkeypatch):
    """Its plans are of the time when nobody waited, and nothing has told the server since."""
    await plain(store, "ALTER TABLE jobs SET (autovacuum_enabled = off)")
    if how == "vacuumed":
        await plain(store, "VACUUM ANALYZE jobs")
        monkeypatch.setattr(lean, "REPLAN_S", 0.0)  # what a second would do
    for _ in range(10):
        await idle(store)
        await lives(store, await submit(store, AT_ONCE))
    blocks = counting(store)
    each = {}
    waiting = []
    for count in (FEW, MANY):
        waiting += await submit(store, count - len(waiting))
        del blocks[:]
        await lives(store, [waiting.pop(len(waiting) // 2) for _ in range(AT_ONCE)])
        each[count] = list(blocks)
    print(f"blocks of claim, renew, give back, claim, end: {each}")
    for few, many in zip(each[FEW], each[MANY], strict=True):
        assert many < 2 * few, each


@pytest.mark.parametrize(
    "statement", [_CLAIM, _RENEW, _OWNED, _HOOKS], ids=["claim", "renew", "owned", "hooks"]
)
async def test_sqlite_finds_rows_by_an_index(tmp_path, statement):
    """It plans anew each time, and sees an index only in what it is asked plainly."""
    async with opened(f"sqlite:///{tmp_path}/house.db") as store:
        compiled = statement.compile(dialect=sqlite.dialect())
        asked = f"EXPLAIN QUERY PLAN {compiled}"
        given = (None,) * len(compiled.positiontup)
        rows = await store.database.read(lambda c: c.exec_driver_sql(asked, given).all())
        assert rows[0].detail.startswith("SEARCH"), [row.detail for row in rows]
