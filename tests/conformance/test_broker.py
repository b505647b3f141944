"""Every broker adapter passes the exam; NATS with a real server from the wheel."""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.broker.port import Broker
from headrace.errors import Refusal, Unavailable
from headrace.house import free_port, nats_command
from headrace.schemes import BROKERS, build
from headrace.testing.broker_exam import MODEL, QUESTIONS, Exam, Worker, no_refusal


class Server:
    """A nats-server of this test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.url = f"nats://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(nats_command(self._port, str(self._folder)))

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(10)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("nats"))
    yield server
    server.end()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.end()


def broker(url: str, house: str, **options: Any) -> Broker:
    made: Broker = build("broker.url", BROKERS, url, house=house, **options)
    return made


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("scheme", ["memory", "nats", "nats?replicas=3"])
async def test_exam(scheme: str, question: str, request: pytest.FixtureRequest) -> None:
    house = f"exam-{secrets.token_hex(4)}"
    url = {
        "memory": lambda: f"memory://{house}",
        "nats": lambda: request.getfixturevalue("shared").url,
        "nats?replicas=3": lambda: f"{request.getfixturevalue('nats_cluster').url}?replicas=3",
    }[scheme]()
    exam = Exam(lambda **options: broker(url, house, **options))
    try:
        await getattr(exam, question)()
    finally:
        await exam.close()


def test_every_scheme_was_examined() -> None:
    here = {"memory", "nats", "tls"}  # tls is nats, after a handshake
    assert set(BROKERS) == here | {"amqp", "amqps"}  # test_broker_amqp.py


async def test_nobody_there_is_said_so() -> None:
    nowhere = broker(f"nats://user:secret@127.0.0.1:{free_port()}", "h")
    with pytest.raises(Unavailable) as caught:
        await nowhere._wire.open(wait_s=0.2)  # type: ignore[attr-defined]
    assert caught.value.code == "broker-unavailable" and "secret" not in caught.value.detail


class Door:
    """Publishes numbers, and publishes them again when told, as `dispatch` does."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.open: set[int] = set()
        self.refusals: list[Refusal] = []
        broker.on_restored(self.again)

    def publish(self, number: int) -> None:
        self.open.add(number)
        self.broker.publish(MODEL, b"%d" % number, self.refusals.append)

    def again(self) -> None:
        for number in self.open:
            self.publish(number)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_broker_that_comes_back_empty(how: signal.Signals, server: Server) -> None:
    """Jobs published before, during and just after are all taken; none is refused, although the
    stream is not there when the door is back first."""
    door_broker, worker_broker = (broker(server.url, "h", ack_wait_s=60.0) for _ in range(2))
    await door_broker.open()
    await worker_broker.open()
    worker = Worker()
    intake = await worker_broker.take(MODEL, worker)
    door = Door(door_broker)
    for number in range(10):
        door.publish(number)
    async with asyncio.timeout(5):
        while (await door_broker.depth(MODEL)).waiting < 10:
            await asyncio.sleep(0.01)
    old_life = worker
    intake.want(2)
    held = (await old_life.until(2))[:2]
    server.end(how)
    for number in range(10, 15):
        door.publish(number)  # into nothing
    server.start()
    for number in range(15, 200):
        door.publish(number)
        await asyncio.sleep(0.01)
    intake.want(300)
    async with asyncio.timeout(10):
        while len({d.data for d in worker.got[2:]}) < 200:
            await asyncio.sleep(0.05)
    assert door.refusals == []
    # An ack of the old life's job must not take a new one's away: numbers start again at 1.
    for delivery in held:
        delivery.ack()
        delivery.hold()
        delivery.give_back()
    await asyncio.sleep(0.3)
    in_hand = (await door_broker.depth(MODEL)).in_hand
    assert in_hand == len(worker.got) - 2
    for delivery in worker.got[2:]:
        delivery.ack()
    async with asyncio.timeout(5):
        while await door_broker.depth(MODEL) != (0, 0):
            await asyncio.sleep(0.05)
    await worker_broker.close()
    await door_broker.close()


async def test_what_is_said_while_the_connection_is_down_does_not_block_it(server: Server) -> None:
    """A subscription made without a connection is in force when it is back, and what follows is
    heard, too."""
    one = broker(server.url, "h")
    await one.open()
    server.end(signal.SIGKILL)
    async with asyncio.timeout(5):
        while one._wire.up:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
    heard: list[bytes] = []
    await one.listen("me", heard.append)
    one.send("me", b"lost")
    server.start()
    async with asyncio.timeout(5):
        while not one._wire.up:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
    one.send("me", b"kept")
    async with asyncio.timeout(5):
        while not heard:
            await asyncio.sleep(0.01)
    assert heard == [b"kept"]
    await one.ensure(MODEL)
    one.publish(MODEL, b"1", no_refusal)
    async with asyncio.timeout(5):
        while (await one.depth(MODEL)).waiting < 1:
            await asyncio.sleep(0.01)
    await one.close()


async def test_a_stopped_workers_credit_does_not_last(server: Server) -> None:
    """A worker that is stopped (SIGSTOP) keeps its connection and its credit, and renews nothing:
    jobs must not go to it, each to be held up until the broker's patience ends, for ever."""
    from headrace.broker.nats import PULL_EXPIRES_S

    one, two = broker(server.url, "h"), broker(server.url, "h")
    await one.open()
    await two.open()
    stopped, other = Worker(), Worker()
    intake = await one.take(MODEL, stopped)
    intake.want(100)
    intake.want = lambda _: None  # type: ignore[method-assign]
    await asyncio.sleep(PULL_EXPIRES_S + 0.5)
    (await two.take(MODEL, other)).want(100)
    for number in range(20):
        two.publish(MODEL, b"%d" % number, no_refusal)
    await other.until(20, wait_s=1.0)
    assert stopped.got == []
    for delivery in other.got:
        delivery.ack()
    await one.close()
    await two.close()
