"""The schema over time, on both databases: from nothing, by two clerks at once, and ahead of the
code that still runs on it."""

import asyncio
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

import headrace.store
from headrace.records import State
from headrace.store.engine import Database
from headrace.store.migrate import HEAD, migrate, revision
from headrace.store.tables import metadata

from .stored import LEASE_S, claimed, done, look, opened, set_row, store_on, submit

MIGRATIONS = Path(headrace.store.__file__).parent / "migrations"
#: What a later release may do while this one still runs: add what may be empty.
FUTURE = """
    import sqlalchemy as sa
    from alembic import op

    revision = "9001"
    down_revision = "{head}"


    def upgrade():
        with op.batch_alter_table("jobs") as batch_op:
            batch_op.add_column(sa.Column("region", sa.String(20), nullable=True))
            batch_op.add_column(sa.Column("cost", sa.Double(), nullable=False, server_default="0"))
        op.create_table("regions", sa.Column("id", sa.Integer(), primary_key=True))
"""


async def test_nothing_is_missing_and_nothing_too_much(url):
    async with opened(url) as store:

        def difference(connection):
            return compare_metadata(MigrationContext.configure(connection), metadata)

        assert await store.database.write(difference) == []


async def test_two_processes_migrate_at_once(url):
    """Both come up, one does the work."""
    script = textwrap.dedent("""
        import asyncio, sys
        from headrace.errors import Unavailable
        from headrace.store.engine import Database
        from headrace.store.migrate import migrate

        async def main():
            database = Database(sys.argv[1], timeout_s=30.0)
            while True:
                try:
                    print(await migrate(database))
                    break
                except Unavailable:  # as a clerk does: again
                    await asyncio.sleep(0.1)
            await database.close()

        asyncio.run(main())
    """)
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, url, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    said = [(await process.communicate())[0].split()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(said) == [b"False", b"False", b"True"]


@pytest.mark.parametrize("statements", [3, 12, 30])
async def test_who_dies_in_the_middle_leaves_nothing_half_made(url, statements):
    script = textwrap.dedent("""
        import asyncio, os, sys
        from sqlalchemy import Engine, event
        from headrace.store.engine import Database
        from headrace.store.migrate import migrate

        made = 0

        @event.listens_for(Engine, "after_cursor_execute")
        def count(connection, cursor, statement, *_):
            global made
            made += statement.lstrip().startswith(("CREATE", "ALTER"))
            if made == int(sys.argv[2]):
                os._exit(9)

        asyncio.run(migrate(Database(sys.argv[1])))
    """)
    died = await asyncio.create_subprocess_exec(sys.executable, "-c", script, url, str(statements))
    assert await died.wait() == 9

    def difference(connection):
        return compare_metadata(MigrationContext.configure(connection), metadata)

    database = Database(url)
    try:
        assert await database.read(revision) == ""
        assert await migrate(database)
        assert await database.write(difference) == []
    finally:
        await database.close()


async def test_before_the_schema_is_there_it_is_away_and_not_broken(url):
    store = store_on(url)
    try:
        with pytest.raises(Exception, match="cannot be reached"):
            await submit(store)
        await migrate_soon(store)
        assert await submit(store)
    finally:
        await store.close()


async def migrate_soon(store):
    """As the clerk does: again, while the circuit is open."""
    async with asyncio.timeout(5):
        while True:
            try:
                await migrate(store.database)
                return
            except Exception:
                await asyncio.sleep(0.05)


async def test_old_code_on_a_new_schema(url, tmp_path):
    """A release ahead has migrated already: this one submits, claims, ends and looks as before."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    (folder / "versions" / "9001_future.py").write_text(textwrap.dedent(FUTURE.format(head=HEAD)))
    async with opened(url) as store:
        before = await claimed(store)

        def upgrade(connection):
            config = Config()
            config.set_main_option("script_location", str(folder))
            config.set_main_option("path_separator", "os")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

        await store.database.write(upgrade)
        assert await store.database.read(revision) == "9001"
        assert await migrate(store.database) is False
        assert await store.jobs.finish([done(before)]) == {before.id}
        after = await claimed(store)
        await set_row(store, after.id, due=1.0)
        assert [posting.id for posting in (await look(store)).postings] == [after.id]
        [again] = await store.jobs.claim([after.id], "w", LEASE_S)
        assert await store.jobs.finish([done(again)]) == {after.id}
        records = await store.jobs.page("acme")
        assert [record.state for record in records] == [State.SUCCEEDED] * 2
