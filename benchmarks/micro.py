"""What each step of a call costs in its process, without sockets: python benchmarks/micro.py

Each figure is the least of many short rounds, in microseconds a call, next to the same in units of
a fixed piece of Python ("beats"), because the speed of shared machines changes by the minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.announce import Announcement
from headrace.broker.nats import NatsBroker, NatsIntake
from headrace.dispatch import Dispatch
from headrace.gateway.app import App
from headrace.gateway.snapshot import Snapshot
from headrace.httpserver import Connection, HttpServer
from headrace.jobs import Form, Job, Outcome, Returned, parcel_bytes, returned_bytes
from headrace.objects.memory import MemoryObjects
from headrace.schema import Reader
from headrace.settings import GatewaySettings, JobsSettings, ModelSettings, Settings
from headrace.signature import Card
from headrace.store.door import StoreDoor
from headrace.telemetry.metrics import GatewayMetrics
from headrace.worker.execute import State
from headrace.worker.frames import Done, frame
from headrace.worker.role import Worker

ROUNDS, BATCH = 60, 32
FLOATS: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
BODY = msgspec.json.encode([float(n) for n in range(16)])


class Sink:
    """A transport that takes everything."""

    def write(self, data: bytes) -> None: ...

    def set_write_buffer_limits(self, high: int) -> None: ...


def beat() -> list[int]:
    numbers = {}
    for number in range(10):
        numbers[number] = str(number)
    return list(numbers)


def least_us(work: Callable[[], Any], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times * 1e6


def measure(name: str, work: Callable[[], Any], calls: int = 1, times: int = 300) -> None:
    """One row. `calls`: how many calls one `work` serves."""
    best = best_beat = float("inf")
    for _ in range(ROUNDS):
        best_beat = min(best_beat, least_us(beat, 300))
        best = min(best, least_us(work, max(1, times // calls)) / calls)
    print(f"| {name:56s} | {best:6.2f} | {best / best_beat:5.2f} |")


def broker() -> NatsBroker:
    """Connected to nothing: what it would write is thrown away."""
    made = NatsBroker("nats://127.0.0.1:1")
    made._wire._loop = asyncio.get_running_loop()
    made._wire._transport = Sink()  # type: ignore[assignment]
    return made


def gateway() -> None:
    nats, loop = broker(), asyncio.get_running_loop()
    snapshot = Snapshot("g", [])
    card = Card("sum", "1", "", FLOATS, {"type": "number"}, 64)
    snapshot.hear(Announcement("w", "sum", True, "", card, 1, 1, 0, 0, 0, True, 0.1, 0.001, 64))
    dispatch = Dispatch(nats, MemoryObjects("memory://micro"), 65_536)
    dispatch.parcel_sizes["sum"] = 64
    app = App(GatewaySettings(), snapshot, dispatch, GatewayMetrics())
    server = HttpServer(app.handle, app.on_head, app.refuse, 10**7)
    connection = Connection(server, loop)
    connection.connection_made(Sink())  # type: ignore[arg-type]
    head = b"POST /models/sum/predict HTTP/1.1\r\nHost: 127.0.0.1:8100\r\n%b\r\n"
    more = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(BODY)
    known, number = head % more + BODY, [0]

    def unknown() -> bytes:
        number[0] += 1
        return head % (b"X-Request-Id: %d\r\n" % number[0] + more) + BODY

    def come_and_go(data: Callable[[], bytes]) -> Callable[[], None]:
        def call() -> None:
            connection.data_received(data())
            dispatch._flush()
            nats._wire._out.clear()
            nats._unacked.clear()
            now = time.time()
            outcomes = [Outcome(n, now, 0.1, 0.2, b"120.0") for n in dispatch.waiting]
            dispatch._on_reply(returned_bytes(Returned("sum", "1", "w", now, outcomes)))

        return call

    live = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    measure("gateway: GET /health/live, head known", lambda: connection.data_received(live))
    reader = Reader(FLOATS)
    measure("gateway: read 16 floats of JSON", lambda: reader.json(BODY))
    whole = "gateway: a call from bytes in to bytes out"
    measure(f"{whole}, head parsed", come_and_go(unknown))
    measure(f"{whole}, head known", come_and_go(lambda: known))


def worker() -> None:
    nats = broker()
    made = Worker(
        "sum", ModelSettings(target="a:B", max_size=64), ".", nats, MemoryObjects("memory://m"),
        StoreDoor(Settings()), JobsSettings(),
    )  # fmt: skip
    intake = NatsIntake(nats._wire, "s", made._take.on_delivery)
    intake._loop = asyncio.get_running_loop()
    made._intake = intake
    slot = made._slots[0]
    slot._loop, slot._transport, slot.state = intake._loop, Sink(), State.IDLE  # type: ignore[assignment]
    now = time.time()
    jobs = [Job(n, "0" * 32, f"r-{n}", now + 9e5, now, Form.JSON, b"x" * 140) for n in range(BATCH)]
    nats._wire._subscriptions[b"1"] = (b"x", intake._on_message)
    done = frame(Done([b"120.0"] * BATCH))

    def deliver(parcels: list[bytes]) -> Callable[[], None]:
        data = b"".join(
            b"MSG jobs 1 $JS.ACK.s.workers.1.%d.%d.1.0 %d\r\n%b\r\n" % (n, n, len(p), p)
            for n, p in enumerate(parcels)
        )

        def batch() -> None:
            nats._wire.data_received(data)
            made._gather.turn()
            slot.data_received(done)
            nats._wire._out.clear()

        return batch

    measure(
        "worker: a job, batch of 32 in 32 parcels", deliver([parcel_bytes([j]) for j in jobs]), 32
    )
    measure("worker: a job, batch of 32 in one parcel", deliver([parcel_bytes(jobs)]), 32)


async def main() -> None:
    print(f"| {'step':56s} | us a call | beats |\n|---|---|---|")
    gateway()
    worker()


if __name__ == "__main__":
    asyncio.run(main())
