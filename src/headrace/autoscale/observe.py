"""What gateways, workers and clerks say -> how it stood, minute by minute. Pure: times are given.

    gateway  cumulative counts of what came    differences, spread over the time between two of them
             open calls, their age, answers
    worker   slots, busy, in hand, its queue   looked at each second; a version's have one queue
    clerk    stored jobs that wait             most stand in that queue, too: not added to it

A gateway that starts again has a new name and begins at 0; one that was not heard of before is
counted from then on. A minute of a part of which no gateway told has no calls: None, not 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from headrace.announce import FRESH_S, Announcement, Backlog, Outstanding
from headrace.store.scaling import Minute

MINUTE_S = 60.0
FORGOTTEN_S = 600.0  # a gateway that is silent, and did not say that it leaves
MOST_KNOWN = 10_000  # workers whose first readiness is remembered


@dataclass
class _Gateway:
    said: Outstanding
    arrived: dict[str, int]
    heard: float


@dataclass
class _Sums:
    """Of one model in one minute."""

    calls: float = 0.0
    looks: int = 0
    busy_looks: int = 0  # those at which a slot was ready
    busy: float = 0.0
    open: float = 0.0
    replies: float = 0.0
    oldest_s: float = 0.0
    lag_s: float = 0.0
    waiting: float = 0.0
    ready: int = 0
    slots: int = 0


@dataclass
class _Minute:
    models: dict[str, _Sums] = field(default_factory=dict)

    def of(self, model: str) -> _Sums:
        return self.models.setdefault(model, _Sums())


class Observer:
    """Of the models named. Times are the policy's, in Unix seconds, and do not go back."""

    def __init__(
        self,
        models: Iterable[str],
        now: float,
        *,
        speed: float = 1.0,
        on_ready: Callable[[str, float], object] = lambda *_: None,
    ) -> None:
        """`speed`: policy seconds in a second of those who speak. `on_ready` hears the model of a
        worker that is ready for the first time, and when."""
        self._models = tuple(models)
        self._speed, self._on_ready = speed, on_ready
        self._fresh_s = FRESH_S * speed
        self._began = now
        self._told_to = now  # there is a gateway's word for all time before it, but for `_gaps`
        self._gaps: set[int] = set()  # minutes
        self._gateways: dict[str, _Gateway] = {}
        self._workers: dict[str, tuple[Announcement, float]] = {}
        self._known: dict[str, None] = {}
        self._backlog: tuple[dict[str, int], float] = ({}, -math.inf)
        self._first_open = int(now // MINUTE_S)
        self._minutes: dict[int, _Minute] = {}

    # -- hearing -------------------------------------------------------------------------------

    def hear(self, news: object, now: float) -> None:
        if isinstance(news, Outstanding):
            self._hear_gateway(news, now)
        elif isinstance(news, Announcement):
            self._hear_worker(news, now)
        elif isinstance(news, Backlog):
            self._backlog = (news.waiting, now)

    def _hear_gateway(self, news: Outstanding, now: float) -> None:
        known = self._gateways.get(news.gateway)
        since, before = now, news.arrived  # of an old one nobody knows what came when
        if known is not None:
            since, before = known.heard, known.arrived
        elif _sound(news.up_s) * self._speed <= MINUTE_S:
            since, before = now - _sound(news.up_s) * self._speed, {}
        for model in self._models:
            came = news.arrived.get(model, 0) - before.get(model, 0)
            if came > 0:
                self._spread(model, came, since, now)
        self._cover(since, now)
        if news.leaving:
            self._gateways.pop(news.gateway, None)
            return
        # What is older than what is known, and came late, takes nothing back.
        kept = {m: max(n, news.arrived.get(m, 0)) for m, n in before.items()}
        self._gateways[news.gateway] = _Gateway(news, news.arrived | kept, now)

    def _cover(self, since: float, now: float) -> None:
        if since - self._told_to > self._fresh_s:
            self._gaps.update(range(int(self._told_to // MINUTE_S), int(since // MINUTE_S) + 1))
        self._told_to = max(self._told_to, now)

    def _spread(self, model: str, calls: int, since: float, now: float) -> None:
        """Evenly over the time in which they came. What falls into a minute that is closed counts
        for the next one; after a long silence it is lost with that minute."""
        span = now - since
        first, last = int(since // MINUTE_S), int(now // MINUTE_S)
        if span <= 0 or first == last >= self._first_open:
            self._at(max(last, self._first_open)).of(model).calls += calls
            return
        for minute in range(max(first, self._first_open), last + 1):
            begins, ends = max(since, minute * MINUTE_S), min(now, (minute + 1) * MINUTE_S)
            self._at(minute).of(model).calls += calls * (ends - begins) / span
        closed_s = min(now, self._first_open * MINUTE_S) - since
        if closed_s > 0 and span <= MINUTE_S:
            self._at(self._first_open).of(model).calls += calls * closed_s / span

    def _at(self, minute: int) -> _Minute:
        return self._minutes.setdefault(minute, _Minute())

    def _hear_worker(self, news: Announcement, now: float) -> None:
        if news.leaving:
            self._workers.pop(news.worker, None)
            return
        self._workers[news.worker] = (news, now)
        if news.ready and news.worker not in self._known:
            self._known[news.worker] = None
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._on_ready(news.model, now)

    # -- looking -------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """About once a second: adds how it stands to the minute."""
        minute = int(now // MINUTE_S)
        if minute < self._first_open:
            return
        self._forget(now)
        for model in self._models:
            self._look(model, self._at(minute).of(model), now)

    def _forget(self, now: float) -> None:
        for worker in [w for w, (_, at) in self._workers.items() if now - at > self._fresh_s]:
            del self._workers[worker]
        long_s = max(FORGOTTEN_S, self._fresh_s)
        for gateway in [g for g, known in self._gateways.items() if now - known.heard > long_s]:
            del self._gateways[gateway]

    def _look(self, model: str, sums: _Sums, now: float) -> None:
        workers = [(said, at) for said, at in self._workers.values() if said.model == model]
        newest: dict[int, Announcement] = {}  # of each version
        slots_of: Counter[int] = Counter()
        for said, _ in sorted(workers, key=lambda each: each[1]):
            newest[said.version] = said
            slots_of[said.version] += said.slots_ready
        slots = slots_of.total()
        in_hand = sum(said.in_hand for said, _ in workers)
        here = [g.said for g in self._gateways.values() if now - g.heard <= self._fresh_s]
        calls = sum(said.calls.get(model, 0) for said in here)
        queued = _queued(newest.values(), slots_of, calls - in_hand)
        sums.looks += 1
        sums.ready, sums.slots = sum(said.ready for said, _ in workers), slots
        if slots:
            sums.busy_looks += 1
            sums.busy += min(1.0, sum(said.busy for said, _ in workers) / slots)
        sums.open += calls
        # What is in no queue and with no worker is on its way: there for an instant, or home.
        sums.replies += max(0, calls - queued - in_hand)
        oldest_s = max((_sound(said.oldest_s.get(model, 0.0)) for said in here), default=0.0)
        sums.oldest_s = max(sums.oldest_s, oldest_s * self._speed)
        if calls:
            lag_s = max(_sound(said.reply_lag_s) for said in here)
            sums.lag_s = max(sums.lag_s, lag_s * self._speed)
        backlog, told_at = self._backlog
        stored = backlog.get(model, 0) if now - told_at <= self._fresh_s else 0
        sums.waiting = max(queued, stored)

    # -- a minute's end ------------------------------------------------------------------------

    def close(self, before: int) -> list[Minute]:
        """All minutes before that one that are not closed yet, of all models, oldest first."""
        closed = []
        for minute in range(max(self._first_open, before - 60), before):
            sums = self._minutes.get(minute, _Minute())
            heard = self._was_told(minute)
            closed += [_folded(model, minute, sums.of(model), heard) for model in self._models]
        self._first_open = max(self._first_open, before)
        self._minutes = {m: sums for m, sums in self._minutes.items() if m >= before}
        self._gaps = {m for m in self._gaps if m >= before}
        return closed

    def _was_told(self, minute: int) -> bool:
        begins, ends = minute * MINUTE_S, (minute + 1) * MINUTE_S
        to_its_end = self._told_to >= ends - self._fresh_s
        return self._began <= begins and to_its_end and minute not in self._gaps

    def measured_at(self) -> float:
        """Of the oldest figures that decisions are made of: a gateway that fell silent may still
        serve, and those who are left tell only of a part."""
        heard = (known.heard for known in self._gateways.values())
        return min(heard, default=self._told_to)


def _queued(newest: Iterable[Announcement], slots: Mapping[int, int], not_in_hand: int) -> int:
    """Jobs in the queues of the versions. A message may carry several, as many as the gateways put
    together for so many slots, though no more than calls are open that no worker has."""
    parcels = jobs = 0
    for said in newest:
        waiting = max(0, said.waiting)
        parcels += waiting
        jobs += waiting * max(1, said.max_size // max(1, slots[said.version]))
    return min(jobs, max(parcels, not_in_hand))


def _sound(figure: float) -> float:
    """What is no number, or endless, was not measured."""
    return max(0.0, figure) if math.isfinite(figure) else 0.0


def _folded(model: str, minute: int, sums: _Sums, heard: bool) -> Minute:
    calls = sums.calls if heard else None
    if not sums.looks:
        return Minute(model=model, minute=minute, calls=calls)
    return Minute(
        model=model,
        minute=minute,
        calls=calls,
        waiting=sums.waiting,
        oldest_s=sums.oldest_s if heard else None,
        busy=sums.busy / sums.busy_looks if sums.busy_looks else None,
        ready=float(sums.ready),
        slots=float(sums.slots),
        open=sums.open / sums.looks if heard else None,
        reply_lag_s=sums.lag_s if heard else None,
        replies=sums.replies / sums.looks if heard else None,
    )
