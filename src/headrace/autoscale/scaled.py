"""One model that is scaled: what is kept of it between minutes, in memory and in the database."""

from __future__ import annotations

import math
from collections import deque

import structlog
from msgspec import structs

from headrace.autoscale.alarm import Alarms, Change, believed
from headrace.autoscale.apply import DONE
from headrace.autoscale.decide import Decision
from headrace.autoscale.foretold import Forecasted, Foretold
from headrace.autoscale.history import KEPT_MIN, History
from headrace.autoscale.starts import Starts
from headrace.autoscale.watch import Watch
from headrace.notify.notice import Notice, alarm, failing, hand, moved
from headrace.policy import Policy
from headrace.store.scaling import Hand, Made, Minute, Scaling

log = structlog.get_logger("headrace.autoscale")

FAILS = 2  # minutes in a row after which people are told that counts cannot be set
UNHEARD_MOST = 60  # minutes that wait until the database is there


class Scaled:
    def __init__(self, policy: Policy, mode: str) -> None:
        self.policy, self._mode = policy, mode
        self.starts = Starts()
        self._watch: Watch | None = None  # until it is loaded
        self._unheard: deque[Minute] = deque(maxlen=UNHEARD_MOST)
        self._changes: list[Change] = []
        self._came: dict[int, float] = {}
        self._hands: dict[str, Hand] = {}
        self._advised: int | None = None
        self._failed = 0  # minutes in a row

    def hear(self, minute: Minute) -> Minute:
        """Gives what is to be kept of it."""
        if self._watch is None:
            self._unheard.append(minute)
        else:
            self._changes += self._watch.hear(minute)
        return minute if believed(minute, self.policy) else structs.replace(minute, calls=None)

    async def load(self, scaling: Scaling, now: float) -> Watch:
        """Raises Unavailable."""
        if self._watch is not None:
            return self._watch
        name, since = self.policy.model, int(now // 60) - KEPT_MIN
        foretold = Foretold()
        for made in await scaling.forecasts(name, since):
            if made.foretold is not None and made.from_minute is not None and made.to_minute:
                span = Forecasted(made.minute, made.from_minute, made.to_minute, made.foretold)
                foretold.keep(span, made.came)
        known = await scaling.calls(name, since)
        on = [each.name for each in await scaling.alarms(name, open_only=True)]
        raised_at = await scaling.raised_at(name)
        self._watch = Watch(self.policy, History(known), foretold, Alarms(on), raised_at)
        log.info("loaded", model=name, minutes=len(known))
        while self._unheard:
            self.hear(self._unheard.popleft())
        return self._watch

    async def settle(self, scaling: Scaling, now: float) -> list[Notice]:
        """Writes what came of forecasts, and alarms; gives what to tell. Raises Unavailable."""
        assert self._watch is not None
        self._came |= self._watch.settle(now)
        await scaling.settle(self.policy.model, self._came)
        self._came = {}
        notices = []
        while self._changes:
            name, began, detail = self._changes[0]
            if began:
                first = await scaling.begin_alarm(self.policy.model, name, now, detail) is not None
            else:
                first = await scaling.end_alarm(self.policy.model, name, now)
            del self._changes[0]
            log.warning("alarm", model=self.policy.model, name=name, began=began, detail=detail)
            if first:
                notices.append(alarm(self.policy.model, name, detail, now, ended=not began))
        return notices

    def row(self, made: Decision, forecasted: Forecasted | None, asked: int) -> Made:
        return Made(
            model=made.model,
            minute=int(made.at // 60),
            at=made.at,
            mode=self._mode,
            count=made.count,
            asked=asked,
            reason=made.reason,
            inputs={name: n for name, n in made.inputs.items() if math.isfinite(n)},
            clamps=list(made.clamps),
            zones=made.zones,
            foretold=forecasted.foretold if forecasted else None,
            from_minute=forecasted.first if forecasted else None,
            to_minute=forecasted.last if forecasted else None,
        )

    def notices(self, row: Made, outcome: str, hands: list[Hand]) -> list[Notice]:
        """What people are told of a minute. `hands`: the overrides that hold."""
        told = [*self._expired(hands, row.at), *self._failing(row, outcome)]
        if row.count == row.asked:
            self._advised = None
        elif self._mode == "act" and outcome == DONE:
            told.append(moved(row.model, row.asked, row.count, row.reason, row.at))
        elif self._mode == "advise" and row.count != self._advised:
            self._advised = row.count  # said once, and not each minute that nobody follows it
            told.append(moved(row.model, row.asked, row.count, row.reason, row.at, mode="advise"))
        return told

    def _expired(self, hands: list[Hand], now: float) -> list[Notice]:
        held, self._hands = self._hands, {each.id: each for each in hands}
        return [
            hand(
                each.model, "expired", f"{each.author}'s {each.kind} of {each.count} has expired",
                now, id=each.id,
            )
            for each in held.values()
            if each.id not in self._hands and each.expires <= now
        ]  # fmt: skip

    def _failing(self, row: Made, outcome: str) -> list[Notice]:
        if self._mode != "act":
            return []
        failed, self._failed = self._failed, 0 if outcome == DONE else self._failed + 1
        if failed >= FAILS and not self._failed:
            return [failing(row.model, "orchestrator", "counts are set again", row.at, ended=True)]
        if self._failed == FAILS:
            return [failing(row.model, "orchestrator", outcome.removeprefix("no: "), row.at)]
        return []
