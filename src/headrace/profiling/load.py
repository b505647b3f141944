"""Open-loop load: calls leave when they are due, whatever became of those before.

Latency counts from when a call was due: a client that waits for a slow house sends fewer calls, and
would find it quicker than it is. What is due within a millisecond leaves together.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import time
from functools import partial
from itertools import cycle

from headrace.profiling.window import Call, Window
from headrace.profiling.wire import Reply, Wire, connect

SPARE_FILES = 256
MOST_OPEN = 4_096
WARM_SHARE = 0.25
LEAST_WARM_S = 0.5
LOOK_EVERY_S = 0.05


class OpenLoop:
    """The connections, kept from window to window, and the requests to send in turn."""

    def __init__(self, port: int, requests: list[bytes], arrivals: str, seed: int = 1) -> None:
        self._port, self._requests = port, cycle(requests)
        self._steady, self._random = arrivals == "steady", random.Random(seed)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = max(1, min(MOST_OPEN, files - SPARE_FILES))
        self._wires: set[Wire] = set()
        self._idle: list[Wire] = []
        self._opening: set[asyncio.Task[None]] = set()

    async def window(self, rate: float, seconds: float, slo_s: float, at_once: int) -> Window:
        """Runs one, and waits until its calls are through or too late to matter."""
        warm_s = max(LEAST_WARM_S, WARM_SHARE * seconds)
        window = Window(rate, seconds, slo_s, at_once, self._steady)
        window.calls = [Call(due) for due in self._times(rate, -warm_s, seconds)]
        cpu, wall = time.process_time(), time.perf_counter()
        self._window, self._begins, self._open = window, wall + warm_s, 0
        await self._send_all(window)
        await self._settle(seconds + slo_s)
        window.driver_busy = (time.process_time() - cpu) / (time.perf_counter() - wall)
        return window

    def _times(self, rate: float, start: float, end: float) -> list[float]:
        """As many as the rate says, before 0 and from 0 on; at even intervals, or a Poisson process
        of that many."""
        times: list[float] = []
        for low, high in ((start, 0.0), (0.0, end)):
            count = max(1, round(rate * (high - low)))
            if self._steady:
                times += [low + (high - low) * (place + 0.5) / count for place in range(count)]
            else:
                times += sorted(self._random.uniform(low, high) for _ in range(count))
        return times

    async def _send_all(self, window: Window) -> None:
        hopeless = 2 * window.rate * window.slo_s + 2 * window.at_once + 50
        for call in window.calls:
            while (early := call.due - self._now()) > 0:
                await asyncio.sleep(min(early, LOOK_EVERY_S))
            self._send(call, next(self._requests))
            if self._open > hopeless:
                window.cut = True
                return

    def _now(self) -> float:
        return time.perf_counter() - self._begins

    def _send(self, call: Call, data: bytes) -> None:
        self._open += 1
        on_reply = partial(self._on_reply, call)
        while self._idle:
            wire = self._idle.pop()
            if wire.open:
                wire.send(data, on_reply)
                return
        if len(self._wires) + len(self._opening) >= self._most:
            self._end(call)  # open loop: it does not wait for one to be free
            return
        task = asyncio.ensure_future(self._open_and_send(call, data))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open_and_send(self, call: Call, data: bytes) -> None:
        try:
            wire = await connect(self._port)
        except OSError:
            self._end(call)
            return
        self._wires.add(wire)
        wire.send(data, partial(self._on_reply, call))

    def _end(self, call: Call) -> None:
        call.end = self._now()
        self._open -= 1

    def _on_reply(self, call: Call, wire: Wire, reply: Reply) -> None:
        self._end(call)
        call.right = reply.status == 200
        if reply.status:
            self._idle.append(wire)
        else:
            self._wires.discard(wire)
        if call.right and call.due >= 0:
            stages = reply.stages
            waited = stages.get("queued", 0.0) + stages.get("gathered", 0.0)
            self._window.executed_ms.append(stages.get("executed", 0.0))
            self._window.beside_waiting_ms.append(sum(stages.values()) - waited)

    async def _settle(self, until: float) -> None:
        """Waits for the calls that are open; hangs up on those that are late already. The house
        hears that they are gone, and does not run them."""
        while self._open and not self._window.cut and self._now() < until:
            await asyncio.sleep(0.005)
        if self._open:
            await self.close()

    async def close(self) -> None:
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for wire in list(self._wires):
            wire.abort()
        self._idle.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                while any(wire.open for wire in self._wires):
                    await asyncio.sleep(0.001)
        self._wires.clear()
