"""The migrations lead to the tables that the code knows."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import headrace.store
from headrace.store.engine import Database
from headrace.store.migrate import HEAD, migrate, revision
from headrace.store.tables import metadata

FOLDER = Path(headrace.store.__file__).parent / "migrations"


def test_the_newest_revision_is_the_one_the_code_expects():
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [HEAD], "one head, and migrate.py knows it"
    names = [each.revision for each in script.walk_revisions()]
    assert names == sorted(names, reverse=True), "compared as text: 0002 after 0001"


async def test_an_empty_database_comes_to_the_tables(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/deep/er/house.db")
    try:
        assert await database.read(revision) == ""
        assert await migrate(database) is True
        assert await migrate(database) is False, "nothing was left to do"
        assert await database.read(revision) == HEAD

        def difference(connection):
            return compare_metadata(MigrationContext.configure(connection), metadata)

        assert await database.read(difference) == []
    finally:
        await database.close()


async def test_a_newer_schema_is_left_alone(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/house.db")
    try:
        await migrate(database)
        newer = "UPDATE alembic_version SET version_num = '9999'"
        await database.write(lambda connection: connection.exec_driver_sql(newer).rowcount)
        assert await migrate(database) is False
    finally:
        await database.close()
