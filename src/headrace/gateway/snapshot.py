"""What a gateway knows of the house: models, their versions and live workers, and who gets the
calls of which model, heard on the broker.

No registry and no orchestrator is asked on a call's way. A worker not heard of for 3.5 s is gone.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from headrace.announce import FRESH_S, Announcement, Outstanding
from headrace.deployments import Route, parted, workload_of
from headrace.gateway.evidence import Witness, Witnesses
from headrace.gateway.route import Routing
from headrace.schema import Reader
from headrace.signature import Card

#: Calls are let in for this long after the last worker was ready: it will be back, and the broker
#: keeps their jobs. `ready` itself tells the truth at once.
RECOVERY_S = 15.0


class ModelView:
    """One model, or one version of it: its card, the reader of its inputs, and who serves it."""

    def __init__(self, name: str, version: int = 0) -> None:
        self.name, self.version = name, version
        self.queue = workload_of(name, version)
        #: Who gets its model's calls; None: it does.
        self.routing: Routing[ModelView] | None = None
        #: Of its outcomes; None: nobody asks.
        self.witness: Witness | None = None
        self.card: Card | None = None
        self.reader: Reader | None = None
        self.workers: dict[str, tuple[Announcement, float]] = {}
        self.per_second = 0.0
        self.fixed_s = self.item_s = 0.0  # of the slowest worker
        self.max_size = 1
        #: jobs that may travel together: a batch of one slot, shared among all slots, so that jobs
        #: that arrive together still spread over the workers
        self.parcel_size = 1
        self.ready = False
        self.reason = "no worker yet"
        self._ready_at = -RECOVERY_S

    def hear(self, news: Announcement, now: float) -> None:
        if news.leaving:
            self.workers.pop(news.worker, None)
        else:
            self.workers[news.worker] = (news, now)
        if news.card is not None and news.card != self.card:
            self.card = news.card
            self.reader = Reader(news.card.input)
        self.settle(now)

    def settle(self, now: float) -> None:
        """Drops who was not heard of, and sums up the rest."""
        stale = [w for w, (_, heard) in self.workers.items() if now - heard > FRESH_S]
        for worker in stale:
            del self.workers[worker]
        live = [news for news, _ in self.workers.values()]
        serving = [news for news in live if news.ready]
        self.ready = bool(serving) and self.card is not None
        if self.ready:
            self.reason = ""
            self._ready_at = now
            self.per_second = sum(news.per_second() for news in serving)
            self.fixed_s = max(news.fixed_ms for news in serving) / 1000
            self.item_s = max(news.per_item_ms for news in serving) / 1000
            self.max_size = max(news.max_size for news in serving)
            slots = sum(news.slots_ready for news in serving)
            self.parcel_size = max(1, self.max_size // slots)
        elif live:
            self.reason = live[0].reason
        else:
            self.reason = "no worker"

    @property
    def called(self) -> str:
        """The version as callers read it; "" where no worker of our own files has said it yet."""
        return str(self.version) if self.version else self.card.version if self.card else ""

    @property
    def admitting(self) -> bool:
        """Ready, or so lately ready that it is worth waiting for."""
        return self.ready or time.monotonic() - self._ready_at < RECOVERY_S


class Snapshot:
    """All models. `expected` are those that the settings name: ready means all of them are, but for
    those that `may_rest` and have no worker: they are scaled to zero."""

    def __init__(self, gateway: str, expected: list[str], may_rest: Collection[str] = ()) -> None:
        self._gateway, self._may_rest = gateway, may_rest
        #: As callers see them: the view of the version that has most calls.
        self.models: dict[str, ModelView] = {}
        self.versions: dict[str, dict[int, ModelView]] = {}
        self.routings: dict[str, Routing[ModelView]] = {}
        self.witnesses = Witnesses()
        #: by the path of their predict call: one look-up instead of taking the path apart
        self.by_path: dict[bytes, ModelView] = {}
        for name in expected:
            self._add(name)
        self._others: dict[str, tuple[dict[str, int], float]] = {}

    def hear(self, news: Announcement | Outstanding | Route) -> None:
        now = time.monotonic()
        if isinstance(news, Route):
            self._follow(news)
            return
        if isinstance(news, Outstanding):
            if news.gateway != self._gateway:
                self._others[news.gateway] = (news.calls, now)
            return
        self.version(news.model, news.version).hear(news, now)
        self._face(news.model)

    def _add(self, name: str) -> ModelView:
        view = ModelView(name)
        self.versions[name] = {0: view}
        self._show(view)
        return view

    def _show(self, view: ModelView) -> None:
        self.models[view.name] = view
        self.by_path[f"/models/{view.name}/predict".encode()] = view

    def version(self, model: str, version: int) -> ModelView:
        """Its view, a new one if it was not heard of."""
        if model not in self.versions:
            self._add(model)
        views = self.versions[model]
        view = views.get(version)
        if view is None:
            view = views[version] = ModelView(model, version)
        return view

    # -- routes --------------------------------------------------------------------------------

    def _follow(self, route: Route) -> None:
        """What is older than what is followed was late, or is another's who does not know yet."""
        known = self.routings.get(route.model)
        if known is not None and route.revision <= known.route.revision:
            return
        versions = {share.version for share in route.shares}
        versions |= {route.shadow} if route.shadow else set()
        views = {version: self.version(route.model, version) for version in versions}
        routing = self.routings[route.model] = Routing(route, views)
        for version, view in self.versions[route.model].items():
            view.routing = None if routing.plain else routing
            watched = route.watched and version in versions
            view.witness = self.witnesses.of(view.queue) if watched else None
        self._face(route.model)

    def _face(self, model: str) -> None:
        routing = self.routings.get(model)
        if routing is not None and self.models[model] is not routing.face:
            self._show(routing.face)

    def serves(self, workload: str) -> bool:
        """May a job that waits for it hope? True of all models without a route."""
        model, version = parted(workload)
        routing = self.routings.get(model)
        if routing is None:
            return True
        view = self.versions[model].get(version)
        return view is not None and view.ready and routing.serves(version)

    def routed(self, model: str, place: int) -> ModelView:
        """Who gets a stored job of that bucket. Raises KeyError."""
        routing = self.routings.get(model)
        return self.models[model] if routing is None else routing.at(place)

    def served(self, model: str) -> list[ModelView]:
        """The versions that answer callers, the newest first: not a shadow. Raises KeyError."""
        routing = self.routings.get(model)
        if routing is None:
            return [self.models[model]]
        versions = sorted((share.version for share in routing.route.shares), reverse=True)
        return [self.versions[model][version] for version in versions]

    # -- all of them ---------------------------------------------------------------------------

    def settle(self) -> None:
        """Once a second: who has gone silent is gone."""
        now = time.monotonic()
        for model, views in self.versions.items():
            for view in list(views.values()):
                view.settle(now)
                if self._forgotten(view):
                    del views[view.version]
            self._face(model)
        for gateway in [g for g, (_, heard) in self._others.items() if now - heard > FRESH_S]:
            del self._others[gateway]

    def _forgotten(self, view: ModelView) -> bool:
        """A version without workers that no route names."""
        if view.workers or not view.version or self.models[view.name] is view:
            return False
        routing = self.routings.get(view.name)
        return routing is None or not (
            routing.serves(view.version) or routing.route.shadow == view.version
        )

    def watched(self) -> list[ModelView]:
        """The versions whose outcomes somebody asks for."""
        return [v for views in self.versions.values() for v in views.values() if v.witness]

    def workers(self, model: str) -> list[Announcement]:
        """Of all versions."""
        return [news for view in self.versions[model].values() for news, _ in view.workers.values()]

    def elsewhere(self, workload: str) -> int:
        """Calls for a model, or a version of it, that other gateways wait for."""
        if not self._others:
            return 0
        return sum(calls.get(workload, 0) for calls, _ in self._others.values())

    @property
    def ready(self) -> bool:
        return all(
            view.ready or (not view.workers and view.name in self._may_rest)
            for view in self.models.values()
        )
