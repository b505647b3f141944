"""The tables, as the newest migration leaves them (tests compare the two).

`jobs.due` is the outbox: the time at which somebody must look at the job again. It is written with
the row, so that there is no moment at which a job is committed and its publication is not
(docs/decisions/0013):

    waiting   to be published, or published and not claimed since
    running   the end of the lease
    else      null: nothing is left to do
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("model", String(64), nullable=False),
    Column("state", String(12), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False),
    Column("looks", Integer, nullable=False, server_default="0"),
    Column("request_id", String(64), nullable=False),
    Column("created", Double, nullable=False),
    Column("deadline", Double, nullable=False),
    Column("due", Double),
    Column("not_before", Double, nullable=False, server_default="0"),
    Column("lease_until", Double),
    Column("worker", String(160), nullable=False, server_default=""),
    Column("started", Double),
    Column("finished", Double),
    Column("version", String(160), nullable=False, server_default=""),
    Column("executed_ms", Double, nullable=False, server_default="0"),
    Column("input", LargeBinary),
    Column("input_ref", Text, nullable=False, server_default=""),
    Column("input_digest", String(64), nullable=False),
    Column("result", LargeBinary),
    Column("result_ref", Text, nullable=False, server_default=""),
    Column("problem", LargeBinary),
    Column("key", String(255)),
    Column("fingerprint", String(64), nullable=False, server_default=""),
    #: when the input and when the row with its result are removed; null while the job lives
    Column("input_until", Double),
    Column("row_until", Double),
    UniqueConstraint("tenant", "key", name="jobs_key"),
)
Index("jobs_due", jobs.c.due, sqlite_where=jobs.c.due.is_not(None),
      postgresql_where=jobs.c.due.is_not(None))  # fmt: skip
Index("jobs_list", jobs.c.tenant, jobs.c.id)
Index("jobs_state", jobs.c.state, jobs.c.model)
Index("jobs_input_until", jobs.c.input_until, sqlite_where=jobs.c.input_until.is_not(None),
      postgresql_where=jobs.c.input_until.is_not(None))  # fmt: skip
Index("jobs_row_until", jobs.c.row_until, sqlite_where=jobs.c.row_until.is_not(None),
      postgresql_where=jobs.c.row_until.is_not(None))  # fmt: skip

#: Runs that came to no result.
losses = Table(
    "losses",
    metadata,
    Column("job_id", String(32), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("worker", String(160), nullable=False),
    Column("at", Double, nullable=False),
    Column("reason", Text, nullable=False),
)

#: That something was removed, and nothing of what it was.
removals = Table(
    "removals",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("job_id", String(32), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("what", String(12), nullable=False),
    Column("why", String(12), nullable=False),
    Column("at", Double, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(128), nullable=False, index=True),
    Column("url", Text, nullable=False),
    #: names separated by commas, as "job.succeeded,job.dead"; "*" is all
    Column("events", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    Column("old_secret_until", Double),
    Column("enabled", Boolean, nullable=False),
    Column("created", Double, nullable=False),
    Column("failing_since", Double),
    Column("note", Text, nullable=False, server_default=""),
)

#: The outbox of the webhooks: made in the transaction that ends the job.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("webhook_id", String(32), ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("job_id", String(32), nullable=False),
    Column("event", String(32), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("created", Double, nullable=False),
    #: null: delivered, or given up
    Column("due", Double),
    Column("until", Double, nullable=False),
    Column("state", String(12), nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("claim", Integer, nullable=False, server_default="0"),
    Column("last_status", Integer),
    Column("last_error", Text, nullable=False, server_default=""),
)
Index("deliveries_due", deliveries.c.due, sqlite_where=deliveries.c.due.is_not(None),
      postgresql_where=deliveries.c.due.is_not(None))  # fmt: skip
Index("deliveries_webhook", deliveries.c.webhook_id, deliveries.c.created)
Index("deliveries_hook_due", deliveries.c.webhook_id, deliveries.c.due,
      sqlite_where=deliveries.c.due.is_not(None),
      postgresql_where=deliveries.c.due.is_not(None))  # fmt: skip

#: What came to a model and how it stood, by the minute of Unix time. A null is what nobody saw.
minutes = Table(
    "minutes",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("calls", Double),
    Column("waiting", Double),
    Column("oldest_s", Double),
    Column("busy", Double),
    Column("ready", Double),
    Column("slots", Double),
    Column("open", Double),
    Column("reply_lag_s", Double),
    Column("replies", Double),
)

#: L: from asking for workers to the first answer of one.
scale_starts = Table(
    "scale_starts",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("took_s", Double, nullable=False),
)
Index("scale_starts_model", scale_starts.c.model, scale_starts.c.id)

#: One a minute and model, whoever of two autoscalers comes first. Inputs, clamps, zones: JSON.
decisions = Table(
    "decisions",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("mode", String(12), nullable=False),
    Column("count", Integer, nullable=False),
    Column("asked", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("clamps", Text, nullable=False),
    Column("zones", Text, nullable=False),
    #: a forecast of the greatest calls a minute of [from, to], and what came
    Column("foretold", Double),
    Column("from_minute", BigInteger),
    Column("to_minute", BigInteger),
    Column("came", Double),
    #: "yes", or "no: " and why; "" where whoever decided died before it was done
    Column("applied", Text, nullable=False, server_default=""),
)
Index("decisions_minute", decisions.c.minute)

#: A person's hand. The row is the record of who did it, and is kept after its end.
overrides = Table(
    "overrides",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("kind", String(12), nullable=False),
    Column("count", Integer, nullable=False),
    Column("author", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("cleared_at", Double),
    Column("cleared_by", String(128), nullable=False, server_default=""),
)
Index("overrides_model", overrides.c.model, overrides.c.id)

alarms = Table(
    "alarms",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("name", String(32), nullable=False),
    Column("began", Double, nullable=False),
    Column("ended", Double),
    Column("detail", Text, nullable=False, server_default=""),
)
Index("alarms_model", alarms.c.model, alarms.c.id)
#: One of a name is open at a time, whoever of two autoscalers saw it first.
Index("alarms_open", alarms.c.model, alarms.c.name, unique=True,
      sqlite_where=alarms.c.ended.is_(None),
      postgresql_where=alarms.c.ended.is_(None))  # fmt: skip

#: Versions that were decided to be run, or were.
deployments = Table(
    "deployments",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(80), nullable=False),
    Column("share", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("since", Double, nullable=False),
    Column("until", Double),
    Column("count", Integer, nullable=False, server_default="0"),
)

#: Who gets which calls: what gateways follow that hear nobody. `route`: JSON.
routes = Table(
    "routes",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("route", Text, nullable=False),
)

#: Whoever changes one names its revision: of two deploy processes one is refused. Figures: JSON.
rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("from_version", Integer, nullable=False),
    Column("to_version", Integer, nullable=False),
    Column("digest", String(80), nullable=False),
    Column("strategy", String(12), nullable=False),
    Column("state", String(12), nullable=False),
    Column("step", Integer, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("author", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("started", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("since", Double, nullable=False),
    Column("ended", Double),
    Column("why", Text, nullable=False, server_default=""),
    Column("figures", Text, nullable=False),
    Column("named", Integer),
    Column("barred", Boolean, nullable=False),
)
Index("rollouts_model", rollouts.c.model, rollouts.c.id)
#: One of a model is open at a time.
Index("rollouts_open", rollouts.c.model, unique=True,
      sqlite_where=rollouts.c.ended.is_(None),
      postgresql_where=rollouts.c.ended.is_(None))  # fmt: skip

rollout_events = Table(
    "rollout_events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("rollout", String(32), nullable=False),
    Column("model", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("author", String(200), nullable=False),
    Column("text", Text, nullable=False),
    Column("figures", Text, nullable=False),
)
Index("rollout_events_rollout", rollout_events.c.rollout, rollout_events.c.id)

#: What a person asked. The row is the record of who did it, and is kept.
rollout_orders = Table(
    "rollout_orders",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("kind", String(12), nullable=False),
    Column("version", Integer),
    Column("strategy", String(12), nullable=False, server_default=""),
    Column("author", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Double, nullable=False),
    #: null: nobody has looked at it yet
    Column("done", Double),
    #: "yes", or "no: " and why
    Column("outcome", Text, nullable=False, server_default=""),
)
Index("rollout_orders_open", rollout_orders.c.done, sqlite_where=rollout_orders.c.done.is_(None),
      postgresql_where=rollout_orders.c.done.is_(None))  # fmt: skip

#: Who moved an alias: lines are added, never changed (`registry.audit`). `promotion`: one id for
#: what was asked and what came of it.
promotions = Table(
    "promotions",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("promotion", String(32), nullable=False),
    Column("at", Double, nullable=False),
    Column("outcome", String(12), nullable=False),
    Column("model", String(64), nullable=False),
    Column("alias", String(64), nullable=False),
    Column("to", Integer),
    Column("before", Integer),
    Column("digest", String(80), nullable=False),
    Column("author", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
Index("promotions_model", promotions.c.model, promotions.c.id)

#: A model's runs that its policy asked for (`headrace.retraining`): one for each wish.
retrainings = Table(
    "retrainings",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("at", Double, nullable=False),
    Column("reason", Text, nullable=False),
    Column("run", String(64), nullable=False),
    Column("before", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    #: null: it runs, or waits for it
    Column("ended", Double),
    Column("took_s", Double, nullable=False),
    Column("version", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
)
Index("retrainings_at", retrainings.c.model, retrainings.c.at)

#: What was right, told later (`headrace.monitoring`): one for each call, by the request's or the
#: job's id.
labels = Table(
    "labels",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    #: JSON: a number or a text
    Column("label", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("received", Double, nullable=False),
)
Index("labels_received", labels.c.model, labels.c.received)
