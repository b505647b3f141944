"""One monitor: hears samples, reads labels, judges, raises alarms and ends them.

    workers --Samples--> watch --look--> alarm --> database, notices
                          |  ^-- labels -- database <-- feedback -- gateway
                          +--> objects: rows by the hour, sketches, the last look

Whatever is away, it goes on with what it has: samples that cannot be written are dropped when there
are too many. Two at once write the same twice, and one alarm.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

import msgspec
import structlog

from headrace.broker.port import Broker
from headrace.errors import Refusal
from headrace.monitor.alarm import Alarm, Change
from headrace.monitor.shelf import Shelf, State, hour
from headrace.monitor.sketch import merge
from headrace.monitor.watch import HOURS_MOST, Watch
from headrace.monitoring import TO_MONITOR, Monitor, Samples, read_samples
from headrace.notify.notice import Notice, alarm
from headrace.objects.port import Objects, ObjectsDown
from headrace.settings import Settings
from headrace.store.door import StoreDoor
from headrace.store.feedback import Feedback
from headrace.store.scaling import Scaling

log = structlog.get_logger("headrace.monitor")

TURN_S = 0.2
WRITE_EVERY_S = 60.0
TIDY_EVERY_S = 3600.0
INBOX_MOST = 2_000  # messages of samples that wait to be counted
#: Labels are read again from so long before the newest: gateways' clocks are not one.
OVERLAP_S = 5.0


class Watched:
    """One model, and when what is due."""

    def __init__(self, model: str, policy: Monitor, objects: Objects, rows: bool) -> None:
        """`rows`: are samples themselves kept, or sketches alone?"""
        self.watch, self.shelf, self.policy = Watch(model, policy), Shelf(objects, model), policy
        self.inbox: deque[Samples] = deque(maxlen=INBOX_MOST)
        self.alarms = {
            name: Alarm(name, policy.begins, policy.ends) for name in ("drift", "quality")
        }
        self.raised_by: dict[str, set[str]] = {"drift": set(), "quality": set()}
        self.label_since = 0.0
        self.look_at = self.write_at = self.tidy_at = 0.0
        self.opened = False
        self.rows = rows


class Monitoring:
    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        door: StoreDoor,
        objects: Objects,
        tell: Callable[[Notice], object],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`tell` neither waits nor raises."""
        self._broker, self._door, self._objects = broker, door, objects
        self._tell, self._now = tell, now
        # Rows are personal data: where what rests is to be sealed, they do not rest.
        rows = not settings.objects.keys
        self.models = {
            name: Watched(name, model.monitor, objects, rows)
            for name, model in settings.models.items()
            if model.monitor
        }
        self._leaving = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        await self._broker.listen(TO_MONITOR, self._hear)
        # Of one model each: what one waits for keeps no other waiting.
        self._tasks = [asyncio.create_task(self._keep_turning(m)) for m in self.models.values()]
        log.info("watching", models=list(self.models))

    async def drain(self) -> None:
        self._leaving.set()
        await asyncio.gather(*self._tasks)
        await asyncio.gather(*(self._leave(watched) for watched in self.models.values()))
        log.info("left")

    async def _leave(self, watched: Watched) -> None:
        with contextlib.suppress(ObjectsDown):
            await self._count(watched)
            await self.write(watched)

    def _hear(self, data: bytes) -> None:
        try:
            news = read_samples(data)
        except msgspec.DecodeError as error:  # of a worker of another version
            log.warning("not understood", reason=str(error))
            return
        if news.model in self.models:
            self.models[news.model].inbox.append(news)

    async def _keep_turning(self, watched: Watched) -> None:
        while not self._leaving.is_set():
            await self.turn(watched)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), TURN_S)

    async def turn(self, watched: Watched) -> None:
        """What is due of one model. What befalls it is its own."""
        model, now = watched.watch.model, self._now()
        try:
            if not watched.opened:
                await self._recall(watched)
            await self._count(watched)
            if now >= watched.look_at:
                watched.look_at = now + watched.policy.every_s
                await self.look(watched)
            if now >= watched.write_at or len(watched.watch.hours) > 1:
                watched.write_at = now + WRITE_EVERY_S
                await self.write(watched)
            if now >= watched.tidy_at:
                watched.tidy_at = now + TIDY_EVERY_S
                await self._tidy(watched)
        except Refusal as refusal:
            log.warning("not judged", model=model, reason=refusal.detail)
        except ObjectsDown as error:
            log.warning("not written", model=model, reason=str(error))
        except Exception:
            log.exception("a turn failed", model=model)

    async def _recall(self, watched: Watched) -> None:
        """What a restart must not lose: open alarms, predictions whose labels are to come."""
        store = await self._door.open()
        for each in await Scaling(store.database).alarms(watched.watch.model, open_only=True):
            if each.name in watched.alarms:
                watched.alarms[each.name].on = True
        quality = watched.policy.quality
        if quality:
            since = watched.label_since = self._now() - quality.window_hours * 3600
            if watched.rows:
                for row in sorted(await watched.shelf.samples(since), key=lambda row: row["at"]):
                    if row["at"] >= since:
                        watched.watch.recall(
                            row["version"], row["segment"], row["at"], row["id"], row["values"]
                        )
        watched.opened = True

    async def _count(self, watched: Watched) -> None:
        watch = watched.watch
        while watched.inbox:
            news = watched.inbox[0]
            if not watch.known(news.version):
                watch.refer(news.version, await watched.shelf.reference(news.version), self._now())
            watched.inbox.popleft()
            watch.hear(news, self._now())
            await asyncio.sleep(0)

    # -- the look ------------------------------------------------------------------------------

    async def look(self, watched: Watched) -> State:
        """Raises Unavailable, ObjectsDown."""
        watch, shelf = watched.watch, watched.shelf
        if await shelf.forgotten():
            watch.clear()
        if watched.policy.quality:
            await self._labels(watched)
        state = await asyncio.to_thread(watch.look, self._now())
        await self._judged(watched, state)
        await shelf.put_state(state)
        return state

    async def _labels(self, watched: Watched) -> None:
        feedback = Feedback((await self._door.open()).database)
        while True:
            since = watched.label_since - OVERLAP_S
            told = await feedback.since(watched.watch.model, since)
            watched.watch.label(told)
            newest = max((label.received for label in told), default=watched.label_since)
            if newest - OVERLAP_S <= since:
                return
            watched.label_since = newest

    async def _judged(self, watched: Watched, state: State) -> None:
        served = {each.version for each in state.drift}
        said: dict[str, list[tuple[str, str, str]]] = {
            "drift": [(d.version, d.verdict, d.text) for d in state.drift],
            # Of a version that is served no more old labels say nothing of now.
            "quality": [
                (q.version, q.verdict, q.text)
                for q in state.quality
                if not served or q.version in served
            ],
        }
        for name, verdicts in said.items():
            bad = [each for each in verdicts if each[1] in ("changed", "bad")]
            sure = any(verdict != "few" for _, verdict, _ in verdicts)
            found: bool | None = bool(bad) if sure else None
            by = watched.raised_by[name]
            if found is None and by and served and not by & served:
                found = False  # who it was of is gone
            detail = "; ".join(text for _, _, text in bad[:3])
            change = watched.alarms[name].look(found, detail)
            if bad:
                watched.raised_by[name] = {version for version, _, _ in bad}
            if change:
                await self._change(watched, change)

    async def _change(self, watched: Watched, change: Change) -> None:
        model, at = watched.watch.model, self._now()
        scaling = Scaling((await self._door.open()).database)
        try:
            if change.began:
                done = await scaling.begin_alarm(model, change.name, at, change.detail) is not None
            else:
                done = await scaling.end_alarm(model, change.name, at)
        except Refusal:
            watched.alarms[change.name].on = not change.began  # once more at the next look
            raise
        if done:
            log.warning("alarm", model=model, name=change.name, began=change.began,
                        detail=change.detail)  # fmt: skip
            detail = change.detail or "is over"
            self._tell(alarm(model, change.name, detail, at, ended=not change.began))

    # -- what stays ----------------------------------------------------------------------------

    async def write(self, watched: Watched) -> None:
        """Raises ObjectsDown: what was not written is kept for the next time."""
        watch, shelf = watched.watch, watched.shelf
        for version, reference in watch.references.items():
            if reference.changed:
                reference.changed = False
                try:
                    await shelf.put_reference(version, reference.began, reference.profiles)
                except ObjectsDown:
                    reference.changed = True
                    raise
        rows, watch.rows = watch.rows, []
        if rows and watched.rows:
            try:
                await shelf.put_samples(watched.policy.names(), rows, rows[0][1].at)
            except ObjectsDown:
                watch.rows = rows + watch.rows
                raise
        await self._write_hours(watched)

    async def _write_hours(self, watched: Watched) -> None:
        watch, shelf = watched.watch, watched.shelf
        for of in sorted(watch.hours)[:-HOURS_MOST]:
            del watch.hours[of]
        for of in sorted(watch.hours):
            kept = await shelf.hour(of)
            counted = watch.hours.pop(of)
            merge(kept, counted)
            try:
                await shelf.put_hour(of, kept)
            except ObjectsDown:
                # With what came meanwhile; `kept` may share its sketches, and is thrown away.
                merge(counted, watch.hours.pop(of, {}))
                watch.hours[of] = counted
                raise

    async def _tidy(self, watched: Watched) -> None:
        before = self._now() - watched.policy.keep_hours * 3600
        gone = await watched.shelf.remove_old(before)
        await Feedback((await self._door.open()).database).remove(watched.watch.model, before)
        if gone:
            log.info("removed", model=watched.watch.model, objects=gone, before=hour(before))
