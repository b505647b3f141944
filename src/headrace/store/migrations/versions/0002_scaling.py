"""minutes, start-up times, decisions, overrides and alarms of the autoscaler"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "minutes",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("minute", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("calls", sa.Double(), nullable=True),
        sa.Column("waiting", sa.Double(), nullable=True),
        sa.Column("oldest_s", sa.Double(), nullable=True),
        sa.Column("busy", sa.Double(), nullable=True),
        sa.Column("ready", sa.Double(), nullable=True),
        sa.Column("slots", sa.Double(), nullable=True),
        sa.Column("open", sa.Double(), nullable=True),
        sa.Column("reply_lag_s", sa.Double(), nullable=True),
        sa.Column("replies", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("model", "minute"),
    )
    op.create_table(
        "scale_starts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("took_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("scale_starts_model", "scale_starts", ["model", "id"], unique=False)
    op.create_table(
        "decisions",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("minute", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("mode", sa.String(length=12), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("clamps", sa.Text(), nullable=False),
        sa.Column("zones", sa.Text(), nullable=False),
        sa.Column("foretold", sa.Double(), nullable=True),
        sa.Column("from_minute", sa.BigInteger(), nullable=True),
        sa.Column("to_minute", sa.BigInteger(), nullable=True),
        sa.Column("came", sa.Double(), nullable=True),
        sa.Column("applied", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("model", "minute"),
    )
    op.create_index("decisions_minute", "decisions", ["minute"], unique=False)
    op.create_table(
        "overrides",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("cleared_at", sa.Double(), nullable=True),
        sa.Column("cleared_by", sa.String(length=128), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("overrides_model", "overrides", ["model", "id"], unique=False)
    op.create_table(
        "alarms",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("began", sa.Double(), nullable=False),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("alarms_model", "alarms", ["model", "id"], unique=False)
    op.create_index(
        "alarms_open",
        "alarms",
        ["model", "name"],
        unique=True,
        sqlite_where=sa.text("ended IS NULL"),
        postgresql_where=sa.text("ended IS NULL"),
    )
