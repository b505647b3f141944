"""`amqp://user:password@host:port[,host:port]/vhost`, `amqps://`: RabbitMQ.

One quorum queue a model, with confirms and a bound that refuses: `amqp_outlet` publishes to it,
`amqp_intake` takes from it. Jobs of a dead or stopped process come back when its connection ends.
Names: queue `headrace.<house>.jobs.<model>`, exchange `headrace.<house>.to`, whose routing keys are
the addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from pamqp import commands

from headrace.background import Background
from headrace.broker.amqp_intake import AmqpIntake
from headrace.broker.amqp_outlet import AmqpOutlet
from headrace.broker.amqp_wire import Channel, ChannelClosed, Wire
from headrace.broker.port import ACK_WAIT_S, QUEUE_BOUND, Delivery, Depth, OnMessage, OnRefused
from headrace.errors import Unavailable

SWEEP_S = 0.5
AGAIN_S = 0.1
DELIVERY_LIMIT = 1_000_000  # the worker counts attempts and says why; the queue would drop
ADDRESSES_KEPT = 10_000  # gateways come and go


class AmqpBroker:
    def __init__(
        self,
        url: str,
        *,
        house: str = "house",
        name: str = "headrace",
        ack_wait_s: float = ACK_WAIT_S,
        bound: int = QUEUE_BOUND,
    ) -> None:
        self._wire = Wire(url, name)
        self._house, self._exchange = house, f"headrace.{house}.to"
        self._ack_wait_s, self._bound = ack_wait_s, bound
        self._outlets: dict[str, AmqpOutlet] = {}
        self._known: set[str] = set()  # models whose queues this side made
        self._places: dict[str, bytes] = {}  # of an address, as a publish to it begins
        self._heard: dict[str, list[OnMessage]] = {}
        self._mine = ""  # the queue of these addresses
        self._remade = True  # False from a reconnection until all is there again
        self._life = 0  # connections after the first
        self._mending: set[Channel] = set()
        self._intakes: list[AmqpIntake] = []
        self._background = Background()
        self._again: list[Callable[[], None]] = []

    async def open(self) -> None:
        await self._wire.open()
        self._control = self._wire.channel()
        self._to = self._wire.channel()
        self._control_lock = asyncio.Lock()
        self._to.on_deliver = self._on_message
        self._keep(self._to, self._set_up_to)
        try:
            await self._control.open()
            await self._set_up_to()
        except (Unavailable, ChannelClosed) as error:
            await self._wire.close()
            raise _unavailable(error) from None
        self._wire.restored.append(self._restore)
        self._background.spawn(self._sweep())

    async def close(self) -> None:
        await self._background.close()
        for intake in self._intakes:
            intake.stop()
        await self._wire.close()

    # -- channels ------------------------------------------------------------------------------

    async def _set_up_to(self) -> None:
        """The house's exchange, and a queue of this connection's own with all its addresses."""
        self._mine = ""
        await self._to.open(commands.Exchange.Declare(exchange=self._exchange))
        declared: Any = await self._to.call(
            commands.Queue.Declare(exclusive=True, auto_delete=True)
        )
        self._mine = declared.queue
        for address in list(self._heard):
            await self._bind(address)
        await self._to.call(commands.Basic.Consume(queue=self._mine, no_ack=True))

    async def _bind(self, address: str) -> None:
        await self._to.call(
            commands.Queue.Bind(queue=self._mine, exchange=self._exchange, routing_key=address)
        )

    def _keep(self, channel: Channel, set_up: Callable[[], Awaitable[None]]) -> None:
        """Sets the channel up again when the server alone closes it."""
        channel.on_closed = lambda _: self._mend(channel, set_up, AGAIN_S)

    def _mend(
        self, channel: Channel, set_up: Callable[[], Awaitable[None]], wait_s: float = 0.0
    ) -> None:
        if channel not in self._mending and self._wire.up and self._remade:  # else `_restore` does
            self._mending.add(channel)
            self._background.spawn(self._set_up_again(channel, set_up, wait_s))

    async def _set_up_again(
        self, channel: Channel, set_up: Callable[[], Awaitable[None]], wait_s: float
    ) -> None:
        life = self._life
        try:
            await asyncio.sleep(wait_s)
            while self._life == life and self._wire.up:
                with contextlib.suppress(Unavailable, ChannelClosed):
                    await set_up()
                    return
                await asyncio.sleep(AGAIN_S)
        finally:
            self._mending.discard(channel)

    def _restore(self) -> None:
        """The connection is back, perhaps to another node: channels, queues, addresses and
        consumers are made again before anybody is told to publish again."""
        self._life += 1
        self._remade = False
        self._background.spawn(self._restore_all(self._life))

    async def _restore_all(self, life: int) -> None:
        while self._life == life:  # else the connection was lost again meanwhile
            try:
                await self._control.open()
                await self._set_up_to()
                for model in self._known.union(self._outlets):
                    await self.ensure(model)
                for intake in self._intakes:
                    await intake.set_up()
                for outlet in list(self._outlets.values()):
                    outlet.forget()
                    await outlet.set_up()
            except (Unavailable, ChannelClosed):  # a node that is up before its queues are
                await asyncio.sleep(AGAIN_S)
            else:
                break
        else:
            return
        self._remade = True
        for outlet in self._outlets.values():
            if not outlet.channel.is_open:  # new since then
                self._mend(outlet.channel, outlet.set_up)
        for tell in self._again:
            tell()

    def on_restored(self, again: Callable[[], None]) -> None:
        self._again.append(again)

    # -- queues --------------------------------------------------------------------------------

    def _queue(self, model: str) -> str:
        return f"headrace.{self._house}.jobs.{model}"

    async def _ask(self, method: Any) -> Any:
        """On a channel of its own for questions: a no closes it, and nobody else's work with it."""
        async with self._control_lock:
            if not self._control.is_open:
                await self._control.open()
            return await self._control.call(method)

    async def ensure(self, model: str) -> None:
        queue = self._queue(model)
        arguments: dict[str, Any] = {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            # It refuses from the first job beyond, of which it learns too late for those behind.
            "x-max-length": max(0, self._bound - 1),
            "x-overflow": "reject-publish",
        }
        try:
            await self._ask(commands.Queue.Declare(queue=queue, durable=True, arguments=arguments))
        except ChannelClosed as refusal:
            if refusal.code != 406:
                raise _unavailable(refusal) from None
            await self._passive(queue)  # made with another bound: taken as it is
        self._known.add(model)

    async def _passive(self, queue: str) -> int:
        """Jobs that wait there. Raises Unavailable where there is none."""
        try:
            return int(
                (await self._ask(commands.Queue.Declare(queue=queue, passive=True))).message_count
            )
        except ChannelClosed as refusal:
            raise _unavailable(refusal) from None

    async def depth(self, model: str) -> Depth:
        return Depth(await self._passive(self._queue(model)), None)

    # -- publishing ----------------------------------------------------------------------------

    def publish(self, model: str, job: bytes, refused: OnRefused) -> None:
        outlet = self._outlets.get(model) or self._outlet(model)
        outlet.publish(job, refused)

    def _outlet(self, model: str) -> AmqpOutlet:
        queue = self._queue(model)
        outlet = self._outlets[model] = AmqpOutlet(
            self._wire,
            queue,
            self._bound,
            depth=partial(self._passive, queue),
            open_soon=lambda: self._mend(outlet.channel, outlet.set_up),
            spawn=self._background.spawn,
        )
        self._keep(outlet.channel, outlet.set_up)
        return outlet

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            for outlet in list(self._outlets.values()):
                outlet.sweep()

    # -- taking --------------------------------------------------------------------------------

    async def take(self, model: str, on_job: Callable[[Delivery], None]) -> AmqpIntake:
        await self.ensure(model)
        intake = AmqpIntake(self._wire, self._queue(model), on_job, self._ack_wait_s)

        async def set_up() -> None:
            await self.ensure(model)
            await intake.set_up()

        self._keep(intake.channel, set_up)
        try:
            await intake.set_up()
        except ChannelClosed as refusal:
            raise _unavailable(refusal) from None
        self._intakes.append(intake)
        return intake

    # -- addresses -----------------------------------------------------------------------------

    def send(self, address: str, data: bytes) -> None:
        place = self._places.get(address)
        if place is None:
            if len(self._places) >= ADDRESSES_KEPT:
                self._places.clear()
            place = self._places[address] = self._to.address(self._exchange, address)
        if self._to.is_open:
            self._to.publish(place, data)

    async def listen(self, address: str, on_message: OnMessage) -> None:
        listeners = self._heard.setdefault(address, [])
        listeners.append(on_message)
        if len(listeners) > 1 or not self._mine:
            return
        try:
            await self._bind(address)
        except Unavailable:
            return  # lost meanwhile: bound when it is back
        except ChannelClosed as refusal:
            assert self._to.on_closed
            self._to.on_closed(refusal.text)

    def _on_message(self, _c: bytes, _t: int, _r: bool, key: bytes, _h: bytes, data: bytes) -> None:
        for on_message in self._heard.get(key.decode(), ()):
            on_message(data)


def _unavailable(error: Exception) -> Unavailable:
    if isinstance(error, Unavailable):
        return error
    return Unavailable(f"the broker refused: {error}", code="broker-unavailable")
