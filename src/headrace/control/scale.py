"""Capacity: what was decided and why, and a person's hand on it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from headrace.control.ask import Hand, expires, warnings
from headrace.control.people import Who
from headrace.errors import Invalid, NotFound
from headrace.httpapi.answer import answer_json
from headrace.httpapi.body import read_struct
from headrace.httpapi.errands import Errands
from headrace.httpapi.listing import cut, read_listing, read_query
from headrace.httpserver import Request
from headrace.notify.notice import Notice, Told, hand
from headrace.policy import Policy
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.store import scaling
    from headrace.store.scaling import Scaling

log = structlog.get_logger("headrace.control")

DAY_S = 86_400.0
MOST_DAYS = 8  # of minutes in one answer


class ScaleApi:
    def __init__(self, settings: Settings, errands: Errands[Who], told: Told) -> None:
        self._settings, self._errands, self._told = settings, errands, told
        self._policies = settings.policies()
        self._scaling: Scaling | None = None

    async def all(self, request: Request, who: Who) -> None:
        read_query(request)
        views = [await self._view(policy) for policy in self._policies.values()]
        answer_json(request, {"mode": self._settings.autoscale.mode, "models": views})

    async def one(self, request: Request, who: Who, model: str) -> None:
        read_query(request)
        answer_json(request, await self._view(self._policy(model)))

    async def decisions(self, request: Request, who: Who, model: str) -> None:
        self._policy(model)
        asked = read_listing(request, model, "at")
        before = int(asked.before, 16) if asked.before else None
        if "at" in asked.query:
            before = int(_unix("at", asked.query["at"]) // 60) + 1
        books = await self._books()
        found = await books.decisions(model, asked.limit + 1, before)
        page, after = cut(found, asked.limit, model, lambda made: f"{made.minute:032x}")
        answer_json(request, {"decisions": page, "next": after})

    async def minutes(self, request: Request, who: Who, model: str) -> None:
        """In columns: days of it are drawn."""
        self._policy(model)
        query, now = read_query(request, "since", "until"), time.time()
        until = _unix("until", query["until"]) if "until" in query else now
        since = _unix("since", query["since"]) if "since" in query else until - DAY_S
        if not 0 <= until - since <= MOST_DAYS * DAY_S:
            raise Invalid(f"since, until: expected at most {MOST_DAYS} days, in this order")
        books = await self._books()
        rows = await books.minutes(model, int(since // 60), int(until // 60) + 1)
        names = [name for name in _minute_fields() if name != "model"]
        columns = {name: [getattr(row, name) for row in rows] for name in names}
        answer_json(request, {"model": model, "minutes": columns})

    async def overrides(self, request: Request, who: Who, model: str) -> None:
        """All that ever were: who did what, when and why."""
        self._policy(model)
        asked = read_listing(request, model)
        books = await self._books()
        found = await books.hands(model, asked.limit + 1, asked.before)
        page, after = cut(found, asked.limit, model, lambda one: one.id)
        answer_json(request, {"overrides": page, "next": after})

    async def override(self, request: Request, who: Who, model: str) -> None:
        policy, now = self._policy(model), time.time()
        asked = read_struct(request, Hand)
        until = expires(asked, now)
        books = await self._books()
        others = [(one.kind, one.count) for one in await books.overrides(model, now)]
        done = await books.set_override(
            model,
            asked.kind,
            asked.count,
            author=who.name,
            reason=asked.reason,
            at=now,
            expires=until,
        )
        told = warnings(asked, policy, self._settings.autoscale.mode, others)
        answer_json(request, {"override": done, "warnings": told})
        log.info("override set", **_logged(done), expires=done.expires)
        self._told.tell(_notice(done, "set", f"{who.name} {_SET[asked.kind]} {asked.count}"))

    async def clear(self, request: Request, who: Who, model: str, override_id: str = "") -> None:
        self._policy(model)
        books = await self._books()
        done = await books.clear_override(
            model, by=who.name, at=time.time(), override_id=override_id
        )
        if override_id and not done:
            raise NotFound("no such override in force", code="override-not-found")
        answer_json(request, {"cleared": done})
        for one in done:
            log.info("override cleared", **_logged(one), by=who.name)
            self._told.tell(_notice(one, "cleared", f"{who.name} took back {_said(one)}"))

    async def alarms(self, request: Request, who: Who) -> None:
        """Newest first. `open=1`: those that have not ended."""
        asked = read_listing(request, "alarms", "open", "model")
        only = asked.query.get("open", "0")
        if only not in ("0", "1"):
            raise Invalid("open: expected 0 or 1")
        books = await self._books()
        found = await books.alarms(
            asked.query.get("model", ""),
            open_only=only == "1",
            limit=asked.limit + 1,
            before=asked.before,
        )
        page, after = cut(found, asked.limit, "alarms", lambda one: one.id)
        answer_json(request, {"alarms": page, "next": after})

    async def _view(self, policy: Policy) -> dict[str, Any]:
        books, now, model = await self._books(), time.time(), policy.model
        last = await books.decisions(model, 1)
        seen = await books.minutes(model, int(now // 60) - 5)
        ready = [(one.minute, one.ready) for one in seen if one.ready is not None]
        return {
            "model": model,
            "mode": self._settings.autoscale.mode,
            "least": policy.least,
            "most": policy.most,
            "count": _standing(last[0]) if last else None,
            "ready": ready[-1][1] if ready else None,
            "overrides": await books.overrides(model, now),
            "decision": last[0] if last else None,
            "alarms": await books.alarms(model, open_only=True),
        }

    def _policy(self, model: str) -> Policy:
        """Raises NotFound."""
        policy = self._policies.get(model)
        if policy is None:
            known = ", ".join(self._policies) or "none: no [models.NAME.scale] in the settings"
            raise NotFound(f"{model} is not scaled; scaled are {known}", code="model-not-scaled")
        return policy

    async def _books(self) -> Scaling:
        """Raises Unavailable."""
        if self._scaling is None:
            store = await self._errands.store()  # first: it loads SQLAlchemy, off the loop
            from headrace.store.scaling import Scaling

            self._scaling = Scaling(store.database)
        return self._scaling


_SET = {"set": "set it to", "floor": "wants at least", "cap": "allows at most"}


def _said(one: scaling.Hand) -> str:
    return f'{one.kind} {one.count} ({one.author}: "{one.reason}")'


def _notice(one: scaling.Hand, state: str, text: str) -> Notice:
    if state == "set":
        end = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one.expires))
        text = f"{text} until {end}: {one.reason}"
    return hand(one.model, state, text, time.time(), id=one.id, data=msgspec.structs.asdict(one))


def _logged(one: scaling.Hand) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("id", "model", "kind", "count", "author")}


def _standing(made: scaling.Made) -> int:
    """The count that was asked for last."""
    return made.count if made.applied == "yes" else made.asked


def _minute_fields() -> tuple[str, ...]:
    from headrace.store.scaling import Minute

    return Minute.__struct_fields__


def _unix(name: str, text: str) -> float:
    """Raises Invalid."""
    try:
        value = float(text) if text.isascii() else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e11:
        raise Invalid(f"{name}: expected Unix seconds")
    return value
