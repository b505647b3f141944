"""A store for exams, with jobs in it: on the database of a URL, with objects in memory."""

import asyncio
import contextlib

from sqlalchemy import func, select, update

from headrace.clerk.decide import decide
from headrace.errors import Problem
from headrace.objects.memory import MemoryObjects
from headrace.objects.port import ObjectsDown
from headrace.objects.whole import Whole
from headrace.records import Ending, Priority, State, Submission, new_id
from headrace.store.bodies import Bodies
from headrace.store.ends import Ends, Keep
from headrace.store.engine import Database
from headrace.store.jobs import Jobs
from headrace.store.migrate import migrate
from headrace.store.open import Store
from headrace.store.tables import jobs

LEASE_S = 30.0
KEEP = Keep(3600, 7200)
EMPTY = {(model, queue): 0 for model in ("iris", "m", "tulip") for queue in Priority}
FAILED = Problem(500, "model-failed", "it raised")


class Objects(MemoryObjects):
    """They may be down."""

    down = False

    async def delete(self, name):
        if self.down:
            raise ObjectsDown("down")
        await super().delete(name)


def store_on(url, keep=KEEP, **more):
    database = Database(url, **more)
    objects = Objects(f"memory://{new_id()}")
    store = Store(
        database,
        Jobs(database, Ends(lambda tenant, model: keep, 3600.0)),
        Bodies(objects, 64),
        Whole(objects),
    )
    store.url = url
    return store


@contextlib.asynccontextmanager
async def opened(url, **more):
    store = store_on(url, **more)
    try:
        await migrated(url)  # in its own time: a store in a hurry might give up
        yield store
    finally:
        await store.close()


async def migrated(url):
    database = Database(url, timeout_s=30.0)
    try:
        await migrate(database)
    finally:
        await database.close()


def a_job(**more):
    given = {
        "id": new_id(), "tenant": "acme", "model": "iris", "priority": Priority.INTERACTIVE,
        "request_id": "r-1", "ttl_s": 600.0, "input": b"in", "input_ref": "",
        "input_digest": "d", "key": "", "fingerprint": "f", "max_attempts": 3,
    }  # fmt: skip
    return Submission(**(given | more))


async def submit(store, count=1, **more):
    batch = [a_job(**more) for _ in range(count)]
    assert await store.jobs.submit(batch) == [None] * count
    return [each.id for each in batch]


async def claimed(store, **more):
    """One job, owned by "w"; its claim."""
    [job] = await submit(store, **more)
    [claim] = await store.jobs.claim([job], "w", LEASE_S)
    return claim


def done(claim, **more):
    return Ending(claim.id, claim.attempt, **({"state": State.SUCCEEDED, "result": b"1"} | more))


async def sql(store, statement):
    def work(connection):
        ran = connection.execute(statement)
        return ran.all() if ran.returns_rows else None

    return await store.database.write(work)


async def set_row(store, job, **values):
    """What waiting would do: times are moved, not awaited."""
    await sql(store, update(jobs).where(jobs.c.id == job).values(**values))


async def state(store, job, tenant="acme"):
    return (await store.jobs.get(tenant, job)).state


async def records(store, ids):
    return await asyncio.gather(*(store.jobs.get("acme", job) for job in ids))


async def look(store, limit=100):
    """As the clerk, with queues that hold nothing."""
    return await store.jobs.look(lambda job, at: decide(job, at, EMPTY, 60.0), limit)


async def count_of(store, table):
    return (await sql(store, select(func.count()).select_from(table)))[0][0]
