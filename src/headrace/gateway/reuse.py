"""Calls of equal content: answered from what is kept, or run once for all that wait.

    start -> in memory ............................................... answered at once  (hit)
          -> the same content is under way: wait with it ............. its result        (coalesced)
          -> in the shared cache ..................................... a round trip      (hit)
          -> admitted, dispatched; the result answers all and is kept                    (miss)

Equal are calls of one tenant with the same input for the same model, its version and the form of
the answer. The version is what all ready workers agree on; while they do not, each call is run, and
what comes back is kept under the version that gave it.

The first call of a flight leads it: the job runs with its id and its deadline. A leader that is
refused or fails fails for itself alone: the next one leads, once; after that each runs on its own.
Only 422 is everybody's: the model says it of the input. Each call keeps its own deadline.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import structlog

from headrace.background import Background
from headrace.cache.content import Content
from headrace.cache.guard import Guard
from headrace.cache.kept import Kept, seal, unseal
from headrace.cache.memory import Lru
from headrace.cache.port import Cache
from headrace.dispatch import Dispatch
from headrace.errors import DeadlineExceeded, Refusal, Unavailable
from headrace.gateway.flight import Admit, Flight, OnAnswer, Waiter
from headrace.gateway.snapshot import ModelView
from headrace.httpserver import Request
from headrace.jobs import Form, Outcome, Returned
from headrace.settings import Settings
from headrace.telemetry.metrics import GatewayMetrics

log = structlog.get_logger("headrace.gateway")

HIT, COALESCED = b"hit", b"coalesced"
#: Leaders a flight may have before those who still wait run on their own.
LEADERS = 2
#: In memory, where a shared cache is behind it: what is purged there is soon gone here.
FRONT_S = 10.0
#: Larger results are not shared: they would not come within the time that a look-up has.
SHARED_BYTES = 1 << 20


class Asked(NamedTuple):
    """What `Cache-Control` leaves: may a result that was kept be given, may this one be kept?"""

    look: bool = True
    keep: bool = True


_ANYTHING = Asked()


def asked(request: Request) -> Asked:
    value = request.headers.get(b"cache-control")
    if value is None:
        return _ANYTHING
    words = {word.strip() for word in value.lower().split(b",")}
    return Asked(b"no-cache" not in words, b"no-store" not in words)


class Reuse:
    """Of one gateway. Between gateways only the shared cache joins, once a result is there."""

    def __init__(
        self,
        ttl_s: Mapping[str, float],
        dispatch: Dispatch,
        metrics: GatewayMetrics,
        *,
        max_bytes: int,
        most: int,
        shared: Guard | None = None,
    ) -> None:
        """`ttl_s`: seconds a result is kept, of the models that reuse. `most`: calls that may wait
        at once."""
        self.ttl_s = ttl_s
        self._dispatch, self._metrics, self._shared = dispatch, metrics, shared
        self._front: Lru[Kept] = Lru(max_bytes)
        self._most = most
        self._flights: dict[bytes, Flight] = {}
        self._waiters: dict[int, Waiter] = {}
        self._numbers = itertools.count(1)
        self._background = Background(_failed)

    async def open(self) -> None:
        if self._shared is not None:
            await self._shared.open()

    async def close(self) -> None:
        await self._background.close()
        if self._shared is not None:
            await self._shared.close()

    def start(
        self,
        view: ModelView,
        request_id: str,
        body: bytes,
        *,
        deadline: float,
        form: Form,
        tenant: str,
        admit: Admit,
        on_answer: OnAnswer,
        asked: Asked = _ANYTHING,
    ) -> int:
        """As `Dispatch.start`, but `on_answer` may be called before this returns. Gives a number
        for `cancel`."""
        number = next(self._numbers)
        waiter = Waiter(number, request_id, deadline, admit, on_answer)
        content = Content(tenant, view.queue, form, body)
        version = agreed_version(view)
        if version is None or not asked.look:
            self._run(self._board(Flight(content, b"", asked.keep), waiter))
            return number
        key = content.key(version)
        kept = self._front.get(key)
        if kept is not None:
            self._give(waiter, view.name, kept, "hit_memory")
            return number
        flight = self._flights.get(key)
        if flight is not None:
            self._join(flight, waiter)
            return number
        flight = self._board(Flight(content, key if asked.keep else b"", asked.keep), waiter)
        if flight.key:
            self._flights[key] = flight
        if self._shared is not None and self._shared.usable:
            self._watch(waiter)
            self._background.spawn(self._look(self._shared, flight, key))
        else:
            self._run(flight)
        return number

    def cancel(self, number: int) -> None:
        """The caller is gone. The job runs on while others wait for it."""
        waiter = self._waiters.get(number)
        if waiter is not None:
            self._leave(waiter)

    # -- who waits -----------------------------------------------------------------------------

    def _board(self, flight: Flight, waiter: Waiter) -> Flight:
        waiter.flight = flight
        flight.waiting[waiter.number] = self._waiters[waiter.number] = waiter
        return flight

    def _join(self, flight: Flight, waiter: Waiter) -> None:
        if len(self._waiters) >= self._most:
            detail = "too many calls wait for this model"
            waiter.on_answer(Unavailable(detail, code="queue-full"), None)
            return
        self._board(flight, waiter)
        self._watch(waiter)

    def _watch(self, waiter: Waiter) -> None:
        left_s = max(0.0, waiter.deadline - time.time())
        waiter.late = asyncio.get_running_loop().call_later(left_s, self._late, waiter)

    def _late(self, waiter: Waiter) -> None:
        self._leave(waiter)
        detail = "the deadline passed before the model answered"
        waiter.on_answer(DeadlineExceeded(detail), None)

    def _leave(self, waiter: Waiter) -> None:
        """Without an answer of its flight. With the last one the flight is over."""
        flight = self._alight(waiter)
        if not flight.waiting:
            self._land(flight)
            if flight.job:
                self._dispatch.cancel(flight.job)

    def _alight(self, waiter: Waiter) -> Flight:
        flight = waiter.flight
        assert flight is not None
        del self._waiters[waiter.number], flight.waiting[waiter.number]
        waiter.in_time()
        return flight

    def _land(self, flight: Flight) -> None:
        """Nobody joins any more."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    # -- the way of a flight -------------------------------------------------------------------

    async def _look(self, shared: Guard, flight: Flight, key: bytes) -> None:
        kept = None
        data = await shared.get(key)
        if data is not None:
            kept = unseal(key, data)
            if kept is None:
                self._metrics.cache_errors.add("unreadable")
        left_s = kept.expires - time.time() if kept is not None else 0.0
        if kept is None or left_s <= 0:
            self._run(flight)
            return
        model = flight.content.model
        self._front.put(key, kept, len(kept.body), min(left_s, self.ttl_s[model], FRONT_S))
        self._land(flight)
        for waiter in list(flight.waiting.values()):
            self._alight(waiter)
            self._give(waiter, model, kept, "hit_shared")

    def _run(self, flight: Flight) -> None:
        """The first that waits leads, if there is room for it; else the next."""
        content = flight.content
        while flight.waiting:
            leader = next(iter(flight.waiting.values()))
            try:
                leader.admit(time.time())
            except Refusal as refusal:
                self._alight(leader)
                leader.on_answer(refusal, None)
                continue
            leader.in_time()  # from here on dispatch watches its deadline
            self._metrics.reuse.add(content.model, "miss")
            flight.leader = leader.number
            flight.leaders += 1
            flight.job = self._dispatch.start(
                content.workload,
                leader.request_id,
                content.body,
                deadline=leader.deadline,
                form=content.form,
                on_outcome=partial(self._finish, flight),
            )
            return
        self._land(flight)

    def _finish(
        self, flight: Flight, outcome: Outcome | Refusal, returned: Returned | None
    ) -> None:
        flight.job = 0
        leader = flight.waiting.get(flight.leader)
        if leader is not None:
            self._alight(leader)
        if isinstance(outcome, Outcome) and (
            outcome.problem is None or outcome.problem.status == 422
        ):
            self._land(flight)
            if leader is not None:
                leader.on_answer(outcome, returned)
            self._share(flight, outcome, returned)
            if outcome.problem is None and flight.keep:
                assert returned is not None
                if returned.workload == flight.content.workload:  # else it was moved to another
                    self._keep(flight.content, outcome.body, returned.version)
        else:
            if leader is not None:
                leader.on_answer(outcome, returned)
            self._try_again(flight)

    def _share(self, flight: Flight, outcome: Outcome, returned: Returned | None) -> None:
        """With those who did not lead. All their time was waiting: it is `queued`."""
        if not flight.waiting:
            return
        waited = Outcome(0, time.time(), 0.0, 0.0, outcome.body, outcome.problem)
        for waiter in list(flight.waiting.values()):
            self._alight(waiter)
            self._metrics.reuse.add(flight.content.model, "coalesced")
            waiter.on_answer(waited, returned, COALESCED)

    def _try_again(self, flight: Flight) -> None:
        """What befell the leader is its own."""
        if flight.leaders < LEADERS:
            self._run(flight)
            return
        self._land(flight)
        for waiter in list(flight.waiting.values()):
            self._alight(waiter)
            self._run(self._board(Flight(flight.content, b"", flight.keep), waiter))

    def _give(self, waiter: Waiter, model: str, kept: Kept, how: str) -> None:
        self._metrics.reuse.add(model, how)
        now = time.time()
        outcome = Outcome(0, now, 0.0, 0.0, kept.body)
        waiter.on_answer(outcome, Returned(model, kept.version, "", now, []), HIT)

    def _keep(self, content: Content, body: bytes, version: str) -> None:
        ttl_s, shared = self.ttl_s[content.model], self._shared
        key = content.key(version)
        kept = Kept(version, body, time.time() + ttl_s)
        self._front.put(key, kept, len(body), ttl_s if shared is None else min(ttl_s, FRONT_S))
        if shared is not None and len(body) <= SHARED_BYTES:
            self._background.spawn(shared.put(key, seal(key, kept), ttl_s))


def _failed(error: BaseException) -> None:
    log.error("reuse failed", exc_info=error)


def reuse_of(
    settings: Settings, dispatch: Dispatch, metrics: GatewayMetrics, cache: Cache | None
) -> Reuse | None:
    """None where no model keeps its results. `cache` is the one that gateways share, if any."""
    ttl_s = {name: m.cache_ttl_s for name, m in settings.models.items() if m.cache_ttl_s}
    if not ttl_s:
        return None
    guard = None
    if cache is not None:
        guard = Guard(cache, settings.cache.timeout_ms / 1000, metrics.cache_errors.add)
    return Reuse(
        ttl_s,
        dispatch,
        metrics,
        max_bytes=settings.cache.max_bytes,
        most=settings.gateway.max_outstanding,
        shared=guard,
    )


def agreed_version(view: ModelView) -> str | None:
    """None where the ready workers are of several versions, or there are none."""
    version = None
    for news, _ in view.workers.values():
        if not news.ready or news.card is None:
            continue
        if version is not None and news.card.version != version:
            return None
        version = news.card.version
    return version
