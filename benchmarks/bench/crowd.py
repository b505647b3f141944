"""A crowd of clients over raw sockets, each with its own connection, in one asyncio loop.

wrk knows latencies but not of which status; this one keeps (when, status, latency) of each answer.

    send -> wait -> 2xx: send at once
                 -> refused or lost: pause (as Retry-After asks), then send
"""

import asyncio
import gc
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

LAG_PROBE_S = 0.01
RECONNECT_S = 0.2
LOST = 0


@dataclass(frozen=True)
class Answer:
    """status is LOST (0) when the connection broke before an answer."""

    at_s: float
    status: int
    latency_s: float


@dataclass(frozen=True)
class Window:
    """The counted part of a run, on the clock of the answers."""

    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s

    def holds(self, answer: Answer) -> bool:
        return self.begin_s <= answer.at_s <= self.end_s


@dataclass
class Crowd:
    """What all clients share: where to, what to send, what was seen."""

    host: str
    port: int
    requests: Sequence[bytes]
    pause_s: float
    answers: list[Answer] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)
    waiting: dict[int, float] = field(default_factory=dict)
    open: bool = True


class Client(asyncio.Protocol):
    """One connection, one call at a time."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.crowd, self.number, self.turn = crowd, number, number
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()
        self.wire: asyncio.Transport | None = None

    async def connect(self) -> None:
        while self.crowd.open:
            try:
                await self.loop.create_connection(lambda: self, self.crowd.host, self.crowd.port)
                return
            except OSError:
                self._record(LOST, 0.0)
                await asyncio.sleep(max(self.crowd.pause_s, RECONNECT_S))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport
        self.buffer.clear()
        self.send()

    def send(self) -> None:
        if self.crowd.open and self.wire is not None:
            self.turn += 1
            self.crowd.waiting[self.number] = time.perf_counter()
            self.wire.write(self.crowd.requests[self.turn % len(self.crowd.requests)])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        status = whole_answer(self.buffer)
        if status is None:
            return
        self.buffer.clear()
        self._record(status, self._took())
        if 200 <= status < 300:
            self.send()
        else:
            self.loop.call_later(self.crowd.pause_s, self.send)

    def connection_lost(self, error: Exception | None) -> None:
        self.wire = None
        if not self.crowd.open:
            return
        if self.number in self.crowd.waiting:
            self._record(LOST, self._took())
        delay_s = max(self.crowd.pause_s, RECONNECT_S)
        self.loop.call_later(delay_s, lambda: self.loop.create_task(self.connect()))

    def _took(self) -> float:
        return time.perf_counter() - self.crowd.waiting.pop(self.number)

    def _record(self, status: int, latency_s: float) -> None:
        if self.crowd.open:
            self.crowd.answers.append(Answer(time.perf_counter(), status, latency_s))


def whole_answer(buffer: bytearray) -> int | None:
    """The status once the answer is complete (by length or chunks); None until then."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(buffer[:end]).lower()
    status = int(head[9:12])
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        length = int(head[at + 17 :].split(b"\r\n", 1)[0])
        return status if len(buffer) >= end + 4 + length else None
    if b"transfer-encoding: chunked" in head:
        return status if buffer.endswith(b"0\r\n\r\n") else None
    return status


async def gather_crowd(crowd: Crowd, connections: int, settle_s: float, seconds: float) -> Window:
    """Run the crowd for settle_s + seconds; returns the window to count in.

    Clients arrive spread over the pause, so that refused ones do not come back in step.
    """
    _allow_files(connections + 256)
    clients = [Client(crowd, number) for number in range(connections)]
    spread_s = max(crowd.pause_s, 0.2)
    async with asyncio.TaskGroup() as group:
        group.create_task(_watch_lag(crowd))
        for client in clients:
            group.create_task(_arrive(client, spread_s * client.number / connections))
        await asyncio.sleep(settle_s)
        crowd.lags_s.clear()
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        crowd.open = False
        ended = time.perf_counter()
        for client in clients:
            if client.wire is not None:
                client.wire.abort()
    return Window(began, ended)


def run_crowd(crowd: Crowd, connections: int, settle_s: float, seconds: float) -> Window:
    gc.disable()  # a collection of 100k answers would look like the server's latency
    try:
        return asyncio.run(gather_crowd(crowd, connections, settle_s, seconds))
    finally:
        gc.enable()


async def _arrive(client: Client, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    await client.connect()


async def _watch_lag(crowd: Crowd) -> None:
    """How late this loop wakes: what the client itself adds to a latency."""
    while crowd.open:
        before = time.perf_counter()
        await asyncio.sleep(LAG_PROBE_S)
        crowd.lags_s.append(time.perf_counter() - before - LAG_PROBE_S)


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise SystemExit(f"{count} open files are needed, the limit is {hard}: ulimit -n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
