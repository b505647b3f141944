"""Webhooks in the database: where a tenant wants to be told of the ends of its jobs.

A secret leaves this file when it is made, and with each delivery to be signed (see `deliveries`).
"""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, update

from headrace.errors import Conflict
from headrace.records import new_id
from headrace.signatures import new_secret
from headrace.store.engine import AnyRow, Database, now
from headrace.store.tables import deliveries, webhooks

TEST_EVENT = "webhook.test"
MOST = 20  # webhooks of one tenant
OVERLAP_S = 86_400.0  # after a rotation both secrets sign


class Webhook(msgspec.Struct, frozen=True):
    """Without its secret. `failing_since`: Unix time from which on no delivery was taken."""

    id: str
    url: str
    events: list[str]
    enabled: bool
    created: float
    failing_since: float | None
    note: str
    old_secret_until: float | None


class Delivery(msgspec.Struct, frozen=True):
    """One event on its way to one webhook. `state`: waiting, delivered, failed (given up) or
    dropped (the webhook was switched off); `due`: when it is tried next."""

    id: str
    event: str
    job_id: str
    state: str
    tries: int
    created: float
    due: float | None
    last_status: int | None
    last_error: str


class Webhooks:
    def __init__(self, database: Database, retry_s: float = 72 * 3600.0) -> None:
        self._database, self._retry_s = database, retry_s

    async def add(
        self, tenant: str, url: str, events: list[str], note: str = ""
    ) -> tuple[Webhook, str]:
        """The webhook and its secret, which nobody is shown again. The URL is the caller's to judge
        (see `egress`). Raises Conflict `too-many-webhooks`."""
        secret, hook_id = new_secret(), new_id()

        def work(connection: Connection) -> AnyRow:
            count = select(func.count()).where(webhooks.c.tenant == tenant)
            if connection.execute(count).scalar_one() >= MOST:
                raise Conflict(f"there are {MOST} webhooks: remove one", code="too-many-webhooks")
            connection.execute(webhooks.insert().values(
                id=hook_id, tenant=tenant, url=url, events=",".join(events), secret=secret,
                enabled=True, created=now(), note=note,
            ))  # fmt: skip
            return connection.execute(_SHOWN.where(_mine(tenant, hook_id))).one()

        return _webhook(await self._database.write(work)), secret

    async def all(self, tenant: str) -> list[Webhook]:
        """Oldest first."""
        query = _SHOWN.where(webhooks.c.tenant == tenant).order_by(webhooks.c.id)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_webhook(row) for row in rows]

    async def get(self, tenant: str, hook_id: str) -> Webhook | None:
        query = _SHOWN.where(_mine(tenant, hook_id))
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return _webhook(row) if row else None

    async def rotate(
        self, tenant: str, hook_id: str, overlap_s: float = OVERLAP_S
    ) -> tuple[Webhook, str] | None:
        """A new secret; deliveries are signed with the old one, too, for `overlap_s`. Of two
        rotations in that time the older secret is forgotten at once."""
        secret = new_secret()

        def work(connection: Connection) -> AnyRow | None:
            connection.execute(
                update(webhooks)
                .where(_mine(tenant, hook_id))
                .values(old_secret=webhooks.c.secret, old_secret_until=now() + overlap_s,
                        secret=secret)
            )  # fmt: skip
            return connection.execute(_SHOWN.where(_mine(tenant, hook_id))).first()

        row = await self._database.write(work)
        return (_webhook(row), secret) if row else None

    async def delete(self, tenant: str, hook_id: str) -> bool:
        """With its deliveries."""
        statement = delete(webhooks).where(_mine(tenant, hook_id))
        done = await self._database.write(lambda connection: connection.execute(statement).rowcount)
        return bool(done)

    async def test(self, tenant: str, hook_id: str) -> str | None:
        """Puts a test event into the outbox; gives its id. Raises Conflict `webhook-disabled`."""

        def work(connection: Connection) -> str | None:
            hook = connection.execute(_SHOWN.where(_mine(tenant, hook_id))).first()
            if hook is None:
                return None
            if not hook.enabled:
                raise Conflict("the webhook is switched off", code="webhook-disabled")
            at: float = connection.execute(select(now())).scalar_one()
            event_id = f"evt_{new_id()}"
            payload = {"type": TEST_EVENT, "timestamp": at, "data": {"webhook": hook_id}}
            connection.execute(deliveries.insert().values(
                id=event_id, webhook_id=hook_id, tenant=tenant, job_id="", event=TEST_EVENT,
                payload=msgspec.json.encode(payload), created=at, due=at,
                until=at + self._retry_s, state="waiting",
            ))  # fmt: skip
            return event_id

        return await self._database.write(work)

    async def deliveries(
        self, tenant: str, hook_id: str, *, before: str = "", limit: int = 50
    ) -> list[Delivery]:
        """Newest first; `before`: the id of the last one of the page before."""
        query = select(*(deliveries.c[name] for name in Delivery.__struct_fields__)).where(
            deliveries.c.tenant == tenant, deliveries.c.webhook_id == hook_id
        )
        if before:
            query = query.where(deliveries.c.id < before)
        query = query.order_by(deliveries.c.id.desc()).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [Delivery(*row) for row in rows]


def switch_off(connection: Connection, hooks: list[str], note: str) -> None:
    """In the caller's transaction. Nothing is sent there any more, and what waits for them would
    else be due for ever."""
    done = connection.execute(
        update(webhooks).where(webhooks.c.id.in_(hooks), webhooks.c.enabled.is_(True))
        .values(enabled=False, note=note).returning(webhooks.c.id)
    ).scalars().all()  # fmt: skip
    connection.execute(
        update(deliveries)
        .where(deliveries.c.webhook_id.in_(done), deliveries.c.due.is_not(None))
        .values(state="dropped", due=None)
    )


_SHOWN = select(*(webhooks.c[name] for name in Webhook.__struct_fields__))


def _mine(tenant: str, hook_id: str) -> ColumnElement[bool]:
    return and_(webhooks.c.tenant == tenant, webhooks.c.id == hook_id)


def _webhook(row: AnyRow) -> Webhook:
    return Webhook(row.id, row.url, row.events.split(","), row.enabled, row.created,
                   row.failing_since, row.note, row.old_secret_until)  # fmt: skip
