"""Keep-alive HTTP/1.1 with one call open at a time, as lean as a load's own client must be: what it
takes from the machine, the house does not have."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import NamedTuple, cast

from headrace.client.write import Body

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STAGE = re.compile(rb"(\w+);dur=([\d.]+)")


class Reply(NamedTuple):
    """`stages`: milliseconds by the stage's name, of a result. Status 0: the connection ended."""

    status: int
    stages: dict[str, float]


#: Hears the reply, and the wire, which is free again.
OnReply = Callable[["Wire", Reply], None]
GONE = Reply(0, {})


def request(path: str, body: Body, deadline_s: float) -> bytes:
    """A POST, whole."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {body.content_type}\r\n"
        f"Headrace-Deadline-Ms: {round(deadline_s * 1000)}\r\nContent-Length: {len(body.data)}"
        "\r\n\r\n"
    ).encode() + body.data


class Wire(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._on_reply: OnReply | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    @property
    def open(self) -> bool:
        return self._transport is not None

    def send(self, data: bytes, on_reply: OnReply) -> None:
        """`on_reply` is called once, whatever happens."""
        if self._transport is None:
            on_reply(self, GONE)
            return
        self._on_reply = on_reply
        self._transport.write(data)

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by birth

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._tell(GONE)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[: end + 2])
        length = _LENGTH.search(head)
        if len(self._buffer) < end + 4 + (int(length[1]) if length else 0):
            return
        self._buffer.clear()
        status = int(head[9:12])
        stages = {}
        if status == 200:
            stages = {name.decode(): float(ms) for name, ms in _STAGE.findall(head)}
        self._tell(Reply(status, stages))

    def _tell(self, reply: Reply) -> None:
        on_reply, self._on_reply = self._on_reply, None
        if on_reply:
            on_reply(self, reply)


async def connect(port: int) -> Wire:
    """Raises OSError."""
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(Wire, "127.0.0.1", port)
    return wire


async def get(url: str) -> bytes:
    """The body of a page. Raises OSError."""
    place, _, path = url.removeprefix("http://").partition("/")
    return await _once(int(place.rpartition(":")[2]), f"GET /{path} HTTP/1.1\r\n".encode())


async def post(port: int, path: str, body: Body, deadline_s: float) -> bytes:
    """The body of the answer, whatever its status. Raises OSError."""
    whole = request(path, body, deadline_s)
    line, _, rest = whole.partition(b"\r\n")
    return await _once(port, line + b"\r\n", rest)


async def _once(port: int, line: bytes, rest: bytes = b"Host: localhost\r\n\r\n") -> bytes:
    """On a connection of its own, to this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(line + b"Connection: close\r\n" + rest)
        return (await reader.read(-1)).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()
