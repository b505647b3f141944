"""The broker alone, request and reply: python benchmarks/broker_hop.py [memory nats amqp amqp:3]

A door publishes jobs of 1 KB and keeps 256 in flight; a worker in a process of its own takes each,
sends a reply of 1 KB to the door's address, and acks. One job a message: parcels share the cost of
one among a batch. `memory` has both in one process. `:3` is a cluster of three nodes on one
machine.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import uvloop

from headrace.broker.amqp import AmqpBroker
from headrace.broker.memory import MemoryBroker
from headrace.broker.nats import NatsBroker
from headrace.broker.port import Broker, Delivery
from headrace.errors import Refusal
from headrace.testing.services import Service, make

MODEL, IN_FLIGHT, SIZE = "hop", 256, 1024
ADAPTERS: dict[str, Any] = {"memory": MemoryBroker, "nats": NatsBroker, "amqp": AmqpBroker}
SERVICES = {"nats": "nats", "amqp": "rabbitmq"}
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


def broker(url: str) -> Broker:
    made: Broker = ADAPTERS[url.partition(":")[0]](url, house="hop", ack_wait_s=30.0)
    return made


async def serve(it: Broker) -> None:
    """The worker's part: as much wanted as a batch of its in-flight would be."""
    body = b"r" * (SIZE - 8)

    def on_job(delivery: Delivery) -> None:
        nonlocal took
        it.send("door", delivery.data[:8] + body)
        delivery.ack()
        took += 1
        if took == 1:
            asyncio.get_running_loop().call_soon(again)

    def again() -> None:
        nonlocal took
        took = 0
        intake.want(IN_FLIGHT)

    took = 0
    intake = await it.take(MODEL, on_job)
    intake.want(IN_FLIGHT)


class Door:
    def __init__(self, it: Broker) -> None:
        self._it, self._body = it, b"j" * (SIZE - 8)
        self._sent: dict[bytes, float] = {}
        self._number = 0
        self.waits: list[float] = []
        self.going = True

    async def open(self) -> None:
        await self._it.listen("door", self._on_reply)
        await self._it.ensure(MODEL)

    def publish(self) -> None:
        self._number += 1
        name = b"%08d" % self._number
        self._sent[name] = time.perf_counter()
        self._it.publish(MODEL, name + self._body, self._refused)

    def _refused(self, refusal: Refusal) -> None:
        raise SystemExit(f"refused: {refusal.detail}")

    def _on_reply(self, data: bytes) -> None:
        began = self._sent.pop(data[:8], None)
        if began is None:
            return
        self.waits.append(time.perf_counter() - began)
        if self.going:
            self.publish()


def worker_process(url: str, pipe: Any) -> None:
    async def run() -> None:
        it = broker(url)
        await it.open()
        await serve(it)
        pipe.send("ready")
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, pipe.recv) == "spent":
            pipe.send(spent_us())
        await it.close()

    uvloop.run(run())


def spent_us() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e6


def spent_by_us(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * TICK_US


async def measure(url: str, pipe: Any, service: Service | None, seconds: float) -> str:
    it = broker(url)
    await it.open()
    door = Door(it)
    await door.open()
    if pipe is None:
        await serve(it)
    for _ in range(IN_FLIGHT):
        door.publish()
    await asyncio.sleep(1.0)
    pids = [pid for node in service.nodes for pid in node.pids()] if service else []

    def spent() -> tuple[float, float, float]:
        if pipe is None:
            return spent_us(), 0.0, 0.0
        pipe.send("spent")
        return spent_us(), pipe.recv(), spent_by_us(pids)

    before, began = spent(), time.perf_counter()
    door.waits.clear()
    await asyncio.sleep(seconds)
    after, took = spent(), time.perf_counter() - began
    count = len(door.waits)
    costs = [(then - now) / count for now, then in zip(before, after, strict=True)]
    waits = sorted(door.waits)
    door.going = False
    await asyncio.sleep(0.2)
    await it.close()
    middle, late = waits[count // 2] * 1e3, waits[count * 99 // 100] * 1e3
    shown = " | ".join(f"{cost:.0f}" for cost in costs)
    return f"{count / took:,.0f} | {middle:.1f} | {late:.1f} | {shown} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("brokers", nargs="*", default=["memory", "nats", "amqp"])
    parser.add_argument("--seconds", type=float, default=4.0)
    asked = parser.parse_args()
    print("| broker | round trips/s | p50 ms | p99 ms | door us | worker us | broker us |")
    print("|---|---|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for name in asked.brokers:
        scheme, _, nodes = name.partition(":")
        with make(f"{SERVICES[scheme]}:{nodes or 1}") if scheme in SERVICES else nullcontext() as s:
            url, pipe = "memory://hop", None
            if s is not None:
                url = s.url
                pipe, theirs = context.Pipe()
                process = context.Process(target=worker_process, args=(url, theirs))
                process.start()
                pipe.recv()
            row = uvloop.run(measure(url, pipe, s, asked.seconds))
            if pipe is not None:
                pipe.send("leave")
                process.join(5)
            print(f"| {name} | {row}", flush=True)


if __name__ == "__main__":
    main()
