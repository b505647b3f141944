"""The publishing side of `amqp://`: the way to one model's queue, on a channel of its own.

RabbitMQ's channel waits for a queue that has no leader, with all that is behind on it: a queue in
trouble must not hold up the others.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

from pamqp import commands

from headrace.broker.amqp_wire import Wire
from headrace.broker.port import OnRefused
from headrace.errors import Unavailable

CONFIRM_WAIT_S = 5.0  # not confirmed for so long: refused, although it may yet be taken
NACK_PATIENCE_S = 3.0  # refused by a queue that is not full: tried again for so long
STILL_FULL_S = 0.1  # a queue that was full is not asked again before
LOOK_AGAIN_S = 0.1
EMPTIED = 0.8  # a queue that was full refuses until it is down to this share of its bound

_PERSISTENT = 0x1000
_MESSAGE_ID = 0x0080
_PROPERTIES = struct.Struct(">HBB")  # flags, delivery mode, size of the message id


class _Publish(NamedTuple):
    """One job that the broker has not confirmed."""

    job: bytes
    refused: OnRefused
    at: float

    def refuse(self, detail: str, code: str) -> None:
        self.refused(Unavailable(detail, code=code))


class AmqpOutlet:
    def __init__(
        self,
        wire: Wire,
        queue: str,
        bound: int,
        *,
        depth: Callable[[], Awaitable[int]],
        open_soon: Callable[[], None],
        spawn: Callable[[Awaitable[None]], object],
    ) -> None:
        """`depth`: how many wait in the queue. `open_soon`: see that `set_up` is called."""
        self._wire, self._limit = wire, EMPTIED * (bound - 1)
        self._depth, self._open_soon, self._spawn = depth, open_soon, spawn
        self.channel = wire.channel()
        self.channel.on_confirm = self._on_confirm
        self.channel.on_return = self._on_return
        self._place = self.channel.address("", queue, mandatory=True)
        self._numbers: Iterator[int] = itertools.count(1)
        self._unconfirmed: dict[int, _Publish] = {}
        self._waiting: list[_Publish] = []  # for the channel
        self._doubted: list[_Publish] = []  # refused, why is being asked
        self._asking = False
        self._full_until = 0.0

    @property
    def settled(self) -> bool:
        """Every job was taken or refused."""
        return not (self._unconfirmed or self._waiting or self._doubted)

    async def set_up(self) -> None:
        """A new channel. What the old one did not confirm is published again: it may be there
        twice. Raises as `Channel.call`."""
        await self.channel.open(commands.Confirm.Select())
        self._numbers = itertools.count(1)  # the broker counts from here, too
        again = [*self._unconfirmed.values(), *self._waiting]
        self._unconfirmed, self._waiting = {}, []
        for publish in again:
            self._send(publish)

    def forget(self) -> None:
        """After a lost connection: whoever published does it again when told."""
        self._unconfirmed, self._waiting, self._doubted = {}, [], []

    def publish(self, job: bytes, refused: OnRefused) -> None:
        publish = _Publish(job, refused, self._wire.now())
        if self._wire.blocked:
            publish.refuse(
                f"the broker takes nothing now: {self._wire.blocked}", "broker-unavailable"
            )
        elif self.channel.is_open and not self._asking:
            self._send(publish)
        else:
            self._waiting.append(publish)
            self._open_soon()

    def _send(self, publish: _Publish) -> None:
        number = next(self._numbers)
        self._unconfirmed[number] = publish
        # The number comes back with a job that no queue wants.
        name = b"%d" % number
        properties = _PROPERTIES.pack(_PERSISTENT | _MESSAGE_ID, 2, len(name)) + name
        self.channel.publish(self._place, publish.job, properties)

    # -- what the broker says ------------------------------------------------------------------

    def _on_confirm(self, number: int, multiple: bool, taken: bool) -> None:
        if not multiple:
            publish = self._unconfirmed.pop(number, None)
            if publish and not taken:
                self._on_nack(publish)
            return
        for one in list(itertools.takewhile(lambda its: its <= number, self._unconfirmed)):
            publish = self._unconfirmed.pop(one)
            if not taken:
                self._on_nack(publish)

    def _on_return(self, head: bytes, _: bytes) -> None:
        """No such queue. The job's confirm comes after this and finds nothing."""
        at = 12 + _PROPERTIES.size
        publish = self._unconfirmed.pop(int(head[at : at + head[at - 1]]), None)
        if publish:
            publish.refuse("the model has no queue yet", "model-not-ready")

    def _on_nack(self, publish: _Publish) -> None:
        if self._wire.now() < self._full_until:
            publish.refuse("the queue is full", "queue-full")
            return
        self._doubted.append(publish)
        if not self._asking:
            self._asking = True
            self._spawn(self._ask())

    async def _ask(self) -> None:
        """Full, or without a leader? RabbitMQ refuses in both cases. A channel that met a queue
        between two leaders (3.10) refuses for ever: then a new one is tried, and again."""
        try:
            await asyncio.sleep(0)  # what else was refused with it
            full = await self._depth() >= self._limit
            if not full:
                await asyncio.sleep(LOOK_AGAIN_S)
        except Unavailable:
            full = False
        self._asking = False
        now = self._wire.now()
        refused, self._doubted = self._doubted, []
        if full:
            self._full_until = now + STILL_FULL_S
            refused, self._waiting = [*refused, *self._waiting], []
            for publish in refused:
                publish.refuse("the queue is full", "queue-full")
            return
        for publish in refused:
            if publish.at > now - NACK_PATIENCE_S:
                self._waiting.append(publish)
            else:
                publish.refuse("the queue takes nothing, and is not full", "queue-full")
        if self._waiting:
            self._open_soon()

    def sweep(self) -> None:
        """Refuses what was not confirmed in time."""
        end = self._wire.now() - CONFIRM_WAIT_S
        late = [publish for publish in self._waiting if publish.at < end]
        if late:
            self._waiting = [publish for publish in self._waiting if publish.at >= end]
        for number, publish in list(self._unconfirmed.items()):
            if publish.at >= end:
                break
            late.append(self._unconfirmed.pop(number))
        for publish in late:
            publish.refuse("the broker does not confirm", "broker-unavailable")
