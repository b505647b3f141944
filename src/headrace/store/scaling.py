"""What capacity follows, in the database: minutes, start-up times, decisions, overrides, alarms.

Two autoscalers may write at once. A minute that one did not see is filled in by the other; a minute
is decided by whoever inserts first. Times are given, in Unix seconds: a replay has its own clock.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from headrace.policy import Override
from headrace.records import new_id
from headrace.store.engine import Database
from headrace.store.tables import alarms, decisions, minutes, overrides, scale_starts

STARTS_MOST = 50  # start-up times that are looked at


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """How it stood in one minute; means, where nothing else is said. None: nobody saw it."""

    model: str
    minute: int  # of Unix time
    #: Calls that came, also those that were refused for want of capacity.
    calls: float | None = None
    #: Jobs that wait for a worker, at the end.
    waiting: float | None = None
    #: The greatest age of an open call.
    oldest_s: float | None = None
    #: Share of the ready slots that ran a batch.
    busy: float | None = None
    #: Workers that are ready, at the end, and the model processes in them.
    ready: float | None = None
    slots: float | None = None
    #: Calls that a gateway waits for.
    open: float | None = None
    #: The greatest time that an answer took from its worker to its gateway.
    reply_lag_s: float | None = None
    #: Of the open calls those in no queue and with no worker: their answers are on their way.
    replies: float | None = None


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A decision as it is kept."""

    model: str
    minute: int  # of Unix time
    at: float
    mode: str
    count: int
    #: The count before.
    asked: int
    reason: str
    inputs: dict[str, float] = {}
    clamps: list[str] = []
    zones: dict[str, int] = {}
    #: The greatest calls a minute that were forecast for `from_minute` to `to_minute`, and that
    #: came. None between plans; `came` also until it is known.
    foretold: float | None = None
    from_minute: int | None = None
    to_minute: int | None = None
    came: float | None = None
    #: "yes", or "no: " and why; "" while it is not known.
    applied: str = ""


class Hand(msgspec.Struct, frozen=True, kw_only=True):
    """An override, as it was set and cleared."""

    id: str
    model: str
    kind: str  # set, floor or cap
    count: int
    author: str
    reason: str
    created: float
    expires: float
    cleared_at: float | None = None
    cleared_by: str = ""

    def override(self) -> Override:
        return msgspec.convert(
            {name: getattr(self, name) for name in Override.__struct_fields__}, Override
        )


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    model: str
    name: str
    began: float
    ended: float | None = None
    detail: str = ""


class Scaling:
    def __init__(self, database: Database) -> None:
        self._database = database

    # -- minutes -------------------------------------------------------------------------------

    async def put_minutes(self, seen: list[Minute]) -> None:
        """What another saw of one stands; what it did not see is filled in."""
        values = [msgspec.structs.asdict(minute) for minute in seen]
        if values:
            await self._database.write(
                lambda connection: connection.execute(_PUT_MINUTE[connection.dialect.name], values)
            )

    async def minutes(self, model: str, since: int, until: int | None = None) -> list[Minute]:
        """[since, until), minutes of Unix time, oldest first, without those that have no row."""
        of_it = [minutes.c.model == model, minutes.c.minute >= since]
        if until is not None:
            of_it.append(minutes.c.minute < until)
        query = _SHOWN[Minute].where(*of_it).order_by(minutes.c.minute)
        return await self._all(Minute, query)

    async def calls(self, model: str, since: int) -> list[tuple[int, float]]:
        """Minute and calls, oldest first, of those that somebody saw."""
        query = (
            select(minutes.c.minute, minutes.c.calls)
            .where(
                minutes.c.model == model, minutes.c.minute >= since, minutes.c.calls.is_not(None)
            )
            .order_by(minutes.c.minute)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [(row.minute, row.calls) for row in rows]

    # -- start-up times ------------------------------------------------------------------------

    async def put_start(self, model: str, at: float, took_s: float) -> None:
        row = scale_starts.insert().values(model=model, at=at, took_s=took_s)
        await self._database.write(lambda connection: connection.execute(row))

    async def starts(self, model: str, most: int = STARTS_MOST) -> list[float]:
        """How long the last ones took, newest first, in seconds."""
        query = (
            select(scale_starts.c.took_s)
            .where(scale_starts.c.model == model)
            .order_by(scale_starts.c.id.desc())
            .limit(most)
        )
        return await self._database.read(
            lambda connection: list(connection.execute(query).scalars())
        )

    # -- decisions -----------------------------------------------------------------------------

    async def put_decision(self, made: Made) -> bool:
        """False where another has decided this minute: then that decision stands."""
        values = msgspec.structs.asdict(made)
        for name in ("inputs", "clamps", "zones"):
            values[name] = msgspec.json.encode(values[name]).decode()

        def work(connection: Connection) -> bool:
            insert = _INSERT[connection.dialect.name](decisions).values(values)
            done = connection.execute(insert.on_conflict_do_nothing())
            return bool(done.rowcount)

        return await self._database.write(work)

    async def applied(self, model: str, minute: int, outcome: str) -> None:
        done = update(decisions).where(_at(model, minute)).values(applied=outcome)
        await self._database.write(lambda connection: connection.execute(done))

    async def settle(self, model: str, came: dict[int, float]) -> None:
        """By the minutes in which the forecasts were made."""
        values = [{"b_model": model, "b_minute": m, "b_came": c} for m, c in came.items()]
        if values:
            await self._database.write(lambda connection: connection.execute(_SETTLE, values))

    async def decisions(self, model: str, limit: int = 50, before: int | None = None) -> list[Made]:
        """Newest first; `before`: the minute of the last one of the page before."""
        query = _SHOWN[Made].where(decisions.c.model == model)
        if before is not None:
            query = query.where(decisions.c.minute < before)
        return await self._all(Made, query.order_by(decisions.c.minute.desc()).limit(limit))

    async def decision(self, model: str, at: int) -> Made | None:
        """The one that stood in a minute: made then, or last before it."""
        found = await self.decisions(model, 1, at + 1)
        return found[0] if found else None

    async def forecasts(self, model: str, since: int) -> list[Made]:
        """The decisions that made a forecast, oldest first."""
        query = _SHOWN[Made].where(
            decisions.c.model == model,
            decisions.c.minute >= since,
            decisions.c.foretold.is_not(None),
        )
        return await self._all(Made, query.order_by(decisions.c.minute))

    async def raised_at(self, model: str) -> float:
        """Unix time of the last decision that raised a count; 0 for none."""
        query = select(func.max(decisions.c.at)).where(
            decisions.c.model == model,
            decisions.c.count > decisions.c.asked,
            decisions.c.applied == "yes",
        )
        return await self._database.read(
            lambda connection: connection.execute(query).scalar() or 0.0
        )

    # -- overrides -----------------------------------------------------------------------------

    async def set_override(
        self,
        model: str,
        kind: str,
        count: int,
        *,
        author: str,
        reason: str,
        at: float,
        expires: float,
    ) -> Hand:
        """It takes the place of the one of its kind."""
        hand = Hand(
            id=new_id(), model=model, kind=kind, count=count, author=author, reason=reason,
            created=at, expires=expires,
        )  # fmt: skip
        older = (
            update(overrides)
            .where(_open(model, at), overrides.c.kind == kind)
            .values(cleared_at=at, cleared_by=author)
        )

        def work(connection: Connection) -> None:
            connection.execute(older)
            connection.execute(overrides.insert().values(msgspec.structs.asdict(hand)))

        await self._database.write(work)
        return hand

    async def clear_override(
        self, model: str, *, by: str, at: float, override_id: str = ""
    ) -> list[Hand]:
        """That one, or all of the model; those that were open are given."""
        of_it = _open(model, at)
        if override_id:
            of_it = and_(of_it, overrides.c.id == override_id)
        query = _SHOWN[Hand].where(of_it).order_by(overrides.c.id).with_for_update()

        def work(connection: Connection) -> list[Hand]:
            found = [_read(Hand, row) for row in connection.execute(query)]
            cleared = [msgspec.structs.replace(h, cleared_at=at, cleared_by=by) for h in found]
            connection.execute(
                update(overrides)
                .where(overrides.c.id.in_([hand.id for hand in found]))
                .values(cleared_at=at, cleared_by=by)
            )
            return cleared

        return await self._database.write(work)

    async def overrides(self, model: str, at: float) -> list[Hand]:
        """Those that hold at a time, oldest first."""
        query = _SHOWN[Hand].where(_open(model, at)).order_by(overrides.c.id)
        return await self._all(Hand, query)

    async def hands(self, model: str, limit: int = 50, before: str = "") -> list[Hand]:
        """All that ever were, newest first; `before`: the id of the last one of the page before."""
        query = _SHOWN[Hand].where(overrides.c.model == model)
        if before:
            query = query.where(overrides.c.id < before)
        return await self._all(Hand, query.order_by(overrides.c.id.desc()).limit(limit))

    # -- alarms --------------------------------------------------------------------------------

    async def begin_alarm(self, model: str, name: str, at: float, detail: str) -> Alarm | None:
        """None where it has begun already."""
        alarm = Alarm(id=new_id(), model=model, name=name, began=at, detail=detail)

        def work(connection: Connection) -> bool:
            insert = _INSERT[connection.dialect.name](alarms).values(msgspec.structs.asdict(alarm))
            return bool(connection.execute(insert.on_conflict_do_nothing()).rowcount)

        return alarm if await self._database.write(work) else None

    async def end_alarm(self, model: str, name: str, at: float) -> bool:
        """False where none was open."""
        end = (
            update(alarms)
            .where(alarms.c.model == model, alarms.c.name == name, alarms.c.ended.is_(None))
            .values(ended=at)
        )
        return bool(await self._database.write(lambda connection: connection.execute(end).rowcount))

    async def alarms(
        self, model: str = "", *, open_only: bool = False, limit: int = 50, before: str = ""
    ) -> list[Alarm]:
        """Newest first; of all models where none is named. `before`: as for `hands`."""
        query = _SHOWN[Alarm]
        if model:
            query = query.where(alarms.c.model == model)
        if open_only:
            query = query.where(alarms.c.ended.is_(None))
        if before:
            query = query.where(alarms.c.id < before)
        return await self._all(Alarm, query.order_by(alarms.c.id.desc()).limit(limit))

    # -- the end -------------------------------------------------------------------------------

    async def remove_old(self, before: float) -> None:
        """What was over before that time."""
        minute = int(before // 60)
        over = (
            delete(minutes).where(minutes.c.minute < minute),
            delete(decisions).where(decisions.c.minute < minute),
            delete(scale_starts).where(scale_starts.c.at < before),
            delete(overrides).where(
                func.coalesce(overrides.c.cleared_at, overrides.c.expires) < before
            ),
            delete(alarms).where(alarms.c.ended < before),
        )

        def work(connection: Connection) -> None:
            for statement in over:
                connection.execute(statement)

        await self._database.write(work)

    async def _all(self, kind: Any, query: Any) -> list[Any]:
        return await self._database.read(
            lambda connection: [_read(kind, row) for row in connection.execute(query)]
        )


def _at(model: str, minute: int) -> ColumnElement[bool]:
    return and_(decisions.c.model == model, decisions.c.minute == minute)


def _open(model: str, at: float) -> ColumnElement[bool]:
    return and_(
        overrides.c.model == model, overrides.c.cleared_at.is_(None), overrides.c.expires > at
    )


def _read(kind: type[msgspec.Struct], row: Any) -> Any:
    values = dict(row._mapping)
    if kind is Made:
        for name in ("inputs", "clamps", "zones"):
            values[name] = msgspec.json.decode(values[name])
    return kind(**values)


def _put_minute(dialect: Any) -> Any:
    insert = dialect.insert(minutes)
    seen = [c.name for c in minutes.c if not c.primary_key]
    return insert.values({c.name: bindparam(c.name) for c in minutes.c}).on_conflict_do_update(
        index_elements=["model", "minute"],
        set_={name: func.coalesce(minutes.c[name], insert.excluded[name]) for name in seen},
        where=or_(*(minutes.c[name].is_(None) for name in seen)),
    )


_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_PUT_MINUTE: dict[str, Any] = {
    "sqlite": _put_minute(sqlite),
    "postgresql": _put_minute(postgresql),
}
_SHOWN: dict[Any, Any] = {
    kind: select(*(table.c[name] for name in kind.__struct_fields__))
    for kind, table in (
        (Minute, minutes), (Made, decisions), (Hand, overrides), (Alarm, alarms),
    )
}  # fmt: skip
_SETTLE = (
    update(decisions)
    .where(decisions.c.model == bindparam("b_model"), decisions.c.minute == bindparam("b_minute"))
    .values(came=bindparam("b_came"))
)
