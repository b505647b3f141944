"""Which versions are run, in the database: deployments, routes, rollouts, orders, promotions.

Two deploy processes may run. Whoever changes a rollout names the revision that it saw: one of two
wins, and all that belongs to the change (route, deployments, events) is written with it, or nothing
is. Times are given, in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from headrace.deployments import Deployment, Rollout, Route
from headrace.records import new_id
from headrace.registry.audit import Entry
from headrace.store.engine import Database
from headrace.store.tables import (
    decisions,
    deployments,
    promotions,
    rollout_events,
    rollout_orders,
    rollouts,
    routes,
)

OrderKind = Literal["start", "pause", "resume", "promote", "rollback"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What befell a rollout, or was asked of it."""

    rollout: str
    model: str
    at: float
    kind: str  # a state, or what a person asked
    author: str
    text: str
    figures: dict[str, Any] = {}
    id: int = 0  # given by the database


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked of a model's rollout."""

    id: str
    model: str
    kind: OrderKind
    #: Of `start`: None: as the alias says; strategy "": the settings'.
    version: int | None = None
    strategy: str = ""
    author: str
    reason: str
    at: float
    done: float | None = None
    #: "yes", or "no: " and why; "" while nobody has looked at it.
    outcome: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is written together. A rollout of revision 0 is new; another is as it was read."""

    model: str
    rollout: Rollout | None = None
    route: Route | None = None
    deployments: Sequence[Deployment] = ()
    events: Sequence[Event] = ()


class Standing(NamedTuple):
    """One model, of one moment."""

    route: Route | None
    deployments: dict[int, Deployment]
    #: The open one; else None.
    rollout: Rollout | None
    #: The last one that is over.
    last: Rollout | None
    barred: list[Rollout]
    #: Not yet looked at.
    orders: list[Order]
    #: Workers that an autoscaler which acts wanted last, since the open rollout began.
    sized: int | None = None


class _Lost(Exception):
    """Another was first: nothing of it is written."""


class Deploying:
    """Also the audit of promotions (`registry.audit.Audit`), but that it raises Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- what runs -----------------------------------------------------------------------------

    async def deployments(self, model: str = "") -> list[Deployment]:
        """By model and version, those that are over included."""
        query = _SHOWN[Deployment].order_by(deployments.c.model, deployments.c.version)
        return await self._all(
            Deployment, query.where(deployments.c.model == model) if model else query
        )

    async def digest(self, model: str, version: int) -> str:
        """The one that was decided; "" where that version was not."""
        query = select(deployments.c.digest).where(
            deployments.c.model == model, deployments.c.version == version
        )
        return await self._database.read(lambda connection: connection.scalar(query)) or ""

    async def routes(self) -> list[Route]:
        query = select(routes.c.route).order_by(routes.c.model)
        texts = await self._database.read(lambda connection: connection.scalars(query).all())
        return [msgspec.json.decode(text, type=Route) for text in texts]

    async def route(self, model: str) -> Route | None:
        query = select(routes.c.route).where(routes.c.model == model)
        text = await self._database.read(lambda connection: connection.scalar(query))
        return msgspec.json.decode(text, type=Route) if text else None

    async def stable(self, model: str) -> int | None:
        """The version that would have the calls if nothing were rolled out; None: nothing is."""
        route = await self.route(model)
        return route.stable if route else None

    async def standing(self, model: str) -> Standing:
        """All that a decision needs to know, in one go."""
        of_it = rollouts.c.model == model
        newest = rollouts.c.id.desc()
        own = _SHOWN[Deployment].where(deployments.c.model == model)
        open_ = _SHOWN[Rollout].where(of_it, rollouts.c.ended.is_(None))
        last = _SHOWN[Rollout].where(of_it, rollouts.c.ended.is_not(None))
        barred = _SHOWN[Rollout].where(of_it, rollouts.c.barred)
        orders = _SHOWN[Order].where(
            rollout_orders.c.model == model, rollout_orders.c.done.is_(None)
        )
        sized = (
            select(decisions.c.count)
            .where(decisions.c.model == model, decisions.c.mode == "act")
            .order_by(decisions.c.minute.desc())
            .limit(1)
        )

        def work(connection: Connection) -> Standing:
            def all_of(kind: Any, query: Any) -> list[Any]:
                return [_read(kind, row) for row in connection.execute(query)]

            route = connection.scalar(select(routes.c.route).where(routes.c.model == model))
            rollout: Rollout | None = next(iter(all_of(Rollout, open_)), None)
            since = decisions.c.at >= (rollout.started if rollout else 0.0)
            return Standing(
                msgspec.json.decode(route, type=Route) if route else None,
                {each.version: each for each in all_of(Deployment, own)},
                rollout,
                next(iter(all_of(Rollout, last.order_by(newest).limit(1))), None),
                all_of(Rollout, barred.order_by(newest)),
                all_of(Order, orders.order_by(rollout_orders.c.id)),
                connection.scalar(sized.where(since)),
            )

        return await self._database.read(work)

    # -- rollouts ------------------------------------------------------------------------------

    async def open_rollout(self, model: str) -> Rollout | None:
        query = _SHOWN[Rollout].where(rollouts.c.model == model, rollouts.c.ended.is_(None))
        found = await self._all(Rollout, query)
        return found[0] if found else None

    async def rollouts(self, model: str = "", limit: int = 50, before: str = "") -> list[Rollout]:
        """Newest first; of all models where none is named. `before`: the id of the last one of the
        page before."""
        query = _SHOWN[Rollout]
        if model:
            query = query.where(rollouts.c.model == model)
        if before:
            query = query.where(rollouts.c.id < before)
        return await self._all(Rollout, query.order_by(rollouts.c.id.desc()).limit(limit))

    async def barred(self, model: str) -> list[Rollout]:
        """Those whose version is not to be tried again by itself."""
        query = _SHOWN[Rollout].where(rollouts.c.model == model, rollouts.c.barred)
        return await self._all(Rollout, query.order_by(rollouts.c.id))

    async def rollout(self, rollout_id: str) -> Rollout | None:
        found = await self._all(Rollout, _SHOWN[Rollout].where(rollouts.c.id == rollout_id))
        return found[0] if found else None

    async def events(self, rollout_id: str) -> list[Event]:
        """Oldest first."""
        query = _SHOWN[Event].where(rollout_events.c.rollout == rollout_id)
        return await self._all(Event, query.order_by(rollout_events.c.id))

    async def commit(self, change: Change) -> bool:
        """All of it, or False: another was first. Without a rollout it is a first placement, and
        is refused where the model has a route."""

        def work(connection: Connection) -> None:
            if change.rollout is not None:
                _put_rollout(connection, change.rollout)
            if change.route is not None:
                _put_route(connection, change.route, first=change.rollout is None)
            for each in change.deployments:
                connection.execute(_PUT_DEPLOYMENT[connection.dialect.name], _row(each))
            for event in change.events:
                connection.execute(rollout_events.insert().values(_row(event)))

        try:
            await self._database.write(work)
        except _Lost:
            return False
        return True

    async def change(self, seen: Deployment, now: Deployment) -> bool:
        """One deployment by itself; False where it is no longer as it was seen."""
        same = (
            deployments.c.model == seen.model,
            deployments.c.version == seen.version,
            deployments.c.state == seen.state,
            deployments.c.since == seen.since,
        )
        put = update(deployments).where(*same).values(_row(now))
        return bool(await self._database.write(lambda connection: connection.execute(put).rowcount))

    async def unbar(self, rollout_id: str, at: float) -> None:
        """The alias was moved away from its version."""
        values = {"barred": False, "updated": at}
        free = update(rollouts).where(rollouts.c.id == rollout_id).values(values)
        await self._database.write(lambda connection: connection.execute(free))

    async def name(self, rollout_id: str, version: int | None, at: float) -> None:
        """What the alias names by now, of a rollout that is over and that a person started."""
        values = {"named": version, "updated": at}
        named = update(rollouts).where(rollouts.c.id == rollout_id).values(values)
        await self._database.write(lambda connection: connection.execute(named))

    # -- orders --------------------------------------------------------------------------------

    async def order(
        self,
        model: str,
        kind: OrderKind,
        *,
        author: str,
        reason: str,
        at: float,
        version: int | None = None,
        strategy: str = "",
    ) -> Order:
        """Asked for; who deploys sees to it."""
        asked = Order(
            id=new_id(), model=model, kind=kind, version=version, strategy=strategy,
            author=author, reason=reason, at=at,
        )  # fmt: skip
        row = rollout_orders.insert().values(_row(asked))
        await self._database.write(lambda connection: connection.execute(row))
        return asked

    async def orders_open(self, model: str = "") -> list[Order]:
        """Those that nobody has looked at yet, oldest first."""
        query = _SHOWN[Order].where(rollout_orders.c.done.is_(None))
        if model:
            query = query.where(rollout_orders.c.model == model)
        return await self._all(Order, query.order_by(rollout_orders.c.id))

    async def orders(self, model: str, limit: int = 50) -> list[Order]:
        """All that ever were, newest first."""
        query = _SHOWN[Order].where(rollout_orders.c.model == model)
        return await self._all(Order, query.order_by(rollout_orders.c.id.desc()).limit(limit))

    async def find_order(self, order_id: str) -> Order | None:
        found = await self._all(Order, _SHOWN[Order].where(rollout_orders.c.id == order_id))
        return found[0] if found else None

    async def finish_order(self, order_id: str, *, outcome: str, at: float) -> bool:
        """False where another has."""
        end = (
            update(rollout_orders)
            .where(rollout_orders.c.id == order_id, rollout_orders.c.done.is_(None))
            .values(done=at, outcome=outcome)
        )
        return bool(await self._database.write(lambda connection: connection.execute(end).rowcount))

    # -- who moved an alias --------------------------------------------------------------------

    async def append(self, entry: Entry) -> None:
        """Raises Unavailable."""
        values = msgspec.structs.asdict(entry)
        values["promotion"] = values.pop("id")
        row = promotions.insert().values(values)
        await self._database.write(lambda connection: connection.execute(row))

    async def entries(self, model: str = "", limit: int = 100) -> list[Entry]:
        """The newest first; of one model where it is named. Raises Unavailable."""
        names = [name for name in Entry.__struct_fields__ if name != "id"]
        query = select(promotions.c.promotion.label("id"), *(promotions.c[name] for name in names))
        if model:
            query = query.where(promotions.c.model == model)
        return await self._all(Entry, query.order_by(promotions.c.id.desc()).limit(limit))

    # -- the end -------------------------------------------------------------------------------

    async def remove_old(self, before: float) -> None:
        """Rollouts, with their events, and orders that were over before that time. Promotions are
        kept, and what still bars a version."""
        over = (rollouts.c.ended < before) & ~rollouts.c.barred

        def work(connection: Connection) -> None:
            of_them = select(rollouts.c.id).where(over)
            connection.execute(delete(rollout_events).where(rollout_events.c.rollout.in_(of_them)))
            connection.execute(delete(rollouts).where(over))
            connection.execute(delete(rollout_orders).where(rollout_orders.c.done < before))

        await self._database.write(work)

    async def _all(self, kind: Any, query: Any) -> list[Any]:
        return await self._database.read(
            lambda connection: [_read(kind, row) for row in connection.execute(query)]
        )


def _put_rollout(connection: Connection, rollout: Rollout) -> None:
    values = _row(rollout) | {"revision": rollout.revision + 1}
    if rollout.revision == 0:
        insert = _INSERT[connection.dialect.name](rollouts).values(values)
        done = connection.execute(insert.on_conflict_do_nothing())
    else:
        same = (rollouts.c.id == rollout.id, rollouts.c.revision == rollout.revision)
        done = connection.execute(update(rollouts).where(*same).values(values))
    if not done.rowcount:
        raise _Lost


def _put_route(connection: Connection, route: Route, *, first: bool) -> None:
    values = {
        "model": route.model,
        "revision": route.revision,
        "route": msgspec.json.encode(route).decode(),
    }
    insert = _INSERT[connection.dialect.name](routes).values(values)
    if first:
        insert = insert.on_conflict_do_nothing()
    else:
        insert = insert.on_conflict_do_update(
            index_elements=["model"], set_=values, where=routes.c.revision < route.revision
        )
    if not connection.execute(insert).rowcount:
        raise _Lost


def _row(struct: msgspec.Struct) -> dict[str, Any]:
    values = msgspec.structs.asdict(struct)
    if "figures" in values:
        values["figures"] = msgspec.json.encode(values["figures"]).decode()
    if isinstance(struct, Event):
        del values["id"]
    return values


def _read(kind: type[msgspec.Struct], row: Any) -> Any:
    values = dict(row._mapping)
    if "figures" in values:
        values["figures"] = msgspec.json.decode(values["figures"])
    return kind(**values)


def _put_deployment(dialect: Any) -> Any:
    insert = dialect.insert(deployments)
    more = [c.name for c in deployments.c if not c.primary_key]
    return insert.on_conflict_do_update(
        index_elements=["model", "version"], set_={name: insert.excluded[name] for name in more}
    )


_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_PUT_DEPLOYMENT: dict[str, Any] = {
    "sqlite": _put_deployment(sqlite),
    "postgresql": _put_deployment(postgresql),
}
_SHOWN: dict[Any, Any] = {
    kind: select(*(table.c[name] for name in kind.__struct_fields__))
    for kind, table in (
        (Deployment, deployments), (Rollout, rollouts), (Event, rollout_events),
        (Order, rollout_orders),
    )
}  # fmt: skip
