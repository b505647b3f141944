"""Alembic runs this; the connection comes from `headrace.store.migrate`."""

from alembic import context

from headrace.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
