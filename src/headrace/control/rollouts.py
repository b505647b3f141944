"""Rollouts: which versions have which calls, what the gates saw, and a person's hand on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from headrace.control.order import Order, check, check_now
from headrace.control.people import Who
from headrace.control.registry import Promotion, RegistryApi
from headrace.deployments import Deploy, Rollout, Route
from headrace.errors import NotFound, Refusal
from headrace.httpapi.answer import answer_json
from headrace.httpapi.body import read_struct
from headrace.httpapi.errands import Errands
from headrace.httpapi.listing import cut, read_listing, read_query
from headrace.httpserver import Request
from headrace.notify.notice import Told, rollout
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.registry.audit import Entry
    from headrace.store.deploying import Deploying, OrderKind

log = structlog.get_logger("headrace.control")

LAST = 5  # rollouts, and orders, in the view of a model
LOOKED = 50  # back for one that is done


class RolloutsApi:
    """`look`: has whoever deploys look at orders and registry, now."""

    def __init__(
        self,
        settings: Settings,
        errands: Errands[Who],
        told: Told,
        registry: RegistryApi,
        look: Callable[[], None],
    ) -> None:
        self._errands, self._told, self._registry, self._look = errands, told, registry, look
        self._policies = {
            name: model.deploy for name, model in settings.models.items() if model.deploy
        }
        self._deploying: Deploying | None = None

    async def all(self, request: Request, who: Who) -> None:
        read_query(request)
        views = [await self._view(model) for model in self._policies]
        answer_json(request, {"models": views})

    async def one(self, request: Request, who: Who, model: str) -> None:
        read_query(request)
        answer_json(request, await self._view(model))

    async def history(self, request: Request, who: Who, model: str) -> None:
        self._policy(model)
        asked = read_listing(request, model)
        books = await self._books()
        found = await books.rollouts(model, asked.limit + 1, asked.before)
        page, after = cut(found, asked.limit, model, lambda one: one.id)
        answer_json(request, {"rollouts": page, "next": after})

    async def events(self, request: Request, who: Who, model: str, rollout_id: str) -> None:
        self._policy(model)
        read_query(request)
        books = await self._books()
        found = await books.rollout(rollout_id)
        if found is None or found.model != model:
            raise NotFound(f"{model} has no such rollout", code="rollout-not-found")
        answer_json(request, {"rollout": found, "events": await books.events(rollout_id)})

    async def order(self, request: Request, who: Who, model: str) -> None:
        policy = self._policy(model)
        asked = read_struct(request, Order)
        check(asked)
        books = await self._books()
        opened = await books.open_rollout(model)
        back = None if opened else await _way_back(books, model)
        check_now(asked, opened, await books.stable(model), back)
        kind: OrderKind = asked.order
        version, strategy = asked.version, asked.strategy
        if kind == "rollback" and opened is None:
            kind, version, strategy = "start", back, "blue-green"
        if kind == "start" and version:
            await self._registry.check(model, version)
        # First: who deploys may see the alias move before we have told it how.
        done = await books.order(
            model,
            kind,
            version=version,
            strategy=strategy or "",
            author=who.name,
            reason=asked.reason,
            at=time.time(),
        )
        moved: Entry | None = None
        if _moves(kind, strategy or policy.strategy, opened):
            to = opened.to_version if kind == "promote" and opened else version
            entry = Promotion(version=to or None, alias=policy.alias, reason=asked.reason)
            try:
                moved = await self._registry.move(model, entry, who)
            except Refusal as refusal:
                outcome = f"no: {refusal.detail}"
                await books.finish_order(done.id, outcome=outcome, at=time.time())
                raise
        self._look()
        answer_json(request, {"order": done, "promotion": moved})
        log.info("rollout ordered", model=model, order=kind, version=version, author=who.name)
        of = version if version is not None else opened.to_version if opened else 0
        text = f"{who.name} asked to {kind} the rollout of {of}: {asked.reason}"
        self._told.tell(rollout(model, "asked", text, time.time(), id=done.id))

    async def _view(self, model: str) -> dict[str, Any]:
        policy, books = self._policy(model), await self._books()
        route = await books.route(model)
        run = await books.deployments(model)
        return {
            "model": model,
            "alias": policy.alias,
            "strategy": policy.strategy,
            "steps": policy.steps,
            "stable": route.stable if route else None,
            "route": _routed(route) if route else None,
            "deployments": [one for one in run if one.state != "retired"],
            "rollout": await books.open_rollout(model),
            "last": await books.rollouts(model, LAST),
            "orders": await books.orders(model, LAST),
        }

    def _policy(self, model: str) -> Deploy:
        """Raises NotFound."""
        policy = self._policies.get(model)
        if policy is None:
            known = ", ".join(self._policies) or "none: no [models.NAME.deploy] in the settings"
            raise NotFound(
                f"{model} is not deployed from the registry; deployed are {known}",
                code="model-not-deployed",
            )
        return policy

    async def _books(self) -> Deploying:
        """Raises Unavailable."""
        if self._deploying is None:
            store = await self._errands.store()  # first: it loads SQLAlchemy, off the loop
            from headrace.store.deploying import Deploying

            self._deploying = Deploying(store.database)
        return self._deploying


async def _way_back(books: Deploying, model: str) -> int | None:
    """What served before the last rollout that was done."""
    for one in await books.rollouts(model, LOOKED):
        if one.state == "done":
            return one.from_version
    return None


def _moves(kind: OrderKind, strategy: str, opened: Rollout | None) -> bool:
    """Whether the alias is moved by it: what is only shown calls has no claim to it."""
    if kind == "start":
        return strategy != "shadow"
    return kind == "promote" and opened is not None and opened.strategy == "shadow"


def _routed(route: Route) -> dict[str, Any]:
    """With names, which it has not on the wire."""
    return {
        "revision": route.revision,
        "shares": [{"version": s.version, "of_whole": s.of_whole} for s in route.shares],
        "shadow": route.shadow,
        "shadow_share": route.shadow_share,
    }
