"""The outbox of the webhooks: claimed by a clerk, sent, and what came of it written.

    waiting --claim: due = end of the lease--> sent --> delivered
       ^                                        |-----> waiting    due again later
       |                                        |-----> failed     given up: too old
       +---- lease over: the clerk died --------+-----> dropped    410: the webhook is switched off

`claim` counts claims and is the fencing token: who was too slow to write is refused, and the event
is sent twice, under the same id. All times are of the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, select, update

from headrace.store.engine import Database, now
from headrace.store.tables import deliveries, webhooks
from headrace.store.webhooks import switch_off

KEEP_S = 7 * 86_400.0  # after its end a delivery is shown to who asks for so long
MOST_HOOKS = 32  # in one claim
GONE = 410


class Send(NamedTuple):
    """A delivery that this clerk owns until its lease is over. `at`: the time of the claim;
    `secrets`: those that are valid, the newest first; `tries`: those before."""

    id: str
    claim: int
    webhook_id: str
    url: str
    secrets: tuple[str, ...]
    payload: bytes
    at: float
    tries: int


class Sent(NamedTuple):
    """What came of it. `status` is None where there was no answer; `wait_s`: until the next try."""

    id: str
    claim: int
    status: int | None
    error: str
    wait_s: float

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Deliveries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, flying: Mapping[str, int], at_once: int, lease_s: float) -> list[Send]:
        """What is due, at most `at_once` to one webhook with those that are `flying` by this
        clerk's doing, and one to a webhook that fails: one customer's backlog is not in front of
        another's event."""
        due = select(deliveries.c.id).where(deliveries.c.due <= now()).limit(1)
        if not await self._database.read(lambda connection: connection.execute(due).first()):
            return []
        return await self._database.write(
            lambda connection: self._claim(connection, flying, at_once, lease_s)
        )

    @staticmethod
    def _claim(
        connection: Connection, flying: Mapping[str, int], at_once: int, lease_s: float
    ) -> list[Send]:
        at: float = connection.execute(select(now())).scalar_one()
        full = [hook for hook, count in flying.items() if count >= at_once]
        claimed: list[Send] = []
        for hook in connection.execute(_due_hooks(at, full)).all():
            room = (1 if hook.failing_since else at_once) - flying.get(hook.id, 0)
            old = hook.old_secret if (hook.old_secret_until or 0) > at else None
            secrets = (hook.secret, old) if old else (hook.secret,)
            rows = connection.execute(
                _DUE.where(deliveries.c.webhook_id == hook.id, deliveries.c.due <= at)
                .order_by(deliveries.c.due)
                .limit(max(0, room))
                .with_for_update(skip_locked=True)
            ).all()
            claimed += [
                Send(r.id, r.claim + 1, hook.id, hook.url, secrets, r.payload, at, r.tries)
                for r in rows
            ]
        if claimed:
            connection.execute(
                update(deliveries)
                .where(deliveries.c.id.in_([send.id for send in claimed]))
                .values(due=at + lease_s, claim=deliveries.c.claim + 1)
            )
        return claimed

    async def record(self, outcomes: list[Sent]) -> set[str]:
        """Gives the ids that were written; the others were not this clerk's any more."""
        return await self._database.write(lambda connection: self._record(connection, outcomes))

    @staticmethod
    def _record(connection: Connection, outcomes: list[Sent]) -> set[str]:
        at: float = connection.execute(select(now())).scalar_one()
        by_id = {sent.id: sent for sent in outcomes}
        rows = connection.execute(
            _SENT.where(deliveries.c.id.in_(list(by_id)), deliveries.c.due.is_not(None))
            .order_by(deliveries.c.id)
            .with_for_update()
        ).all()
        mine = [row for row in rows if row.claim == by_id[row.id].claim]
        if not mine:
            return set()
        connection.execute(_WRITE, [_values(by_id[row.id], row.until, at) for row in mine])
        hooks = {row.webhook_id: by_id[row.id] for row in mine}
        _note(connection, [hook for hook, sent in hooks.items() if sent.taken], None)
        _note(connection, [hook for hook, sent in hooks.items() if not sent.taken], at)
        gone = {row.webhook_id for row in mine if by_id[row.id].status == GONE}
        if gone:
            switch_off(connection, sorted(gone), "answered with 410 Gone")
        return {row.id for row in mine}

    async def sweep(self) -> None:
        """Forgets what ended long ago, and what came for a webhook as it was switched off."""
        off = select(webhooks.c.id).where(webhooks.c.enabled.is_(False))
        late = (
            update(deliveries)
            .where(deliveries.c.due.is_not(None), deliveries.c.webhook_id.in_(off))
            .values(state="dropped", due=None)
        )
        old = delete(deliveries).where(
            deliveries.c.due.is_(None), deliveries.c.until < now() - KEEP_S
        )

        def work(connection: Connection) -> None:
            connection.execute(late)
            connection.execute(old)

        await self._database.write(work)


def _due_hooks(at: float, full: list[str]) -> Any:
    """Webhooks that something is due for, who has waited longest first."""
    oldest = (
        select(func.min(deliveries.c.due))
        .where(deliveries.c.webhook_id == webhooks.c.id, deliveries.c.due <= at)
        .scalar_subquery()
    )
    hooks = (
        select(
            webhooks.c.id, webhooks.c.url, webhooks.c.secret, webhooks.c.old_secret,
            webhooks.c.old_secret_until, webhooks.c.failing_since, oldest.label("oldest"),
        )
        .where(webhooks.c.enabled.is_(True), webhooks.c.id.not_in(full))
        .subquery()
    )  # fmt: skip
    return (
        select(hooks).where(hooks.c.oldest.is_not(None)).order_by(hooks.c.oldest).limit(MOST_HOOKS)
    )


def _values(sent: Sent, until: float, at: float) -> dict[str, Any]:
    due: float | None = None
    if sent.taken:
        state = "delivered"
    elif sent.status == GONE:
        state = "dropped"
    elif at >= until:
        state = "failed"
    else:
        state, due = "waiting", min(at + sent.wait_s, until)  # once more at the very end
    return {"b_id": sent.id, "b_state": state, "b_due": due, "b_status": sent.status,
            "b_error": sent.error}  # fmt: skip


def _note(connection: Connection, hooks: list[str], failing_since: float | None) -> None:
    """Since when nothing was taken; writes only where that changes."""
    if hooks:
        now_so = webhooks.c.failing_since
        changes: ColumnElement[bool] = (
            now_so.is_(None) if failing_since is not None else now_so.is_not(None)
        )
        connection.execute(
            update(webhooks)
            .where(webhooks.c.id.in_(sorted(hooks)), changes)
            .values(failing_since=failing_since)
        )


_DUE = select(deliveries.c.id, deliveries.c.claim, deliveries.c.payload, deliveries.c.tries)
_SENT = select(
    deliveries.c.id, deliveries.c.claim, deliveries.c.webhook_id, deliveries.c.until
)  # fmt: skip
_WRITE = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("b_id"))
    .values(state=bindparam("b_state"), due=bindparam("b_due"), last_status=bindparam("b_status"),
            last_error=bindparam("b_error"), tries=deliveries.c.tries + 1)
)  # fmt: skip
