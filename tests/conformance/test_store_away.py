"""The database dies, is stopped in mid-air, is full: refusals come at once, and it comes back."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter

import asyncpg
import pytest
from sqlalchemy import text

from headrace.errors import Unavailable
from headrace.store import engine
from headrace.store.engine import Database
from headrace.testing.faultproxy import WAYS, BlackHole, FaultProxy
from headrace.testing.house import patience, until

from .stored import LEASE_S, a_job, opened, records, sql, store_on, submit


async def refused_in_s(store):
    began = time.monotonic()
    with pytest.raises(Unavailable) as refusal:
        await store.jobs.submit([a_job()])
    assert refusal.value.code == "storage-unavailable" and refusal.value.status == 503
    return time.monotonic() - began


async def back_in_s(store, within_s):
    began = time.monotonic()
    while True:
        try:
            await submit(store)
            return time.monotonic() - began
        except Unavailable:
            assert time.monotonic() - began < within_s, "not back"
            await asyncio.sleep(0.02)


async def test_a_database_that_dies_and_comes_back(postgres):
    async with opened(await asyncio.to_thread(postgres.database)) as store:
        ids = await submit(store, 20)
        for _ in range(3):
            await asyncio.to_thread(postgres.stop, True)
            try:
                first = await refused_in_s(store)
                at_once = max([await refused_in_s(store) for _ in range(20)])
            finally:
                await asyncio.to_thread(postgres.start)
            assert first < 2.5 and at_once < 0.05
            took = await back_in_s(store, 5.0)
            print(f"first refusal {first:.3f} s, then {at_once:.4f} s, back in {took:.3f} s")
        assert None not in await records(store, ids), "what was committed is there"
        claims = await store.jobs.claim(ids, "w", LEASE_S)
        assert len(claims) == 20


class ComingUp:
    """A server that listens and takes nobody yet, as PostgreSQL does while it recovers."""

    SAYS = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"

    async def __aenter__(self):
        self.asked = 0
        self._server = await asyncio.start_server(self._refuse, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _refuse(self, reader, writer):
        while message := await reader.read(1000):
            if message[4:8] == b"\x04\xd2\x16\x2f":  # may I speak TLS?
                writer.write(b"N")
                continue
            self.asked += 1
            writer.write(b"E" + (len(self.SAYS) + 4).to_bytes(4, "big") + self.SAYS)
            break
        writer.close()

    async def __aexit__(self, *_):
        self._server.close()
        await asyncio.sleep(0)


async def test_a_database_that_is_coming_up():
    """It answers, and says no: that is away, too, to callers and to the probe."""
    async with ComingUp() as server:
        store = store_on(f"postgresql://headrace@127.0.0.1:{server.port}/x", timeout_s=0.5)
        try:
            await refused_in_s(store)
            await until(lambda: server.asked > 2, 3.0, "asked again")
            assert store.database.down and await refused_in_s(store) < 0.05
            assert not store.database._probe.done(), "and goes on asking"
        finally:
            await store.close()


async def test_a_database_that_takes_nobody_for_a_while(postgres):
    async with opened(await asyncio.to_thread(postgres.database), timeout_s=0.5) as store:
        await submit(store)
        name = store.url.rpartition("/")[2]
        other = Database(postgres.url)
        try:
            await admin(other, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await admin(other, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                               f" WHERE datname = '{name}'")  # fmt: skip
            await refused_in_s(store)
            await asyncio.sleep(0.6)  # the probe is refused, too
            assert await refused_in_s(store) < 0.05
            await admin(other, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        finally:
            await other.close()
        await back_in_s(store, 5.0)


@pytest.mark.parametrize("act", ["claim", "cancel"])
async def test_what_was_given_up_ends_at_the_server(postgres, act):
    """The row that it waits for stays locked, and the network is gone: nobody can call it off.
    `claim` goes its way by asyncpg, `cancel` by SQLAlchemy."""
    waiting = text("SELECT count(*) FROM pg_stat_activity"
                   " WHERE datname = current_database() AND wait_event_type = 'Lock'")  # fmt: skip

    async def waits():
        return (await sql(store, waiting))[0][0]

    async with (
        opened(await asyncio.to_thread(postgres.database)) as store,
        FaultProxy("127.0.0.1", postgres.node.port) as proxy,
    ):
        [job] = await submit(store)
        holder = await asyncpg.connect(store.url)
        far = store_on(store.url.replace(f":{postgres.node.port}/", f":{proxy.port}/"))
        try:
            await holder.execute("BEGIN; SELECT 1 FROM jobs FOR UPDATE")
            claim, cancel = far.jobs.claim, far.jobs.cancel
            asking = asyncio.ensure_future(
                claim([job], "w", LEASE_S) if act == "claim" else cancel("acme", job)
            )
            while not await waits():
                assert not asking.done(), asking.result()
            for way in WAYS:
                proxy.add(BlackHole(), way)
            with pytest.raises(Unavailable):
                await asking
            gave_up = time.monotonic()
            while await waits():
                assert time.monotonic() - gave_up < patience()
        finally:
            await far.close()
            await holder.close()


async def admin(database, statement):
    await database.write(lambda connection: connection.execute(text(statement)))


@pytest.fixture
def small_disk(tmp_path):
    """1 MB in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_promises_nothing(small_disk):
    """What was taken is there afterwards, and nothing else; with room again it goes on."""
    async with opened(f"sqlite:///{small_disk}/house.db") as store:
        taken, codes = [], Counter()
        for _ in range(150):
            batch = [a_job(input=os.urandom(8_000)) for _ in range(3)]
            try:
                assert await store.jobs.submit(batch) == [None] * 3
            except Unavailable as refusal:
                codes[refusal.code] += 1
                await asyncio.sleep(0.01)
            else:
                taken += [each.id for each in batch]
        assert taken and codes["insufficient-storage"] > 0, codes
        await until(lambda: not store.database.down, 2.0, "closed: what reads goes on")
        known = {record.id for record in await store.jobs.page("acme", limit=1000)}
        assert known == set(taken)
        subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
        await back_in_s(store, 5.0)


async def test_a_file_that_another_holds_for_long(tmp_path, monkeypatch):
    """A writer who waits for another's transaction waits, and is not refused."""
    async with opened(f"sqlite:///{tmp_path}/house.db") as store, opened(store.url) as other:
        held = asyncio.create_task(other.database.write(lambda _: time.sleep(0.5)))
        await asyncio.sleep(0.1)
        await submit(store)
        assert held.done()


async def test_a_black_hole(postgres):
    """The server is stopped in mid-air: connections hang and are not refused."""
    async with opened(await asyncio.to_thread(postgres.database), timeout_s=0.5) as store:
        await submit(store)
        pids = postgres.node.pids()
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            first = await refused_in_s(store)
            at_once = max([await refused_in_s(store) for _ in range(20)])
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        print(f"first refusal {first:.3f} s, then {at_once:.4f} s")
        assert first < 0.5 + 0.5 and at_once < 0.05
        await back_in_s(store, 5.0)


class Hog:
    """Another process of the house, which has the one writer's place of SQLite."""

    def __init__(self, path):
        self._raw = sqlite3.connect(path, isolation_level=None)

    def __enter__(self):
        self._raw.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(self, *_):
        self._raw.execute("ROLLBACK")


async def test_who_waits_for_the_writer_of_sqlite_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_S", 0.3)
    async with opened(f"sqlite:///{tmp_path}/jobs.db") as store:
        await submit(store)
        with Hog(tmp_path / "jobs.db"):
            took = await refused_in_s(store)
            assert 0.3 <= took < 0.55 * patience(), "once that time, and not twice"
            assert await refused_in_s(store) < 0.05
        await back_in_s(store, 2.0)


async def test_writers_of_a_process_have_their_turn_and_readers_wait_for_none(tmp_path):
    """Not who came last: endings would wait until no more claims come."""
    async with opened(f"sqlite:///{tmp_path}/jobs.db") as store:
        [job] = await submit(store)
        done: list[int] = []

        async def write(number):
            await store.database.write(lambda connection: connection.execute(text("SELECT 1")))
            done.append(number)

        with Hog(tmp_path / "jobs.db"):
            writers = [asyncio.create_task(write(number)) for number in range(12)]
            await asyncio.sleep(0.1)
            assert not done and await records(store, [job]) != [None]
        began = time.monotonic()
        await asyncio.gather(*writers)
        assert done == list(range(12))
        assert time.monotonic() - began < 0.5 * patience(), "asked often, however long it waited"
