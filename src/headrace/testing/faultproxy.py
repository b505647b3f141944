"""A TCP proxy that does what networks do: it is put on a link and given toxics, at any moment.

    async with FaultProxy("127.0.0.1", port_of_the_broker) as proxy:
        ...                                     # roles are given proxy.port
        with proxy.toxic(Latency(0.2, jitter_s=0.05), "back") as latency:
            ...
        assert latency.acts["delayed"] > 0      # it acted, or the run says nothing

`forth` is from who connects to the far end, `back` is the other way. Toxics of one way act in the
order they were added. A chunk meets the toxics that were there when its turn came.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self, TypeVar

Way = Literal["forth", "back"]
WAYS: tuple[Way, Way] = ("forth", "back")
CHUNK = 64 << 10
LINGER_0 = struct.pack("ii", 1, 0)  # close() then sends RST


class Pipe:
    """One way of one connection: what was read waits, with the time it came, to be written."""

    def __init__(self, link: Link, way: Way) -> None:
        self.link, self.way = link, way
        self.arrived = 0.0  # when the chunk under way was read
        self.passed = 0  # bytes that LimitData let through
        self.dropped = 0  # bytes that BlackHole ate: what follows them is no stream any more
        self._waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=64)

    async def read(self, reader: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        while True:
            chunk = await reader.read(CHUNK)
            await self._waiting.put((loop.time(), chunk))
            if not chunk:
                return

    async def write(self, writer: asyncio.StreamWriter) -> None:
        toxics = self.link.proxy.toxics[self.way]
        while True:
            self.arrived, chunk = await self._waiting.get()
            if not chunk:
                for toxic in list(toxics):
                    await toxic.on_end(self)
                writer.write_eof()
                return
            await self._through(list(toxics), chunk, writer)

    async def _through(
        self, toxics: list[Toxic], piece: bytes, writer: asyncio.StreamWriter
    ) -> None:
        if not toxics:
            self.link.proxy.passed[self.way] += len(piece)
            writer.write(piece)
            await writer.drain()
            return
        async for part in toxics[0].feed(piece, self):
            if part:
                await self._through(toxics[1:], part, writer)


class Link:
    """One connection through the proxy, both ways."""

    def __init__(self, proxy: FaultProxy, near: asyncio.StreamWriter) -> None:
        self.proxy, self.ends = proxy, [near]
        self.pipes = {way: Pipe(self, way) for way in WAYS}

    def reset(self) -> None:
        """RST to both ends."""
        for end in self.ends:
            sock = end.get_extra_info("socket")
            if not end.transport.is_closing() and sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
            end.transport.abort()

    def close(self) -> None:
        """FIN to both ends, once what was written is out."""
        for end in self.ends:
            end.close()

    async def run(self, near: asyncio.StreamReader, host: str, port: int) -> None:
        far, far_writer = await asyncio.open_connection(host, port)
        self.ends.append(far_writer)
        forth, back = self.pipes["forth"], self.pipes["back"]
        async with asyncio.TaskGroup() as group:
            for pipe, reader, writer in (
                (forth, near, far_writer),
                (back, far, self.ends[0]),
            ):
                group.create_task(pipe.read(reader))
                group.create_task(pipe.write(writer))


@dataclass(eq=False)
class Toxic:
    """`acts` counts what it did."""

    acts: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    async def feed(self, piece: bytes, pipe: Pipe) -> AsyncIterator[bytes]:
        """What goes on of a piece, when it goes on; b"" where nothing does."""
        yield piece

    async def on_end(self, pipe: Pipe) -> None:
        """The sender has closed; the other end is told when this returns."""


@dataclass(eq=False)
class Latency(Toxic):
    """Each chunk comes this much later, give or take the jitter, in order."""

    delay_s: float
    jitter_s: float = 0.0

    async def feed(self, piece: bytes, pipe: Pipe) -> AsyncIterator[bytes]:
        due = pipe.arrived + self.delay_s + random.uniform(-self.jitter_s, self.jitter_s)
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        self.acts["delayed"] += 1
        yield piece


@dataclass(eq=False)
class Bandwidth(Toxic):
    """So many bytes a second on each connection."""

    bytes_per_s: int

    async def feed(self, piece: bytes, pipe: Pipe) -> AsyncIterator[bytes]:
        step = max(1, self.bytes_per_s // 20)
        for start in range(0, len(piece), step):
            part = piece[start : start + step]
            await asyncio.sleep(len(part) / self.bytes_per_s)
            self.acts["bytes_slowed"] += len(part)
            yield part


@dataclass(eq=False)
class BlackHole(Toxic):
    """Nothing comes through and nobody is told. `close_after_s`: the connection is then closed;
    0: never. When the toxic goes, the connections that it took bytes from are reset."""

    close_after_s: float = 0.0

    async def feed(self, piece: bytes, pipe: Pipe) -> AsyncIterator[bytes]:
        pipe.dropped += len(piece)
        self.acts["bytes_dropped"] += len(piece)
        if self.close_after_s:
            await asyncio.sleep(self.close_after_s)
            self.acts["closed"] += 1
            pipe.link.close()
        yield b""


@dataclass(eq=False)
class ResetPeer(Toxic):
    """The next data is answered by RST at both ends, after so many seconds."""

    after_s: float = 0.0

    async def feed(self, piece: bytes, pipe: Pipe) -> AsyncIterator[bytes]:
        await asyncio.sleep(self.after_s)
        self.acts["resets"] += 1
        self.acts["bytes_dropped"] += len(piece)
        pipe.link.reset()
        yield b""


@dataclass(eq=False)
class SlowClose(Toxic):
    """A close is told this much later."""

    delay_s: float

    async def on_end(self, pipe: Pipe) -> None:
        await asyncio.sleep(self.delay_s)
        self.acts["closes_delayed"] += 1


@dataclass(eq=False)
class Slicer(Toxic):
    """Pieces of at most so many bytes, with a pause after each."""

    size: int
    pause_s: float = 0.0

    async def feed(self, piece: bytes, pipe: Pipe) -> AsyncIterator[bytes]:
        for start in range(0, len(piece), self.size):
            self.acts["slices"] += 1
            yield piece[start : start + self.size]
            await asyncio.sleep(self.pause_s)


@dataclass(eq=False)
class LimitData(Toxic):
    """After so many bytes of one connection it is closed."""

    bytes_most: int

    async def feed(self, piece: bytes, pipe: Pipe) -> AsyncIterator[bytes]:
        part = piece[: self.bytes_most - pipe.passed]
        pipe.passed += len(part)
        if part:
            yield part
        if pipe.passed >= self.bytes_most:
            self.acts["bytes_dropped"] += len(piece) - len(part)
            self.acts["closed"] += 1
            pipe.link.close()


ToxicT = TypeVar("ToxicT", bound=Toxic)


class FaultProxy:
    """Listens on a free port of the loopback, for one far end."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._far_port = host, port
        self.port = 0
        self.toxics: dict[Way, list[Toxic]] = {way: [] for way in WAYS}
        #: Bytes that came through, by way; `acts`: what the proxy itself did.
        self.passed: Counter[str] = Counter()
        self.acts: Counter[str] = Counter()
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        """Listens, after `down` on the same port again."""
        if self._server is None:
            self._server = await asyncio.start_server(self._met, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """As a host that rebooted: who is connected is reset, who connects is refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.acts["downs"] += 1
        self.reset()
        await asyncio.gather(*self._links.values(), return_exceptions=True)

    def reset(self) -> None:
        """RST to all who are connected, busy or idle."""
        for link, task in self._links.items():
            self.acts["resets"] += 1
            link.reset()
            task.cancel()

    def add(self, toxic: Toxic, way: Way) -> None:
        self.toxics[way].append(toxic)

    def remove(self, toxic: Toxic) -> None:
        """Raises ValueError where it was not added."""
        way: Way = "forth" if toxic in self.toxics["forth"] else "back"
        self.toxics[way].remove(toxic)
        for link, task in self._links.items() if isinstance(toxic, BlackHole) else ():
            if link.pipes[way].dropped:
                self.acts["resets"] += 1
                link.reset()
                task.cancel()

    @contextlib.contextmanager
    def toxic(self, toxic: ToxicT, way: Way) -> Iterator[ToxicT]:
        self.add(toxic, way)
        try:
            yield toxic
        finally:
            self.remove(toxic)

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link, task = Link(self, writer), asyncio.current_task()
        assert task is not None
        self._links[link] = task
        self.acts["links"] += 1
        try:
            await link.run(reader, self._host, self._far_port)
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            link.reset()  # one end is gone, or never was: so is the other
        else:
            link.close()
        finally:
            del self._links[link]
