"""What a gateway knows of the house: the models and their live workers, heard on the broker.

No registry and no orchestrator is asked on a call's way. A worker not heard of for 3.5 s is gone.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from headrace.announce import FRESH_S, Announcement, Outstanding
from headrace.schema import Reader
from headrace.signature import Card

#: Calls are let in for this long after the last worker was ready: it will be back, and the broker
#: keeps their jobs. `ready` itself tells the truth at once.
RECOVERY_S = 15.0


class ModelView:
    """One model: its card, the reader of its inputs, and who serves it."""

    def __init__(self, name: str) -> None:
        self.name = name
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
    def admitting(self) -> bool:
        """Ready, or so lately ready that it is worth waiting for."""
        return self.ready or time.monotonic() - self._ready_at < RECOVERY_S


class Snapshot:
    """All models. `expected` are those that the settings name: ready means all of them are, but for
    those that `may_rest` and have no worker: they are scaled to zero."""

    def __init__(self, gateway: str, expected: list[str], may_rest: Collection[str] = ()) -> None:
        self._gateway, self._may_rest = gateway, may_rest
        self.models: dict[str, ModelView] = {}
        #: by the path of their predict call: one look-up instead of taking the path apart
        self.by_path: dict[bytes, ModelView] = {}
        for name in expected:
            self._add(name)
        self._others: dict[str, tuple[dict[str, int], float]] = {}

    def hear(self, news: Announcement | Outstanding) -> None:
        now = time.monotonic()
        if isinstance(news, Outstanding):
            if news.gateway != self._gateway:
                self._others[news.gateway] = (news.calls, now)
            return
        view = self.models.get(news.model)
        if view is None:
            view = self._add(news.model)
        view.hear(news, now)

    def _add(self, name: str) -> ModelView:
        view = self.models[name] = ModelView(name)
        self.by_path[f"/models/{name}/predict".encode()] = view
        return view

    def settle(self) -> None:
        """Once a second: who has gone silent is gone."""
        now = time.monotonic()
        for view in self.models.values():
            view.settle(now)
        for gateway in [g for g, (_, heard) in self._others.items() if now - heard > FRESH_S]:
            del self._others[gateway]

    def elsewhere(self, model: str) -> int:
        """Calls for a model that other gateways wait for."""
        if not self._others:
            return 0
        return sum(calls.get(model, 0) for calls, _ in self._others.values())

    @property
    def ready(self) -> bool:
        return all(
            view.ready or (not view.workers and view.name in self._may_rest)
            for view in self.models.values()
        )
