"""RabbitMQ: the exam over one node and over a cluster, and what only a real broker can do to us."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import re
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from headrace.broker.amqp import AmqpBroker
from headrace.broker.port import Delivery
from headrace.errors import Refusal, Unavailable
from headrace.house import free_port
from headrace.testing.broker_exam import MODEL, QUESTIONS, Exam, Worker, no_refusal
from headrace.testing.services import RabbitMQ

from .self_signed import self_signed

#: So many leaders are killed, one after the other.
ROUNDS = int(os.environ.get("HEADRACE_LEADER_KILLS", "1"))


def all_of(service: RabbitMQ) -> str:
    """One URL with every node."""
    first, *others = service.urls
    return first.rstrip("/") + "".join(
        f",{urlsplit(url).netloc.partition('@')[2]}" for url in others
    )


@contextlib.asynccontextmanager
async def opened(url: str, count: int, **options: Any) -> AsyncIterator[list[AmqpBroker]]:
    """So many brokers of one new house."""
    house = f"amqp-{secrets.token_hex(4)}"
    brokers = [AmqpBroker(url, house=house, **options) for _ in range(count)]
    async with all_open(*brokers):
        yield brokers


@contextlib.asynccontextmanager
async def all_open(*brokers: AmqpBroker) -> AsyncIterator[None]:
    try:
        for broker in brokers:
            await broker.open()
        yield
    finally:
        for broker in brokers:
            await broker.close()


async def until(true: Callable[[], bool], wait_s: float = 10.0) -> None:
    async with asyncio.timeout(wait_s):
        while not true():
            await asyncio.sleep(0.01)


async def waiting(broker: AmqpBroker) -> int:
    return (await broker.depth(MODEL)).waiting


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("service", ["rabbitmq", "rabbitmq_cluster"])
async def test_exam(service: str, question: str, request: pytest.FixtureRequest) -> None:
    url, house = all_of(request.getfixturevalue(service)), f"exam-{secrets.token_hex(4)}"
    exam = Exam(lambda **options: AmqpBroker(url, house=house, **options))
    try:
        await getattr(exam, question)()
    finally:
        await exam.close()


# -- who cannot be reached ---------------------------------------------------------------------


async def test_nobody_there_is_said_so() -> None:
    port = free_port()
    nowhere = AmqpBroker(f"amqp://user:secret@127.0.0.1:{port}/cellar")
    with pytest.raises(Unavailable) as caught:
        await nowhere._wire.open(wait_s=0.1)
    assert caught.value.code == "broker-unavailable"
    assert f"127.0.0.1:{port}" in caught.value.detail and "'cellar'" in caught.value.detail
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize(
    ("credentials", "vhost", "why"),
    [
        ("headrace:secret", "", "ACCESS_REFUSED"),
        ("headrace:headrace", "cellar", "cellar not found"),
    ],
)
async def test_a_wrong_password_or_vhost_is_said_so(
    credentials: str, vhost: str, why: str, rabbitmq: RabbitMQ
) -> None:
    port = urlsplit(rabbitmq.url).port
    wrong = AmqpBroker(f"amqp://{credentials}@127.0.0.1:{port}/{vhost}")
    with pytest.raises(Unavailable) as caught:
        await wrong._wire.open(wait_s=0.0)
    assert why in caught.value.detail and "secret" not in caught.value.detail


async def test_the_first_host_that_is_up_is_taken(rabbitmq: RabbitMQ) -> None:
    url = rabbitmq.url.replace("@", f"@127.0.0.1:{free_port()},")
    async with opened(url, 1) as [broker]:
        await broker.ensure(MODEL)
        assert await waiting(broker) == 0


async def test_tls(rabbitmq: RabbitMQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a door with a certificate, in front of the node; one that nobody vouches for is not
    trusted."""
    certificate = self_signed(tmp_path / "door.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    port = urlsplit(rabbitmq.url).port
    tasks: set[asyncio.Task[Any]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    door = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context)
    place = f"127.0.0.1:{door.sockets[0].getsockname()[1]}"
    with pytest.raises(Unavailable, match="certificate"):
        await AmqpBroker(f"amqps://headrace:headrace@{place}/")._wire.open(wait_s=0.0)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with opened(f"amqps://headrace:headrace@{place}/", 1) as [broker]:
        worker = Worker()
        (await broker.take(MODEL, worker)).want(1)
        broker.publish(MODEL, b"x" * 300_000, no_refusal)
        [delivery] = await worker.until(1)
        assert delivery.data == b"x" * 300_000
        delivery.ack()
    door.close()
    await asyncio.gather(*tasks)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()


# -- pulling -----------------------------------------------------------------------------------


async def test_a_want_may_be_taken_back(rabbitmq: RabbitMQ) -> None:
    """What its worker no longer wants goes to another; acks do not open the window again."""
    async with opened(rabbitmq.url, 2) as [one, two]:
        first, second = Worker(), Worker()
        intake = await one.take(MODEL, first)
        intake.want(10)
        for number in range(4):
            one.publish(MODEL, b"%d" % number, no_refusal)
        await first.until(4)
        intake.want(0)
        for delivery in first.got:
            delivery.ack()
        await asyncio.sleep(0.1)
        for number in range(4, 10):
            one.publish(MODEL, b"%d" % number, no_refusal)
        await asyncio.sleep(0.1)
        assert len(first.got) == 4 and await waiting(two) == 6
        (await two.take(MODEL, second)).want(10)
        await second.until(6)
        assert {delivery.attempt for delivery in second.got} == {1}


class Fickle:
    """A worker that wants now this, now that, and acks in any order."""

    taken: set[bytes]

    def __init__(self, taken: set[bytes], seed: int) -> None:
        self.taken, self.faults = taken, 0
        self._dice, self._hand, self._allowed = random.Random(seed), [], 0

    def __call__(self, delivery: Delivery) -> None:
        self._allowed -= 1
        self.faults += self._allowed < 0 or delivery.data in self.taken
        self.taken.add(delivery.data)
        self._hand.append(delivery)

    async def work(self, broker: AmqpBroker, count: int) -> None:
        intake = await broker.take(MODEL, self)
        while len(self.taken) < count or self._hand:
            await asyncio.sleep(self._dice.choice([0, 0, 0.001, 0.005]))
            if self._dice.random() < 0.6:
                self._allowed = self._dice.choice([0, 1, 2, 8, 32, 64])
                intake.want(self._allowed)
            self._dice.shuffle(self._hand)
            for _ in range(self._dice.randint(0, len(self._hand))):
                self._hand.pop().ack()


async def test_wishes_that_change_all_the_time(rabbitmq: RabbitMQ) -> None:
    """Never does more come than was wanted, each job is taken once, and none is left."""
    count, taken = 3000, set()
    async with opened(rabbitmq.url, 4, ack_wait_s=60.0) as [door, *brokers]:
        await door.ensure(MODEL)
        workers = [Fickle(taken, seed) for seed in range(3)]

        async def publish() -> None:
            for number in range(count):
                door.publish(MODEL, b"%d" % number, no_refusal)
                if number % 20 == 0:
                    await asyncio.sleep(0.001)

        async with asyncio.timeout(30):
            pairs = zip(workers, brokers, strict=True)
            await asyncio.gather(publish(), *(it.work(broker, count) for it, broker in pairs))
            while await waiting(door):
                await asyncio.sleep(0.05)
        assert len(taken) == count
        assert [worker.faults for worker in workers] == [0, 0, 0]


async def test_many_at_once_beyond_the_bound(rabbitmq: RabbitMQ) -> None:
    """It refuses a little late, and each job is either refused or there."""
    async with opened(rabbitmq.url, 1, bound=500) as [broker]:
        await broker.ensure(MODEL)
        refusals: list[Refusal] = []
        for _ in range(2000):
            broker.publish(MODEL, b"x" * 200, refusals.append)
        await until(lambda: broker._outlets[MODEL].settled)
        there = await waiting(broker)
        assert 500 <= there == 2000 - len(refusals) <= 1000
        assert {refusal.code for refusal in refusals} == {"queue-full"}


async def test_a_queue_that_somebody_removes_is_made_again(rabbitmq: RabbitMQ) -> None:
    from pamqp import commands

    async with opened(rabbitmq.url, 2) as [door, broker]:
        worker = Worker()
        (await broker.take(MODEL, worker)).want(10)
        await door.ensure(MODEL)
        await door._ask(commands.Queue.Delete(queue=door._queue(MODEL)))
        refusals: list[Refusal] = []
        async with asyncio.timeout(10):
            while not worker.got:
                door.publish(MODEL, b"x", refusals.append)
                await asyncio.sleep(0.05)
        assert {refusal.code for refusal in refusals} <= {"model-not-ready", "queue-full"}


async def test_a_blocked_broker_refuses_at_once(rabbitmq: RabbitMQ) -> None:
    """Over its limit of memory RabbitMQ reads no more from who publishes: doors say so."""
    node = rabbitmq.nodes[0]
    async with opened(rabbitmq.url, 1) as [broker]:
        await broker.ensure(MODEL)
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.000001")
        try:
            refusals: list[Refusal] = []
            broker.publish(MODEL, b"1", no_refusal)  # only then are we told
            await until(lambda: bool(broker._wire.blocked))
            broker.publish(MODEL, b"2", refusals.append)
            assert [refusal.code for refusal in refusals] == ["broker-unavailable"]
            assert "memory" in refusals[0].detail
        finally:
            await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")
        await until(lambda: not broker._wire.blocked)
        broker.publish(MODEL, b"3", no_refusal)
        async with asyncio.timeout(5):
            while await waiting(broker) < 2:
                await asyncio.sleep(0.02)


# -- who dies, who stops -----------------------------------------------------------------------


#: A queue that was made a second or two before SIGKILL comes back without a leader, and empty: a
#: fault of RabbitMQ's (docs/decisions/0014).
ON_DISK_S = 5.0


class Door:
    """Publishes numbers, and publishes them again when told, as `dispatch` does."""

    def __init__(self, broker: AmqpBroker) -> None:
        self.broker = broker
        self.sent = 0
        self.refusals: list[Refusal] = []
        broker.on_restored(self.again)

    def publish(self) -> None:
        self.broker.publish(MODEL, b"%d" % self.sent, self.refusals.append)
        self.sent += 1

    def again(self) -> None:
        for number in range(self.sent):
            self.broker.publish(MODEL, b"%d" % number, self.refusals.append)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_what_was_confirmed_outlives_the_broker(
    how: signal.Signals, rabbitmq: RabbitMQ
) -> None:
    """Killed in mid-traffic, nobody publishes again: all that it confirmed is on its disk."""
    node = rabbitmq.nodes[0]
    async with opened(rabbitmq.url, 2) as [door, broker]:
        worker = Worker()
        intake = await broker.take(MODEL, worker)
        await door.ensure(MODEL)
        await asyncio.sleep(ON_DISK_S)
        for number in range(1000):
            door.publish(MODEL, b"%d" % number, no_refusal)
            if number % 50 == 0:
                await asyncio.sleep(0.005)
        outlet = door._outlets[MODEL]
        left = [*outlet._unconfirmed.values(), *outlet._waiting, *outlet._doubted]
        confirmed = {b"%d" % number for number in range(1000)} - {publish.job for publish in left}
        assert len(confirmed) > 100
        await asyncio.to_thread(node.kill if how is signal.SIGKILL else node.stop)
        await asyncio.to_thread(node.start)
        await until(lambda: door._wire.up and broker._wire.up, 20.0)
        intake.want(2000)
        await until(lambda: confirmed <= {delivery.data for delivery in worker.got}, 20.0)
        for delivery in worker.got:
            delivery.ack()


async def test_a_broker_that_is_killed_and_comes_back(rabbitmq: RabbitMQ) -> None:
    """Jobs published before, during and after are all taken, none is refused, and what was taken
    in the old life can no longer be settled."""
    node = rabbitmq.nodes[0]
    async with opened(rabbitmq.url, 2, ack_wait_s=60.0) as [door_broker, broker]:
        worker, heard = Worker(), []
        intake = await broker.take(MODEL, worker)
        await broker.listen("me", heard.append)
        await door_broker.ensure(MODEL)
        await asyncio.sleep(ON_DISK_S)
        door = Door(door_broker)
        for _ in range(10):
            door.publish()
        intake.want(2)
        held = (await worker.until(2))[:2]
        await asyncio.to_thread(node.kill)
        for _ in range(5):
            door.publish()  # into nothing
        starting = asyncio.ensure_future(asyncio.to_thread(node.start))
        while not starting.done():
            door.publish()
            # Its patience is 5 s; a node may take longer to start.
            door_broker._outlets[MODEL]._waiting.clear()
            await asyncio.sleep(0.02)
        for _ in range(50):
            door.publish()
            await asyncio.sleep(0.01)
        intake.want(10_000)
        everything = {b"%d" % number for number in range(door.sent)}
        await until(lambda: {delivery.data for delivery in worker.got[2:]} == everything, 20.0)
        assert door.refusals == []
        for delivery in held:
            delivery.ack()
            delivery.hold()
            delivery.give_back()
        await asyncio.sleep(0.2)
        assert len(broker._intakes[0]._held) == len(worker.got) - 2
        for delivery in worker.got[2:]:
            delivery.ack()
        await asyncio.sleep(0.2)
        assert await waiting(door_broker) == 0
        door_broker.send("me", b"still here")
        await until(lambda: heard == [b"still here"])


@pytest.mark.timeout(180 + 60 * ROUNDS)
async def all_online(node: RabbitMQ, queue: str) -> None:
    """A node is up before its part of a queue is: the next death would be that of two in three."""
    async with asyncio.timeout(60):
        while True:
            said = await asyncio.to_thread(node.ctl, "list_queues", "name", "online")
            [names] = re.findall(rf"{re.escape(queue)}\s+\[(.*)\]", said)
            if len(names.split(",")) == 3:
                return
            await asyncio.sleep(0.2)


async def test_the_death_of_a_queues_leader(
    rabbitmq_cluster: RabbitMQ, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs go on with the other nodes, for who was connected to it and who was not."""
    nodes = rabbitmq_cluster.nodes
    url, house = all_of(rabbitmq_cluster), f"amqp-{secrets.token_hex(4)}"
    before, _, hosts = url.rpartition("@")
    door_broker = AmqpBroker(url, house=house)
    broker = AmqpBroker(f"{before}@{','.join(reversed(hosts.split(',')))}", house=house)
    async with all_open(door_broker, broker):
        got: dict[bytes, float] = {}
        taken_at: list[float] = []

        def on_job(delivery: Delivery) -> None:
            got.setdefault(delivery.data, time.monotonic())
            taken_at.append(time.monotonic())
            delivery.ack()
            intake.want(100)

        await door_broker.ensure(MODEL)
        intake = await broker.take(MODEL, on_job)
        intake.want(100)
        door = Door(door_broker)
        for _ in range(50):
            door.publish()
            await asyncio.sleep(0.01)
        for number in range(ROUNDS):
            await all_online(nodes[0], broker._queue(MODEL))
            said = await asyncio.to_thread(nodes[0].ctl, "list_queues", "name", "leader")
            [name] = re.findall(rf"{re.escape(broker._queue(MODEL))}\s+(\S+)", said)
            [leader] = [node for node in nodes if node.erlang_name == name]
            killing, since = asyncio.ensure_future(asyncio.to_thread(leader.kill)), len(taken_at)
            for _ in range(500):
                door.publish()
                await asyncio.sleep(0.01)
            await killing
            everything = {b"%d" % number for number in range(door.sent)}
            await until(lambda all_=everything: set(got) == all_, 20.0)
            assert door.refusals == []
            gap = max(b - a for a, b in itertools.pairwise(taken_at[since - 1 :]))
            with capsys.disabled():
                print(f"\nround {number + 1}: {leader.name} killed, no job for {gap:.2f} s, 0 lost")
            assert gap < 10
            await asyncio.to_thread(leader.start)


STOPPED = """
import asyncio, sys
from headrace.broker.amqp import AmqpBroker

async def main():
    broker = AmqpBroker(sys.argv[1], house=sys.argv[2], ack_wait_s=600.0)
    await broker.open()
    intake = await broker.take("exam", lambda delivery: print("took", flush=True))
    intake.want(10)
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_stopped_workers_jobs_come_again(rabbitmq: RabbitMQ) -> None:
    """SIGSTOP: its connection stands, but says nothing, so that RabbitMQ ends it."""
    async with opened(rabbitmq.url, 1) as [broker]:
        stopped = subprocess.Popen(
            [sys.executable, "-c", STOPPED, rabbitmq.url, broker._house], stdout=subprocess.PIPE
        )
        assert stopped.stdout
        try:
            assert await asyncio.to_thread(stopped.stdout.readline) == b"ready\n"
            for _ in range(3):
                broker.publish(MODEL, b"x", no_refusal)
                assert await asyncio.to_thread(stopped.stdout.readline) == b"took\n"
            stopped.send_signal(signal.SIGSTOP)
            worker = Worker()
            (await broker.take(MODEL, worker)).want(10)
            await worker.until(3, wait_s=5.0)
            assert {delivery.attempt for delivery in worker.got} == {2}
        finally:
            stopped.kill()
            stopped.communicate()
