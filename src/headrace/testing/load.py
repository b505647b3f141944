"""Load with a ledger: what was sent, what came back, and whether it was right.

    inputs --> connections, one call at a time each --> Ledger: ok, wrong, refused by code, failed

The ledger is the client's own: a journey never believes the house's metrics alone. A raw HTTP/1.1
client on asyncio streams takes some 0.1 ms a call, so that one process can overload a house.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

LIMIT = 64 << 20


class Answer(NamedTuple):
    """`headers` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code, "" for a result."""
        return "" if self.status == 200 else str(self.json.get("code", ""))


class Connection:
    """One keep-alive connection, opened when first needed and again where the house closed it; left
    by `async with`, or by `abort`."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=LIMIT)
        return self._streams

    async def call(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """POST where there is a body, else GET. `headers` in lower case. Raises OSError,
        IncompleteReadError."""
        reader, writer = await self.open()
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {self._host}"]
        given = {} if body is None else {"content-type": "application/json"}
        lines += [f"{name}: {value}" for name, value in (given | (headers or {})).items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + (body or b""))
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            read = {n.lower(): v.strip() for n, _, v in (x.partition(":") for x in head[1:])}
            answer = await reader.readexactly(int(read["content-length"]))
        except BaseException:
            self.abort()
            raise
        if read.get("connection") == "close":
            self.abort()
        return Answer(int(head[0].split()[1]), read, answer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abort()

    def abort(self) -> None:
        if self._streams:
            self._streams[1].transport.abort()
            self._streams = None


async def get(port: int, path: str) -> Answer:
    """On a connection of its own. Raises OSError, IncompleteReadError."""
    async with Connection(port) as connection:
        return await connection.call(path)


async def post(port: int, path: str, body: Any, **headers: str) -> Answer:
    """`body`: bytes as they are, anything else as JSON. `content_type="image/jpeg"`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with Connection(port) as connection:
        return await connection.call(path, data, given)


@dataclass
class Ledger:
    """The client's own account of a load."""

    sent: int = 0
    ok: int = 0
    wrong: list[tuple[Any, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    refused_inputs: list[Any] = field(default_factory=list)
    failed: list[tuple[Any, str]] = field(default_factory=list)
    no_retry_after: int = 0  # 503s without Retry-After
    took_s: list[float] = field(default_factory=list)  # of results
    refused_in_s: list[float] = field(default_factory=list)  # of 503s
    wall_s: float = 0.0
    busy: float = 0.0  # share of one core that the client used: near 1 it measures itself

    @property
    def done(self) -> int:
        return self.ok + len(self.wrong) + sum(self.refused.values()) + len(self.failed)

    @property
    def per_second(self) -> float:
        return self.ok / self.wall_s if self.wall_s else 0.0

    def all_right(self, count: int | None = None) -> None:
        """Every call was answered, with the right result."""
        assert not self.failed, f"{len(self.failed)} failed: {self.failed[:5]} of {self.sent}"
        assert not self.wrong, f"{len(self.wrong)} wrong: {self.wrong[:5]}"
        assert not self.refused, f"refused: {dict(self.refused)}, {self.refused_inputs[:5]}"
        assert self.ok == self.sent, f"{self.ok} answered of {self.sent}"
        assert count is None or self.ok == count

    def enter(self, given: Any, answer: Answer, took_s: float, right: Callable[..., bool]) -> None:
        if answer.status == 200:
            result = answer.json["result"]
            if right(given, result):
                self.ok += 1
                self.took_s.append(took_s)
            else:
                self.wrong.append((given, result))
            return
        self.refused[f"{answer.status} {answer.code}"] += 1
        self.refused_inputs.append(given)
        if answer.status == 503:
            self.refused_in_s.append(took_s)
            self.no_retry_after += "retry-after" not in answer.headers


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


class Load:
    """A closed loop of `connections`, each with one call open at a time, over the inputs.

    async with Load(port, "square", range(1000), right=..., connections=40) as load:
        ...                         # faults
    load.ledger.all_right(1000)     # the inputs are through when the block is left
    """

    def __init__(
        self,
        port: int | list[int],
        model: str,
        inputs: Iterable[Any],
        *,
        right: Callable[[Any, Any], bool],
        connections: int = 40,
        deadline_ms: int = 30_000,
        pause_refused_s: float = 0.0,
        write: Callable[[Any], bytes] = lambda given: json.dumps(given).encode(),
        headers: dict[str, str] | None = None,
    ) -> None:
        self._ports = [port] if isinstance(port, int) else port
        self._path = f"/models/{model}/predict"
        self._inputs, self._right, self._connections = iter(inputs), right, connections
        self._headers = {"headrace-deadline-ms": str(deadline_ms)} | (headers or {})
        self._wait_s = deadline_ms / 1000 + 1.0  # an answer after this is none (I3)
        self._pause_refused_s, self._write = pause_refused_s, write
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self.ledger = Ledger()

    def stop(self) -> None:
        """No further calls; those that are open are awaited."""
        self._stopped = True

    async def __aenter__(self) -> Self:
        self._began, self._cpu = time.monotonic(), time.process_time()
        self._tasks = [
            asyncio.create_task(self._one(self._ports[number % len(self._ports)]))
            for number in range(self._connections)
        ]
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind:
            for task in self._tasks:
                task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)
        self.ledger.wall_s = time.monotonic() - self._began
        self.ledger.busy = (time.process_time() - self._cpu) / self.ledger.wall_s

    async def until(self, count: int, wait_s: float = 60.0) -> None:
        """So many calls have come to their end."""
        async with asyncio.timeout(wait_s):
            while self.ledger.done < count:
                await asyncio.sleep(0.005)

    async def _one(self, port: int) -> None:
        async with Connection(port) as connection:
            with contextlib.suppress(OSError):  # counted when the call fails
                await connection.open()  # what a call takes is measured without it
            for given in self._inputs:
                await self._ask(connection, given, time.perf_counter())
                if self._stopped:
                    break

    async def _ask(self, connection: Connection, given: Any, began: float) -> None:
        """One call, whose time counts from `began`."""
        self.ledger.sent += 1
        try:
            async with asyncio.timeout(self._wait_s):
                answer = await connection.call(self._path, self._write(given), self._headers)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.ledger.failed.append((given, repr(error)))
        else:
            self.ledger.enter(given, answer, time.perf_counter() - began, self._right)
            if answer.status == 503 and self._pause_refused_s:
                await asyncio.sleep(self._pause_refused_s * random.uniform(0.5, 1.5))


class OpenLoad(Load):
    """An open loop: calls are due at a steady rate, whatever became of those before. What a call
    takes counts from when it was due, so that nothing is left out while the house stands still.
    `connections` is the most that may be open at once."""

    def __init__(self, *arguments: Any, per_second: float, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._every_s = 1 / per_second
        self._due = 0.0

    async def __aenter__(self) -> Self:
        self._due = time.perf_counter()
        await super().__aenter__()
        return self

    async def _one(self, port: int) -> None:
        async with Connection(port) as connection:
            with contextlib.suppress(OSError):
                await connection.open()
            for given in self._inputs:
                due = self._due
                self._due += self._every_s
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if self._stopped:
                    break
                await self._ask(connection, given, due)
