"""The taking side of `amqp://`: one worker's pull on one model's queue.

RabbitMQ pushes: a consumer's prefetch is a window of unacked jobs that every ack opens again, while
`want` says how many may come. The intake keeps the two equal: a worker at work wants as much as it
acks, so that one consumer stands; where more is wanted another is added, where less they are
cancelled, before the acks are written that would open them. Nor has AMQP a timer for a job in hand:
that is kept here, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections import deque
from collections.abc import Callable

from pamqp import commands, decode

from headrace.broker.amqp_wire import ChannelClosed, Wire
from headrace.broker.port import Delivery
from headrace.errors import Unavailable

QUIET_S = 0.02  # a consumer that was sent nothing for so long has nothing on its way
EARLY_S = 0.3  # a job beyond what was wanted waits so long for the next `want`, then goes back
CONSUMERS = 4  # of one intake at most

_HEADERS = 0x2000
_BEFORE_HEADERS = 0xC000  # content type and encoding: never ours
_FLAGS = struct.Struct(">H")


class _Consumer:
    """`credit`: what it may still be sent, its prefetch less its unacked. `opened`: how much more
    when this turn is written. `at`: when it was made, or last sent something."""

    __slots__ = ("at", "credit", "opened")

    def __init__(self, credit: int, at: float) -> None:
        self.credit, self.opened, self.at = credit, 0, at


class AmqpIntake:
    """What may come, what came, and for how long it has been in hand."""

    def __init__(
        self, wire: Wire, queue: str, on_job: Callable[[Delivery], None], ack_wait_s: float
    ) -> None:
        self._wire, self._queue, self._on_job = wire, queue, on_job
        self._ack_wait_s = ack_wait_s
        self.channel = wire.channel()
        self.channel.on_deliver = self._on_deliver
        self.channel.on_cancelled = self._on_cancelled
        self._held: dict[int, AmqpDelivery] = {}  # not settled, oldest first
        self._early: deque[AmqpDelivery] = deque()  # of these, what was not wanted yet
        self._acked: list[int] = []  # in this turn
        self._returned: list[int] = []
        self._names = itertools.count(1)
        self._consumers: dict[bytes, _Consumer] = {}
        self._again: asyncio.TimerHandle | None = None
        self._wanted = 0
        self._turning = False
        self._open = True
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    async def set_up(self) -> None:
        """A new channel. What came by the old one can no longer be settled: it comes again."""
        for delivery in self._held.values():
            delivery.end()
        self._held, self._acked, self._returned = {}, [], []
        self._early.clear()
        self._consumers.clear()
        if self._open:
            await self.channel.open()
            self._turn_soon()
            if not self._timer:
                self._watch()

    def want(self, count: int) -> None:
        if self._open:
            self._wanted = count
            self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            self._wire.at_turns_end(self._turn)

    def _turn(self) -> None:
        while self._early and self._wanted:
            self._hand_over(self._early.popleft())
        self._turning = False
        if not self.channel.is_open:
            return  # `set_up` asks again
        self._adjust()
        self._settle()

    def _adjust(self) -> None:
        """Consumers whose credit is what is wanted, within a factor of two: making one costs the
        queue's log an entry, and wishes change with each job."""
        wanted = self._wanted
        credit = sum(its.credit + its.opened for its in self._consumers.values())
        if not (wanted // 2 < credit <= 2 * wanted or credit == wanted):
            credit = self._cancel(credit)
        for its in self._consumers.values():
            its.credit, its.opened = its.credit + its.opened, 0
        if wanted and credit <= wanted // 2:
            more, tag = min(wanted - credit, 65_535), f"{next(self._names)}"
            self._consumers[tag.encode()] = _Consumer(more, self._loop.time())
            self.channel.say(commands.Basic.Qos(prefetch_count=more))
            self.channel.say(
                commands.Basic.Consume(queue=self._queue, consumer_tag=tag, nowait=True)
            )

    def _cancel(self, credit: int) -> int:
        """Ends consumers that are spent, and all where too much may come. Gives what is left."""
        too_much, too_many = credit > 2 * self._wanted, len(self._consumers) >= CONSUMERS
        flows_since = self._loop.time() - QUIET_S
        for name, its in list(self._consumers.items()):
            if its.credit and too_much and its.at > flows_since:
                # What is on its way to a cancelled consumer goes back, and that counts as an
                # attempt: what was asked for a moment ago is let come, and waits here.
                self._later()
            elif not its.credit or too_much or too_many:
                self.channel.say(commands.Basic.Cancel(consumer_tag=name.decode(), nowait=True))
                del self._consumers[name]
                credit -= its.credit + its.opened
        return credit

    def _later(self) -> None:
        if not self._again:
            self._again = self._loop.call_later(QUIET_S, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self._turn_soon()

    def _settle(self) -> None:
        """Writes this turn's acks: one for all up to the oldest that is still in hand."""
        for tag in self._returned:
            self.channel.give_back(tag)
        self._returned.clear()
        if not self._acked:
            return
        self._acked.sort()
        oldest = next(iter(self._held), self._acked[-1] + 1)
        prefix = 0
        while prefix < len(self._acked) and self._acked[prefix] < oldest:
            prefix += 1
        if prefix:
            self.channel.ack(self._acked[prefix - 1], multiple=prefix > 1)
        for tag in self._acked[prefix:]:
            self.channel.ack(tag)
        self._acked.clear()

    # -- jobs ----------------------------------------------------------------------------------

    def _on_deliver(
        self, consumer: bytes, tag: int, before: bool, _: bytes, head: bytes, data: bytes
    ) -> None:
        its = self._consumers.get(consumer)
        if its:
            its.credit -= 1
            its.at = self._loop.time()
        delivery = AmqpDelivery(self, tag, consumer, attempt(head, before), data)
        self._held[tag] = delivery
        if not self._open:
            delivery.give_back()
        elif self._wanted and not self._early:
            self._hand_over(delivery)
        else:  # was on its way when less was wanted
            delivery.until = self._loop.time() + EARLY_S
            self._early.append(delivery)
            self._turn_soon()

    def _hand_over(self, delivery: AmqpDelivery) -> None:
        self._wanted -= 1
        delivery.until = self._loop.time() + self._ack_wait_s
        self._on_job(delivery)

    def settled(self, delivery: AmqpDelivery, *, done: bool) -> None:
        del self._held[delivery.tag]
        (self._acked if done else self._returned).append(delivery.tag)
        its = self._consumers.get(delivery.consumer)
        if its:
            its.opened += 1
        self._turn_soon()

    def patience(self) -> float:
        """When a job held now is given back."""
        return self._loop.time() + self._ack_wait_s

    def _watch(self) -> None:
        """Gives back what is past its time: forgotten by its holder, or come early in vain."""
        now = self._loop.time()
        late = [delivery for delivery in self._held.values() if delivery.until <= now]
        for delivery in late:
            if delivery in self._early:
                self._early.remove(delivery)
            delivery.give_back()
        self._timer = self._loop.call_later(min(0.1, self._ack_wait_s / 10), self._watch)

    def _on_cancelled(self) -> None:
        """Somebody removed the queue: the channel is made again, and the queue with it."""
        self._consumers.clear()
        if self.channel.on_closed:
            self.channel.on_closed("the queue was removed")

    async def close(self) -> None:
        self._open, self._wanted = False, 0
        while self._early:
            self._early.popleft().give_back()
        # What is on its way is here when the answer is, and was given back.
        with contextlib.suppress(Unavailable, ChannelClosed):
            while self._consumers and self.channel.is_open:
                name, _ = self._consumers.popitem()
                cancel = commands.Basic.Cancel(consumer_tag=name.decode())
                await self.channel.call(cancel, wait_s=1.0)

    def stop(self) -> None:
        for timer in (self._timer, self._again):
            if timer:
                timer.cancel()


class AmqpDelivery:
    __slots__ = ("_intake", "attempt", "consumer", "data", "tag", "until")

    def __init__(
        self, intake: AmqpIntake, tag: int, consumer: bytes, attempt: int, data: bytes
    ) -> None:
        self._intake: AmqpIntake | None = intake  # None once it is settled, or of a life before
        self.tag, self.consumer, self.attempt, self.data = tag, consumer, attempt, data
        self.until = 0.0

    def ack(self) -> None:
        if self._intake:
            self._intake.settled(self, done=True)
            self._intake = None

    def hold(self) -> None:
        if self._intake:
            self.until = self._intake.patience()

    def give_back(self) -> None:
        if self._intake:
            self._intake.settled(self, done=False)
            self._intake = None

    def end(self) -> None:
        self._intake = None


def attempt(head: bytes, before: bool) -> int:
    """1 for the first delivery. Only a job that was delivered before has the count with it."""
    (flags,) = _FLAGS.unpack_from(head, 12)
    if flags & _HEADERS and not flags & _BEFORE_HEADERS:
        _, table = decode.field_table(head[14:])
        count = table.get("x-delivery-count")
        if isinstance(count, int):
            return max(1 + before, 1 + count)
    return 1 + before
