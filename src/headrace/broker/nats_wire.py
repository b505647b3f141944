"""The NATS client protocol, as thin as our path needs it: one read loop, one write a loop turn.

    send ─┐                        ┌─ MSG  -> the subscription's callback, in the read loop
    send ─┼─> one write a turn ──> │  PING -> PONG
    send ─┘                        └─ gone -> reconnect with back-off, subscribe again, tell

Why not nats-py: each message passes a regular-expression parser, a queue, a task and a `Msg`
object there, 15-18 us a message where this takes 2 (docs/decisions/0004). What it lacks beside
nats-py: NKEY and JWT credentials, and learning of further servers; user, password and token work.
Of several servers, each client begins with one by chance: they share the clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from headrace.errors import Unavailable

#: subject, reply subject (b"" for none), headers (b"" for none), payload
OnMsg = Callable[[bytes, bytes, bytes, bytes], None]

PING_EVERY_S = 2.0  # a server that is stopped, or behind a broken line, is left after four of them


class Wire(asyncio.Protocol):
    """One connection to one of several NATS servers, kept up until closed."""

    def __init__(self, url: str, name: str) -> None:
        self._servers = _servers(url)
        self._name = name
        self._transport: asyncio.Transport | None = None
        self._subscriptions: dict[bytes, tuple[bytes, OnMsg]] = {}
        self._sids = itertools.count(1)
        self._requests: dict[bytes, asyncio.Future[bytes]] = {}
        self._request_ids = itertools.count(1)
        self._inbox = b"_INBOX.%016x" % random.getrandbits(64)
        self._out: list[bytes] = []
        self._rest = b""
        self._need = 0
        self._closing = False
        self._ready: asyncio.Future[None] | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._pinger: asyncio.Task[None] | None = None
        # One entry a PING sent, in order: whom its PONG wakes, or None.
        self._pongs: deque[asyncio.Future[None] | None] = deque()
        self.max_payload = 1_048_576
        self.restored: list[Callable[[], None]] = []

    @property
    def up(self) -> bool:
        return self._transport is not None

    def now(self) -> float:
        return self._loop.time()

    # -- life ----------------------------------------------------------------------------------

    async def open(self, wait_s: float = 5.0) -> None:
        """Connects, trying each server until `wait_s` is over. Raises Unavailable."""
        self._loop = asyncio.get_running_loop()
        end = self._loop.time() + wait_s
        for url in itertools.cycle(self._servers):
            try:
                await self._connect(url)
                break
            except (OSError, TimeoutError, ConnectionError) as error:
                if self._loop.time() > end:
                    raise Unavailable(
                        f"no broker answers at {_shown(url)} ({error})", code="broker-unavailable"
                    ) from None
                await asyncio.sleep(0.02)
        await self.subscribe(self._inbox + b".*", self._on_response)
        self._pinger = asyncio.create_task(self._ping())

    async def close(self) -> None:
        """Writes what waits to be written, then leaves."""
        self._closing = True
        for task in (self._pinger, self._reconnecting):
            if task:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._flush()
        if self._transport:
            self._transport.close()
            await asyncio.sleep(0)

    async def _connect(self, url: str) -> None:
        parts = urlsplit(url)
        tls = ssl.create_default_context() if parts.scheme == "tls" else None
        self._ready = self._loop.create_future()
        self._url = parts
        transport, _ = await asyncio.wait_for(
            self._loop.create_connection(
                lambda: self,
                parts.hostname or "127.0.0.1",
                parts.port or 4222,
                ssl=tls,
                server_hostname=parts.hostname if tls else None,
            ),
            2.0,
        )
        try:
            await asyncio.wait_for(self._ready, 2.0)
        except BaseException:
            transport.abort()
            raise
        self._transport = transport
        self._flush()  # what was said since the greeting (a PONG, a new subscription)

    def _hello(self, info: dict[str, Any]) -> bytes:
        self.max_payload = info.get("max_payload", self.max_payload)
        options: dict[str, Any] = {
            "verbose": False, "pedantic": False, "lang": "python", "version": "headrace",
            "name": self._name, "protocol": 1, "headers": True, "no_responders": True,
        }  # fmt: skip
        if self._url.password:
            options |= {"user": self._url.username, "pass": self._url.password}
        elif self._url.username:
            options["auth_token"] = self._url.username
        again = b"".join(
            b"SUB %s %s\r\n" % (subject, sid) for sid, (subject, _) in self._subscriptions.items()
        )
        self._pongs.append(self._ready)
        return b"CONNECT " + json.dumps(options).encode() + b"\r\n" + again + b"PING\r\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._rest, self._need = b"", 0
        self._greeting = transport
        self._pongs.clear()
        self._out.clear()  # was meant for the connection before

    def connection_lost(self, error: Exception | None) -> None:
        was_up, self._transport = self._transport is not None, None
        if self._ready and not self._ready.done():
            self._ready.set_exception(error or ConnectionError("the broker closed the connection"))
        for future in self._requests.values():
            if not future.done():
                future.set_exception(Unavailable("the broker is gone", code="broker-unavailable"))
        self._requests.clear()
        if was_up and not self._closing:
            self._reconnecting = asyncio.ensure_future(self._reconnect())

    async def _reconnect(self) -> None:
        for number, url in enumerate(itertools.cycle(self._servers)):
            try:
                await self._connect(url)
                break
            except (OSError, TimeoutError, ConnectionError):
                await asyncio.sleep(min(1.0, 0.02 * 1.5**number) * random.uniform(0.5, 1.0))
        for tell in self.restored:
            tell()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            if self._transport is None:
                continue
            if len(self._pongs) > 2:  # a server that is there but does not answer
                self._transport.abort()
            else:
                self._send_ping(None)

    def _send_ping(self, pong: asyncio.Future[None] | None) -> None:
        self._pongs.append(pong)
        self._write(b"PING\r\n")

    # -- out -----------------------------------------------------------------------------------

    def _write(self, frame: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"") -> None:
        if self._transport is None:
            return  # whoever needs an answer sends again when the connection is restored
        self._write(b"PUB %s %s %d\r\n%s\r\n" % (subject, reply, len(payload), payload))

    async def subscribe(self, subject: bytes, on_msg: OnMsg) -> bytes:
        """Raises nothing: the subscription is in force when the next request is answered."""
        sid = b"%d" % next(self._sids)
        self._subscriptions[sid] = (subject, on_msg)
        self._write(b"SUB %s %s\r\n" % (subject, sid))
        return sid

    def unsubscribe(self, sid: bytes) -> None:
        """Messages that are on their way still reach the callback, until `forget`."""
        self._write(b"UNSUB %s\r\n" % sid)

    def forget(self, sid: bytes) -> None:
        self._subscriptions.pop(sid, None)

    async def round_trip(self, wait_s: float = 1.0) -> None:
        """All that the server sent before now has been read. Raises Unavailable."""
        pong: asyncio.Future[None] = self._loop.create_future()
        self._send_ping(pong)
        try:
            await asyncio.wait_for(pong, wait_s)
        except TimeoutError:
            raise Unavailable("the broker does not answer", code="broker-unavailable") from None

    async def request(self, subject: bytes, payload: bytes, wait_s: float = 5.0) -> bytes:
        """One message out, one back. Raises Unavailable where none comes."""
        token = b"%s.%d" % (self._inbox, next(self._request_ids))
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._requests[token] = future
        self.publish(subject, payload, token)
        try:
            return await asyncio.wait_for(future, wait_s)
        except TimeoutError:
            raise Unavailable("the broker does not answer", code="broker-unavailable") from None
        finally:
            self._requests.pop(token, None)

    def _on_response(self, subject: bytes, _: bytes, headers: bytes, payload: bytes) -> None:
        future = self._requests.get(subject)
        if future and not future.done():
            if headers.startswith(b"NATS/1.0 503"):
                future.set_exception(
                    Unavailable("the broker has no JetStream", code="broker-unavailable")
                )
            else:
                future.set_result(payload)

    # -- in ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            if len(data) < self._need:
                self._rest = data
                return
        at, end = 0, len(data)
        while at < end:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                self._need = 0
                break
            kind = data[at]
            if kind == 77 or kind == 72:  # MSG, HMSG
                after = self._message(data, at, line_end, kind == 72)
                if not after:
                    break
                at = after
            else:
                self._control(data[at:line_end])
                at = line_end + 2
        self._rest = data[at:]

    def _message(self, data: bytes, at: int, line_end: int, has_headers: bool) -> int:
        """Hands on one message; gives where the next begins, or 0 where it is not all here."""
        words = data[at:line_end].split()
        size = int(words[-1])
        start = line_end + 2
        after = start + size + 2
        if after > len(data):
            self._need = after - at
            return 0
        head = int(words[-2]) if has_headers else 0
        reply = words[3] if len(words) - has_headers == 5 else b""
        subscription = self._subscriptions.get(words[2])
        if subscription:
            subscription[1](
                words[1], reply, data[start : start + head], data[start + head : after - 2]
            )
        return after

    def _control(self, line: bytes) -> None:
        if line == b"PING":
            self._write(b"PONG\r\n")
        elif line == b"PONG":
            pong = self._pongs.popleft() if self._pongs else None
            if pong and not pong.done():
                pong.set_result(None)
        elif line.startswith(b"INFO "):
            if self._ready and not self._ready.done():
                self._greeting.write(self._hello(json.loads(line[5:])))  # type: ignore[attr-defined]
        elif line.startswith(b"-ERR") and self._ready and not self._ready.done():
            self._ready.set_exception(ConnectionError(line[5:].decode().strip("'")))


def _servers(url: str) -> list[str]:
    """`nats://user:secret@a:1,b:2`, one URL a server, in any order. Scheme and credentials are the
    first's where a server has none."""
    first, *others = url.split(",")
    scheme, _, place = first.rpartition("://")
    credentials, at, _ = place.rpartition("@")
    servers = [f"{scheme or 'nats'}://{place}"]
    for other in others:
        its_scheme, _, its_place = other.rpartition("://")
        if "@" not in its_place:
            its_place = credentials + at + its_place
        servers.append(f"{its_scheme or scheme or 'nats'}://{its_place}")
    random.shuffle(servers)
    return servers


def _shown(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 4222}"
