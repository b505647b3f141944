"""The exam every broker adapter passes: `await Exam(make).run_all()`, or one test a method.

`make(**options)` gives a new, unopened broker of one and the same house each time it is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from headrace.broker.port import Broker, Delivery, Depth
from headrace.errors import Refusal

Make = Callable[..., Broker]
MODEL = "exam"


class Worker:
    """Collects what it takes."""

    def __init__(self) -> None:
        self.got: list[Delivery] = []
        self._arrived = asyncio.Event()

    def __call__(self, delivery: Delivery) -> None:
        self.got.append(delivery)
        self._arrived.set()

    async def until(self, count: int, wait_s: float = 5.0) -> list[Delivery]:
        async def wait() -> None:
            while len(self.got) < count:
                self._arrived.clear()
                await self._arrived.wait()

        await asyncio.wait_for(wait(), wait_s)
        return self.got


def no_refusal(refusal: Refusal) -> None:
    raise AssertionError(f"refused: {refusal!r}")


async def settle(seconds: float = 0.25) -> None:
    """Long enough for a message that is on its way; used to show that none is."""
    await asyncio.sleep(seconds)


def check(depth: Depth, waiting: int, in_hand: int) -> None:
    """A broker may not know what is in hand; what it says is right."""
    assert depth.waiting == waiting, depth
    assert depth.in_hand in (None, in_hand), depth


class Exam:
    """One method, one promise of `broker.port`. `ack_wait_s` of the brokers under exam is 1 s."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self._open: list[Broker] = []

    async def broker(self, **options: Any) -> Broker:
        broker = self.make(ack_wait_s=1.0, **options)
        await broker.open()
        self._open.append(broker)
        return broker

    async def close(self) -> None:
        for broker in self._open:
            await broker.close()

    async def a_job_reaches_one_worker(self) -> None:
        door, one, two = await self.broker(), await self.broker(), await self.broker()
        first, second = Worker(), Worker()
        intakes = [await one.take(MODEL, first), await two.take(MODEL, second)]
        for intake in intakes:
            intake.want(50)
        for number in range(40):
            door.publish(MODEL, b"%d" % number, no_refusal)
        for _ in range(100):
            if len(first.got) + len(second.got) >= 40:
                break
            await asyncio.sleep(0.05)
        await settle()
        datas = sorted(int(d.data) for d in first.got + second.got)
        assert datas == list(range(40)), datas
        for delivery in first.got + second.got:
            assert delivery.attempt == 1
            delivery.ack()
        await settle(1.6)
        assert len(first.got) + len(second.got) == 40, "an acked job was delivered again"
        check(await door.depth(MODEL), 0, 0)

    async def nothing_comes_unasked(self) -> None:
        broker, worker = await self.broker(), Worker()
        intake = await broker.take(MODEL, worker)
        for number in range(10):
            broker.publish(MODEL, b"%d" % number, no_refusal)
        await settle()
        assert worker.got == []
        intake.want(3)
        await worker.until(3)
        await settle()
        assert len(worker.got) == 3
        check(await broker.depth(MODEL), 7, 3)

    async def an_unacked_job_comes_again(self) -> None:
        broker, worker = await self.broker(), Worker()
        intake = await broker.take(MODEL, worker)
        intake.want(10)
        broker.publish(MODEL, b"x", no_refusal)
        await worker.until(1)
        await worker.until(2)
        assert [d.attempt for d in worker.got] == [1, 2]
        assert worker.got[1].data == b"x"
        worker.got[1].ack()
        await settle(1.6)
        assert len(worker.got) == 2

    async def a_held_job_does_not(self) -> None:
        broker, worker = await self.broker(), Worker()
        intake = await broker.take(MODEL, worker)
        intake.want(10)
        broker.publish(MODEL, b"x", no_refusal)
        [delivery] = await worker.until(1)
        for _ in range(6):
            await asyncio.sleep(0.4)
            delivery.hold()
        assert len(worker.got) == 1
        delivery.ack()

    async def a_job_given_back_comes_at_once(self) -> None:
        broker, one, two = await self.broker(), Worker(), Worker()
        intake = await broker.take(MODEL, one)
        intake.want(1)
        broker.publish(MODEL, b"x", no_refusal)
        [delivery] = await one.until(1)
        other = await broker.take(MODEL, two)
        other.want(1)
        delivery.give_back()
        [again] = await two.until(1, wait_s=0.8)
        assert again.attempt == 2
        again.ack()

    async def a_dead_workers_jobs_come_to_another(self) -> None:
        door, doomed, heir = await self.broker(), await self.broker(), await self.broker()
        one, two = Worker(), Worker()
        (await doomed.take(MODEL, one)).want(50)
        for number in range(50):
            door.publish(MODEL, b"%d" % number, no_refusal)
        await one.until(50)
        await doomed.close()
        (await heir.take(MODEL, two)).want(50)
        await two.until(50)
        assert sorted(int(d.data) for d in two.got) == list(range(50))
        for delivery in two.got:
            delivery.ack()

    async def a_closed_intake_gives_back(self) -> None:
        broker, one, two = await self.broker(), Worker(), Worker()
        intake = await broker.take(MODEL, one)
        intake.want(5)
        await intake.close()
        broker.publish(MODEL, b"x", no_refusal)
        other = await broker.take(MODEL, two)
        other.want(5)
        [delivery] = await two.until(1, wait_s=3.0)
        assert one.got == []
        delivery.ack()

    async def a_full_queue_refuses(self) -> None:
        broker = await self.broker(bound=20)
        await broker.ensure(MODEL)
        refusals: list[Refusal] = []
        for number in range(20):
            broker.publish(MODEL, b"%d" % number, refusals.append)
        await settle()
        assert not refusals
        for number in range(20, 30):  # one by one: the broker may learn of the bound as it answers
            broker.publish(MODEL, b"%d" % number, refusals.append)
            await asyncio.sleep(0.02)
        for _ in range(60):
            if len(refusals) >= 10:
                break
            await asyncio.sleep(0.05)
        assert len(refusals) == 10, len(refusals)
        assert {(r.status, r.code) for r in refusals} == {(503, "queue-full")}
        worker = Worker()
        (await broker.take(MODEL, worker)).want(30)
        await worker.until(20)
        assert sorted(int(d.data) for d in worker.got) == list(range(20))

    async def a_queue_made_with_another_bound_is_still_ours(self) -> None:
        first, later = await self.broker(bound=20), await self.broker(bound=30)
        await first.ensure(MODEL)
        await later.ensure(MODEL)
        worker = Worker()
        (await later.take(MODEL, worker)).want(1)
        later.publish(MODEL, b"x", no_refusal)
        await worker.until(1)

    async def no_queue_refuses(self) -> None:
        broker = await self.broker()
        refusals: list[Refusal] = []
        broker.publish("nobody-made-it", b"x", refusals.append)
        await settle(0.5)
        assert [(r.status, r.code) for r in refusals] == [(503, "model-not-ready")]

    async def an_address_reaches_all_who_listen(self) -> None:
        one, two = await self.broker(), await self.broker()
        heard: list[tuple[int, bytes]] = []
        await one.listen("a1", lambda data: heard.append((1, data)))
        await two.listen("a1", lambda data: heard.append((2, data)))
        await two.listen("a2", lambda data: heard.append((3, data)))
        await settle()
        one.send("a1", b"x" * 70_000)
        one.send("nobody", b"y")
        await settle()
        assert sorted(heard) == [(1, b"x" * 70_000), (2, b"x" * 70_000)]

    async def large_and_binary_jobs_arrive_whole(self) -> None:
        broker, worker = await self.broker(), Worker()
        (await broker.take(MODEL, worker)).want(10)
        jobs = [b"", b"\r\n", b"MSG a 1 3\r\nabc\r\n", bytes(range(256)) * 256, b"z" * 700_000]
        for job in jobs:
            broker.publish(MODEL, job, no_refusal)
        await worker.until(len(jobs))
        assert sorted(d.data for d in worker.got) == sorted(jobs)


QUESTIONS = [name for name in vars(Exam) if not name.startswith("_") and name not in
             ("broker", "close", "make")]  # fmt: skip
