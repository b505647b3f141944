"""`memory://name`: a broker in this process, for tests and for a house of one process.

Brokers of one name in one process share one hub. Same promises as the others, no durability.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from headrace.broker.port import ACK_WAIT_S, QUEUE_BOUND, Delivery, Depth, OnMessage, OnRefused
from headrace.errors import Unavailable


class _Held:
    """One job and who has it. Timer and token guard against a late ack of an old delivery."""

    __slots__ = ("attempt", "data", "queue", "timer", "token")

    def __init__(self, queue: _Queue, data: bytes) -> None:
        self.queue, self.data, self.attempt, self.token = queue, data, 0, 0
        self.timer: asyncio.TimerHandle | None = None


class _Delivery:
    __slots__ = ("_held", "_token", "attempt", "data")

    def __init__(self, held: _Held) -> None:
        self._held, self._token = held, held.token
        self.data, self.attempt = held.data, held.attempt

    def _mine(self) -> bool:
        return self._held.token == self._token and self._held in self._held.queue.in_hand

    def ack(self) -> None:
        if self._mine():
            self._held.queue.forget(self._held)

    def hold(self) -> None:
        if self._mine():
            self._held.queue.arm(self._held)

    def give_back(self) -> None:
        if self._mine():
            self._held.queue.back(self._held)


class _Queue:
    def __init__(self, ack_wait_s: float, bound: int) -> None:
        self.ack_wait_s, self.bound = ack_wait_s, bound
        self.waiting: deque[_Held] = deque()
        self.in_hand: set[_Held] = set()
        self.intakes: deque[_Intake] = deque()

    def put(self, data: bytes) -> bool:
        if len(self.waiting) + len(self.in_hand) >= self.bound:
            return False
        self.waiting.append(_Held(self, data))
        self.serve()
        return True

    def serve(self) -> None:
        """Hands waiting jobs to intakes with credit, turn by turn."""
        while self.waiting and any(intake.credit for intake in self.intakes):
            self.intakes.rotate(-1)
            intake = self.intakes[-1]
            if intake.credit:
                intake.credit -= 1
                self._give(self.waiting.popleft(), intake)

    def _give(self, held: _Held, intake: _Intake) -> None:
        held.attempt += 1
        held.token += 1
        self.in_hand.add(held)
        self.arm(held)
        delivery = _Delivery(held)
        asyncio.get_running_loop().call_soon(intake.deliver, delivery)

    def arm(self, held: _Held) -> None:
        if held.timer:
            held.timer.cancel()
        loop = asyncio.get_running_loop()
        held.timer = loop.call_later(self.ack_wait_s, self.back, held)

    def forget(self, held: _Held) -> None:
        self.in_hand.discard(held)
        if held.timer:
            held.timer.cancel()

    def back(self, held: _Held) -> None:
        self.forget(held)
        self.waiting.appendleft(held)
        self.serve()


class _Intake:
    def __init__(self, queue: _Queue, on_job: Callable[[Delivery], None]) -> None:
        self._queue, self._on_job = queue, on_job
        self.credit = 0
        self.open = True
        queue.intakes.append(self)

    def deliver(self, delivery: Delivery) -> None:
        if self.open:
            self._on_job(delivery)
        else:
            delivery.give_back()

    def want(self, count: int) -> None:
        self.credit = count
        self._queue.serve()

    async def close(self) -> None:
        self.open, self.credit = False, 0
        self._queue.intakes.remove(self)


class _Hub:
    def __init__(self) -> None:
        self.queues: dict[str, _Queue] = {}
        self.listeners: dict[str, list[OnMessage]] = {}


_hubs: dict[str, _Hub] = {}


class MemoryBroker:
    def __init__(
        self, url: str, *, ack_wait_s: float = ACK_WAIT_S, bound: int = QUEUE_BOUND, **_: Any
    ) -> None:
        self._name = urlsplit(url).netloc
        self._ack_wait_s, self._bound = ack_wait_s, bound
        self._mine: list[tuple[str, OnMessage]] = []

    @property
    def _hub(self) -> _Hub:
        return _hubs.setdefault(self._name, _Hub())

    async def open(self) -> None:
        _hubs.setdefault(self._name, _Hub())

    async def close(self) -> None:
        for address, listener in self._mine:
            self._hub.listeners[address].remove(listener)
        self._mine.clear()

    async def ensure(self, model: str) -> None:
        self._hub.queues.setdefault(model, _Queue(self._ack_wait_s, self._bound))

    def publish(self, model: str, job: bytes, refused: OnRefused) -> None:
        queue = self._hub.queues.get(model)
        if queue is None:
            refused(Unavailable(f"no queue for model {model!r}", code="model-not-ready"))
        elif not queue.put(job):
            refused(Unavailable("the queue is full", code="queue-full"))

    async def take(self, model: str, on_job: Callable[[Delivery], None]) -> _Intake:
        await self.ensure(model)
        return _Intake(self._hub.queues[model], on_job)

    def send(self, address: str, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._hub.listeners.get(address, ()):
            loop.call_soon(listener, data)

    async def listen(self, address: str, on_message: OnMessage) -> None:
        self._hub.listeners.setdefault(address, []).append(on_message)
        self._mine.append((address, on_message))

    def on_restored(self, again: Callable[[], None]) -> None:
        """Memory has no connection to lose."""

    async def depth(self, model: str) -> Depth:
        queue = self._hub.queues.get(model)
        return Depth(len(queue.waiting), len(queue.in_hand)) if queue else Depth(0, 0)
