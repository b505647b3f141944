"""`headrace profile` without its printing: each packing with each batch size, one after the other.

start the worker, timed --> probe batches --> search: windows of load --> Try --> the next one
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from msgspec.structs import replace

from headrace.autoscale.profile import Point, Profile, Try
from headrace.client import CallError, CallRefused
from headrace.client.write import body_of
from headrace.profiling import machine
from headrace.profiling.apart import Apart, NotServed
from headrace.profiling.load import OpenLoop
from headrace.profiling.probe import probe
from headrace.profiling.scrape import Ran, ran
from headrace.profiling.search import Found, Limits, Search
from headrace.profiling.verdict import judged
from headrace.profiling.window import Window, cv2, line, quantile
from headrace.profiling.wire import request
from headrace.settings import Settings

PROBE_SHARE = 0.1
PROBE_S = 6.0  # at most
#: Of a try, where nobody says: windows of a slow model must be long to have enough calls.
LEAST_S, MOST_S, CALLS = 60.0, 300.0, 600
#: A call may take so many times the promise, and a second: what is late is late, but the gateway
#: should not turn it away before it is.
DEADLINE = 1.5


@dataclass(frozen=True)
class Wanted:
    model: str
    node: str
    ks: tuple[int, ...] = (1, 2, 4)  # model processes a device
    max_sizes: tuple[int, ...] = (0,)  # 0: the model's own
    slo_s: float = 3.0
    #: For each k and max_size; None: as long as it takes.
    seconds: float | None = None
    rate_limit: float = 10_000.0
    arrivals: str = "steady"
    starts: int = 3
    price_hour: float | None = None

    @property
    def deadline_s(self) -> float:
        return DEADLINE * self.slo_s + 1.0

    def seconds_at(self, rate: float) -> float:
        return self.seconds or min(max(CALLS / rate, LEAST_S), MOST_S)

    def limits(self, seconds: float) -> Limits:
        """Of a search that may take so long."""
        return Limits(
            least_s=min(2.0, seconds / 15), most_s=max(seconds / 6, 0.5), rate=self.rate_limit
        )

    def cells(self) -> Iterator[tuple[int, int]]:
        return ((k, size) for size in self.max_sizes for k in self.ks)


class Told(Protocol):
    """Hears how it goes. `share`: of this try's time."""

    def begins(self, k: int, max_size: int) -> None: ...
    def does(self, what: str, share: float) -> None: ...
    def found(self, one: Try) -> None: ...


async def run(
    settings: Settings, path: str, wanted: Wanted, inputs: Sequence[Any], told: Told
) -> Profile:
    """Raises SettingsError, NotServed where nothing could be started."""
    idle_gpu_mb, load_before = machine.gpu_mb(), machine.load()
    devices = settings.models[wanted.model].devices
    async with Apart(settings, path, wanted.model) as apart:
        bench = _Bench(apart, wanted, list(inputs), told, len(devices), idle_gpu_mb)
        tries = [await bench.one(k, size) for k, size in wanted.cells()]
        version = bench.version
    if not version:
        raise NotServed(tries[0].why)
    profile = Profile(
        model=wanted.model,
        version=version,
        node=wanted.node,
        gpu=any(device.startswith("cuda") for device in devices),
        devices=len(devices),
        cores=machine.cores(),
        slo_s=wanted.slo_s,
        arrivals=wanted.arrivals,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        load_before=load_before,
        price_hour=wanted.price_hour,
        tries=tuple(tries),
    )
    return replace(profile, use=judged(profile))


class _Bench:
    def __init__(
        self,
        apart: Apart,
        wanted: Wanted,
        inputs: list[Any],
        told: Told,
        devices: int,
        idle_gpu_mb: float,
    ) -> None:
        self._apart, self._wanted, self._inputs, self._told = apart, wanted, inputs, told
        self._devices, self._idle_gpu_mb = devices, idle_gpu_mb
        self._timed: set[int] = set()  # the k whose starts were timed
        self._known: dict[int, tuple[int, float]] = {}  # max_size -> workers, calls a second
        self.version = ""

    async def one(self, k: int, max_size: int) -> Try:
        self._told.begins(k, max_size)
        self._workers = k * self._devices
        try:
            found = await self._try(k, max_size)
        except (NotServed, CallRefused, CallError, OSError) as error:
            why = f"k = {k}: {error}"
            found = Try(workers=self._workers, max_size=max(1, max_size), per_second=0.0, why=why)
        self._told.found(found)
        return found

    async def _try(self, k: int, max_size: int) -> Try:
        starts = 1 if k in self._timed else self._wanted.starts
        took = []
        for number in range(starts):
            self._told.does(f"start {number + 1} of {starts}", 0.0)
            took.append(await self._apart.serve(self._workers, max_size, self._inputs[0]))
        status = await self._apart.status()
        self.version, self._max_size = status.version, status.max_size
        self._metrics_url = status.workers[0].metrics_url
        self._told.does("batches alone", 0.0)
        budget_s = min(PROBE_S, PROBE_SHARE * (self._wanted.seconds or LEAST_S))
        points = await probe(self._apart, self._inputs, self._max_size, budget_s)
        fixed_ms, per_item_ms = line(points)
        found = await self._search(max_size, fixed_ms + per_item_ms * self._max_size)
        self._known[max_size] = self._workers, found.rate
        timed = () if k in self._timed else tuple(took)
        self._timed.add(k)
        return self._as_try(found, fixed_ms, per_item_ms, timed)

    async def _search(self, max_size: int, batch_ms: float) -> Found:
        """From what the model alone could, or from what another packing did."""
        guess = self._workers * self._max_size / max(batch_ms / 1000, 1e-6)
        workers, known = self._known.get(max_size, (0, 0.0))
        if known:
            guess = known * self._workers / workers
        path = f"/models/{self._apart.model}/predict"
        self._seconds, self._began = self._wanted.seconds_at(guess), time.monotonic()
        limits = self._wanted.limits(self._seconds)
        sent = [request(path, body_of(one), self._wanted.deadline_s) for one in self._inputs]
        self._load = OpenLoop(self._apart.port, sent, self._wanted.arrivals)
        try:
            return await Search(self._measure, limits, self._left).greatest(guess)
        finally:
            await self._load.close()

    def _share(self) -> float:
        return (time.monotonic() - self._began) / self._seconds

    def _left(self, seconds: float) -> bool:
        """With its warm-up and what waits at its end."""
        return self._share() + 1.5 * seconds / self._seconds < 1

    async def _measure(self, rate: float, seconds: float) -> Window:
        self._told.does(f"{rate:,.4g} calls/s", min(1.0, self._share()))
        wanted = self._wanted
        # Behind all that an earlier window left.
        await self._apart.client.predict(self._apart.model, self._inputs[0], deadline_s=300.0)
        before, ticks = await ran(self._metrics_url), machine.ticks()
        at_once = self._workers * self._max_size
        window = await self._load.window(rate, seconds, wanted.slo_s, at_once)
        since: Ran = (await ran(self._metrics_url)).since(before)
        window.stolen = machine.stolen(ticks)
        window.batch, window.service_s = since.batch, since.service_s
        return window

    def _as_try(
        self, found: Found, fixed_ms: float, per_item_ms: float, start_s: tuple[float, ...]
    ) -> Try:
        """Of two windows the middle is their mean."""
        good = found.good if found.rate else []
        count = max(1, len(good))
        executed = [ms for window in good for ms in window.executed_ms]
        beside = sorted(ms for window in good for ms in window.beside_waiting_ms)
        service_s = sum(window.service_s for window in good) / count
        if found.rate:  # edges: batches that began before, or ended after
            service_s = min(service_s, self._workers / found.rate)
        limited = "nothing above was tried" if found.rate >= self._wanted.rate_limit else ""
        return Try(
            workers=self._workers,
            max_size=self._max_size,
            per_second=found.rate,
            why=limited,
            confirmed=found.confirmed,
            latency_p95_s=sum(window.p(0.95) for window in good) / count,
            service_s=service_s,
            service_cv2=cv2(executed),
            p95_s=quantile(beside, 0.95) / 1000,
            batch=sum(window.batch for window in good) / count,
            fixed_ms=fixed_ms,
            per_item_ms=per_item_ms,
            memory_mb=machine.memory_mb(machine.family(self._apart.pid)),
            gpu_mb=max(0.0, machine.gpu_mb() - self._idle_gpu_mb),
            start_s=start_s,
            windows=tuple(map(point, found.windows)),
        )


def point(window: Window) -> Point:
    def known(share: float) -> float | None:
        took = window.p(share)
        return took if math.isfinite(took) else None

    why = window.why_not()
    return Point(
        rate=window.rate,
        seconds=window.seconds,
        calls=len(window.counted),
        answered=sum(call.right for call in window.counted),
        p50_s=known(0.5),
        p95_s=known(0.95),
        batch=window.batch,
        sustained=not why,
        why=why,
        stolen=window.stolen,
        driver_busy=window.driver_busy,
    )
