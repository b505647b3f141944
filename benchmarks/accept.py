"""Measure the durable accept: `POST /models/{name}/jobs` until its 202, fsync on.

    python benchmarks/accept.py                         PostgreSQL, 3 rounds, about 2 min
    python benchmarks/accept.py --database sqlite --rounds 1

A round: a closed loop finds what the house sustains (jobs a second, accepted and run to their end),
then an open loop at half of it takes the latency of each accept, counted from when it was due. The
jobs are run meanwhile, as in any house. Beside it, in the same round: the time of one 8 KB write
with fdatasync on the same disk.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from bench import machine

from headrace.testing.house import TestHouse
from headrace.testing.load import Connection, quantile
from headrace.testing.services import Postgres

MODELS = """
    import headrace

    class Square(headrace.Model):
        batching = headrace.Batching(max_size=64)

        def predict(self, items: list[int]) -> list[int]:
            return [item * item for item in items]
"""
TOML = '[models.square]\nclass = "models:Square"\n'
PATH, BODY = "/models/square/jobs", b"12"


async def sustained(port: int, connections: int, seconds: float) -> float:
    """Jobs a second of a closed loop, all of them accepted and run."""
    began = time.perf_counter()
    end_at, accepted = began + seconds, 0

    async def one() -> None:
        nonlocal accepted
        connection = Connection(port)
        while time.perf_counter() < end_at:
            answer = await connection.call(PATH, BODY)
            accepted += answer.status == 202
        connection.abort()

    await asyncio.gather(*(one() for _ in range(connections)))
    await drained(port)
    return accepted / (time.perf_counter() - began)


async def drained(port: int) -> None:
    """Returns when no job waits or runs."""
    connection = Connection(port)
    for state in ("waiting", "running"):
        while (await connection.call(f"/jobs?state={state}&limit=1")).json["jobs"]:
            await asyncio.sleep(0.1)
    connection.abort()


async def accepts(port: int, rate: float, seconds: float) -> tuple[list[float], int]:
    """The seconds that each accept took, from when it was due; and how many were refused."""
    idle = [Connection(port) for _ in range(64)]
    for connection in idle:
        await connection.open()
    took: list[float] = []
    refused = 0

    async def one(due: float) -> None:
        nonlocal refused
        connection = idle.pop() if idle else Connection(port)
        answer = await connection.call(PATH, BODY)
        if answer.status == 202:
            took.append(time.perf_counter() - due)
        else:
            refused += 1
        idle.append(connection)

    began, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.abort()
    return took, refused


def sync_ms(folder: Path, writes: int = 200) -> list[float]:
    """One appended 8 KB block with fdatasync, as a log of a database writes it."""
    took = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(writes):
            began = time.perf_counter()
            file.write(b"x" * 8192)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1e3)
    return took


async def measure(
    database: str, rounds: int, connections: int, seconds: float, rate: float
) -> None:
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="headrace-accept-") as folder:
            path = Path(folder)
            postgres = Postgres() if database == "postgresql" else None
            try:
                url = postgres.__enter__().database() if postgres else ""
                environment = {"HEADRACE_DATABASE__URL": url} if url else {}
                async with TestHouse(MODELS, TOML, path, environment=environment) as house:
                    await sustained(house.port, connections, 4.0)  # warm
                    most = await sustained(house.port, connections, seconds)
                    stolen, asked = machine.Stolen(), rate or most / 2
                    took, refused = await accepts(house.port, asked, seconds)
                    ms = [each * 1e3 for each in took]
                    disk = sync_ms(path)
                    print(
                        f"round {number + 1}: sustained {most:.0f}/s; at {asked:.0f}/s: "
                        f"p50 {quantile(ms, 0.5):.1f}, p95 {quantile(ms, 0.95):.1f}, "
                        f"p99 {quantile(ms, 0.99):.1f} ms, refused {refused} of "
                        f"{len(ms) + refused}; stolen {stolen.share():.0%}; fdatasync p50 "
                        f"{statistics.median(disk):.2f}, p99 {quantile(disk, 0.99):.2f} ms",
                        flush=True,
                    )
            finally:
                if postgres:
                    postgres.__exit__(None, None, None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32, help="of the closed loop")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each loop")
    parser.add_argument("--rate", type=float, default=0.0, help="in place of half; jobs a second")
    given = parser.parse_args()
    asyncio.run(measure(given.database, given.rounds, given.connections, given.seconds, given.rate))


if __name__ == "__main__":
    main()
