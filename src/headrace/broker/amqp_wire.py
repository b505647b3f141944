"""AMQP 0-9-1, as thin as our path needs it: one read loop, one write a loop turn.

    publish ─┐                        ┌─ deliver, return -> the channel's callback, when all is here
    ack     ─┼─> one write a turn ──> │  confirm          -> the channel's callback
    call    ─┘                        │  other methods    -> whoever awaits them on that channel
                                      └─ gone -> connect to any host with back-off, tell

Why not aio-pika: a task, a lock and a dozen objects a message there, 400 us where this takes 10
(docs/decisions/0014). Publish, deliver, ack and confirm are read and written here; the other
methods are rare, and pamqp does them. What it lacks: EXTERNAL and OAuth credentials, transactions,
channel.flow.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import ssl
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

from pamqp import base, commands, frame, header, heartbeat

from headrace.errors import Unavailable

#: consumer tag, delivery tag, delivered before, routing key, content header, body
OnDeliver = Callable[[bytes, int, bool, bytes, bytes, bytes], None]
#: content header and body of a message that no queue wanted
OnReturn = Callable[[bytes, bytes], None]
#: number, whether all before it too, whether the broker has it
OnConfirm = Callable[[int, bool, bool], None]

HEARTBEAT_S = 1  # RabbitMQ hangs up after two to three of them without a word
CALL_WAIT_S = 5.0
CONNECT_WAIT_S = 2.0

_METHOD, _HEADER, _BODY = 1, 2, 3
_DELIVER, _RETURN, _ACK, _NACK = 0x003C003C, 0x003C0032, 0x003C0050, 0x003C0078
_FRAME = struct.Struct(">BHI")  # kind, channel, size
_CONTENT = struct.Struct(">BHIHHQ")  # a header's frame, class, weight, size of the body
_SETTLE = struct.Struct(">BHIIQBB")  # a whole ack or nack
_TAG = struct.Struct(">QB")
_SIZE = struct.Struct(">Q")
_INDEX = struct.Struct(">I")
_END = b"\xce"
_HEARTBEAT = heartbeat.Heartbeat().marshal()
_EMPTY = b"\0\0"  # a content header without properties


class ChannelClosed(Exception):
    """The server closed the channel, or refused what was asked on it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code, self.text = code, text


class Address(NamedTuple):
    """`amqp[s]://user:password@host:port,host:port/vhost`."""

    hosts: list[tuple[str, int]]
    user: str
    password: str
    vhost: str
    tls: bool

    @classmethod
    def of(cls, url: str) -> Address:
        scheme, _, rest = url.partition("://")
        netloc, slash, path = rest.partition("/")
        credentials, _, places = netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        tls = scheme == "amqps"
        hosts = []
        for place in places.split(","):
            host, colon, port = place.rpartition(":")
            if not colon or port.endswith("]"):  # no port, or an IPv6 address alone
                host, port = place, ""
            host = host.strip("[]") or "127.0.0.1"
            hosts.append((host, int(port) if port else 5671 if tls else 5672))
        vhost = unquote(path.partition("?")[0]) if slash and path else "/"
        return cls(hosts, unquote(user) or "guest", unquote(password) or "guest", vhost, tls)

    def shown(self, host: str, port: int) -> str:
        """One of its hosts, without the password."""
        return f"{'amqps' if self.tls else 'amqp'}://{host}:{port} (vhost {self.vhost!r})"


class Channel:
    """One channel of the connection. A lost connection closes it; whoever has it opens it again."""

    def __init__(self, wire: Wire, number: int) -> None:
        self._wire, self.number = wire, number
        self.is_open = False
        self.on_deliver: OnDeliver | None = None
        self.on_return: OnReturn | None = None
        self.on_confirm: OnConfirm | None = None
        self.on_cancelled: Callable[[], None] | None = None
        self.on_closed: Callable[[str], None] | None = None  # by the server, the connection is up
        self._lock = asyncio.Lock()
        self._answer: asyncio.Future[base.Frame] | None = None
        self._method = b""  # of the content that is being read
        self._header = b""
        self._parts: list[bytes] = []
        self._left = 0

    # -- out -----------------------------------------------------------------------------------

    async def open(self, *before: base.Frame) -> None:
        """Opens it, closing it first if it is; asks `before` of it before anybody may write. Raises
        as `call`."""
        was_open = self.is_open
        self.end(None)
        if was_open:
            await self.call(commands.Channel.Close(200, "made again", 0, 0))
        await self.call(commands.Channel.Open())
        for method in before:
            await self.call(method)
        self.is_open = True

    async def call(self, method: base.Frame, wait_s: float = CALL_WAIT_S) -> base.Frame:
        """Asks and gives the answer. Raises ChannelClosed where the server says no, Unavailable
        where it says nothing."""
        async with self._lock:
            if not self._wire.up:
                raise gone()
            self._answer = asyncio.get_running_loop().create_future()
            self.say(method)
            try:
                return await asyncio.wait_for(self._answer, wait_s)
            except TimeoutError:
                raise Unavailable("the broker does not answer", code="broker-unavailable") from None
            finally:
                self._answer = None

    def say(self, method: base.Frame) -> None:
        """For what has no answer."""
        self._wire.write(frame.marshal(method, self.number))

    def address(self, exchange: str, key: str, *, mandatory: bool = False) -> bytes:
        """The first frame of each publish to this place."""
        method = commands.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
        return frame.marshal(method, self.number)

    def publish(self, address: bytes, body: bytes, properties: bytes = _EMPTY) -> None:
        """`properties`: flags and values, as a content header has them."""
        number, size = self.number, len(body)
        head = _CONTENT.pack(_HEADER, number, 12 + len(properties), 60, 0, size)
        write, most = self._wire.write, self._wire.body_max
        if 0 < size <= most:
            body_frame = _FRAME.pack(_BODY, number, size)
            write(b"".join((address, head, properties, _END, body_frame, body, _END)))
            return
        write(b"".join((address, head, properties, _END)))
        for at in range(0, size, most):
            part = body[at : at + most]
            write(b"".join((_FRAME.pack(_BODY, number, len(part)), part, _END)))

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        self._wire.write(_SETTLE.pack(_METHOD, self.number, 13, _ACK, tag, multiple, 0xCE))

    def give_back(self, tag: int) -> None:
        """Negative ack: to the queue again."""
        self._wire.write(_SETTLE.pack(_METHOD, self.number, 13, _NACK, tag, 0b10, 0xCE))

    # -- in ------------------------------------------------------------------------------------

    def end(self, error: Exception | None) -> None:
        """Whatever ended it: what is half read is void, whoever waits learns why."""
        self.is_open = False
        self._method, self._parts = b"", []
        if error and self._answer and not self._answer.done():
            self._answer.set_exception(error)

    def read_method(self, index: int, payload: bytes) -> None:
        if index in (_ACK, _NACK):
            tag, bits = _TAG.unpack_from(payload, 4)
            if self.on_confirm:
                self.on_confirm(tag, bool(bits & 1), index == _ACK)
        elif index in (_DELIVER, _RETURN):
            self._method = payload
        else:
            self._read_rare(frame.unmarshal(framed(payload, self.number))[2])

    def _read_rare(self, method: Any) -> None:
        if isinstance(method, commands.Channel.Close):
            waits = self._answer is not None and not self._answer.done()
            self.say(commands.Channel.CloseOk())
            self.end(ChannelClosed(method.reply_code or 0, method.reply_text))
            if self.on_closed and not waits:
                self.on_closed(method.reply_text)
        elif isinstance(method, commands.Basic.Cancel):  # the queue is gone
            if self.on_cancelled:
                self.on_cancelled()
        elif isinstance(method, commands.Channel.Flow):
            self.say(commands.Channel.FlowOk(active=method.active))
        elif self._answer and not self._answer.done():
            self._answer.set_result(method)

    def read_header(self, payload: bytes) -> None:
        self._header = payload
        (self._left,) = _SIZE.unpack_from(payload, 4)
        if not self._left:
            self._content(b"")

    def read_body(self, payload: bytes) -> None:
        self._left -= len(payload)
        if self._left > 0:
            self._parts.append(payload)
        elif self._parts:
            self._parts.append(payload)
            payload, self._parts = b"".join(self._parts), []
            self._content(payload)
        else:
            self._content(payload)

    def _content(self, body: bytes) -> None:
        method, self._method = self._method, b""
        if not method:
            return  # of a life before
        if method[3] == 50:
            if self.on_return:
                self.on_return(self._header, body)
            return
        end = 5 + method[4]
        tag, before = _TAG.unpack_from(method, end)
        at = end + 9
        at += 1 + method[at]  # the exchange
        if self.on_deliver:
            self.on_deliver(method[5:end], tag, bool(before), method[at + 1 :], self._header, body)


class Wire(asyncio.Protocol):
    """One connection to one of several hosts, kept up until closed."""

    def __init__(self, url: str, name: str) -> None:
        self._address, self._name = Address.of(url), name
        self._transport: asyncio.Transport | None = None
        self._channels: dict[int, Channel] = {}
        self._numbers = itertools.count(1)
        self._out: list[bytes] = []
        self._turns: list[Callable[[], None]] = []
        self._scheduled = False
        self._rest, self._need = b"", 0
        self._closing = False
        self._ready: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._heartbeat_s = float(HEARTBEAT_S)
        self._heard_at = self._said_at = 0.0
        self.body_max = 131_064
        self.blocked = ""  # why the broker takes nothing at present: memory or disk
        self.restored: list[Callable[[], None]] = []

    @property
    def up(self) -> bool:
        return self._transport is not None

    def now(self) -> float:
        return self._loop.time()

    def channel(self) -> Channel:
        """A channel, not yet open."""
        number = next(self._numbers)
        made = self._channels[number] = Channel(self, number)
        return made

    # -- life ----------------------------------------------------------------------------------

    async def open(self, wait_s: float = 5.0) -> None:
        """Connects, trying each host until `wait_s` is over. Raises Unavailable."""
        self._loop = asyncio.get_running_loop()
        end = self._loop.time() + wait_s
        for host, port in itertools.cycle(self._address.hosts):
            try:
                await self._connect(host, port)
                break
            except (OSError, TimeoutError) as error:
                if self._loop.time() > end:
                    why = str(error) or "it does not answer"
                    raise Unavailable(
                        f"no broker at {self._address.shown(host, port)}: {why}",
                        code="broker-unavailable",
                    ) from None
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Writes what waits to be written, then leaves in order."""
        self._closing = True
        if self._reconnecting:
            self._reconnecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconnecting
        if self._transport is None:
            return
        self._closed = self._loop.create_future()
        self.write(frame.marshal(commands.Connection.Close(200, "left", 0, 0), 0))
        self._flush()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed, 1.0)
        if self._transport:
            self._transport.close()
            await asyncio.sleep(0)

    async def _connect(self, host: str, port: int) -> None:
        tls = ssl.create_default_context() if self._address.tls else None
        self._ready = self._loop.create_future()
        transport, _ = await asyncio.wait_for(
            self._loop.create_connection(
                lambda: self, host, port, ssl=tls, server_hostname=host if tls else None
            ),
            CONNECT_WAIT_S,
        )
        try:
            await asyncio.wait_for(self._ready, CONNECT_WAIT_S)
        except BaseException:
            transport.abort()
            raise
        self._transport = transport
        self._on_beat()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._greeting = cast(asyncio.Transport, transport)
        self._rest, self._need = b"", 0
        self._out.clear()  # was meant for the connection before
        self.blocked = ""
        self._greeting.write(header.ProtocolHeader().marshal())

    def connection_lost(self, error: Exception | None) -> None:
        was_up, self._transport = self._transport is not None, None
        if self._beat:
            self._beat.cancel()
        for future in (self._ready, self._closed):
            if future and not future.done():
                if future is self._closed:
                    future.set_result(None)
                else:
                    future.set_exception(error or ConnectionError("the broker hung up"))
        for channel in self._channels.values():
            channel.end(gone())
        if was_up and not self._closing:
            self._reconnecting = asyncio.ensure_future(self._reconnect())

    async def _reconnect(self) -> None:
        for number, (host, port) in enumerate(itertools.cycle(self._address.hosts)):
            try:
                await self._connect(host, port)
                break
            except (OSError, TimeoutError):
                await asyncio.sleep(min(1.0, 0.02 * 1.5**number) * random.uniform(0.5, 1.0))
        for tell in self.restored:
            tell()

    def drop(self) -> None:
        """Give the connection up and make a new one."""
        if self._transport:
            self._transport.abort()

    def _on_beat(self) -> None:
        """Says something at least twice a heartbeat; hangs up where nothing is heard for three."""
        if self._transport is None or not self._heartbeat_s:
            return
        now = self._loop.time()
        if now - self._heard_at > 3 * self._heartbeat_s:
            self._transport.abort()
            return
        if now - self._said_at > self._heartbeat_s / 4:
            self.write(_HEARTBEAT)
        self._beat = self._loop.call_later(self._heartbeat_s / 3, self._on_beat)

    # -- out -----------------------------------------------------------------------------------

    def write(self, frames: bytes) -> None:
        if self._transport is None:
            return  # whoever needs an answer sends again when the connection is restored
        self._schedule()
        self._out.append(frames)

    def at_turns_end(self, work: Callable[[], None]) -> None:
        """Calls `work` just before this turn's write."""
        self._schedule()
        self._turns.append(work)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        turns, self._turns = self._turns, []
        for work in turns:
            work()
        # What `work` wrote goes along; what it put off comes in a turn of its own.
        self._scheduled = False
        if self._turns:
            self._schedule()
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._said_at = self._loop.time()
        self._out.clear()

    # -- in ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._rest:
            data = self._rest + data
            if len(data) < self._need:
                self._rest = data
                return
        at, end = 0, len(data)
        self._need = 0
        while end - at >= 8:
            kind, number, size = _FRAME.unpack_from(data, at)
            after = at + 8 + size
            if size > self.body_max or (after <= end and data[after - 1] != 0xCE):
                self._hang_up("what it says is not AMQP 0-9-1")
                return
            if after > end:
                self._need = after - at
                break
            self._read(kind, number, data[at + 7 : after - 1])
            at = after
        self._rest = data[at:]

    def _read(self, kind: int, number: int, payload: bytes) -> None:
        if kind > _BODY:
            return  # a heartbeat
        if not number:
            self._control(frame.unmarshal(framed(payload, 0))[2])
            return
        channel = self._channels.get(number)
        if channel is None:
            return
        if kind == _METHOD:
            channel.read_method(_INDEX.unpack_from(payload)[0], payload)
        elif kind == _HEADER:
            channel.read_header(payload)
        else:
            channel.read_body(payload)

    def _control(self, method: Any) -> None:
        """What is said of the connection itself."""
        if isinstance(method, commands.Connection.Start):
            self._greeting.write(frame.marshal(self._hello(), 0))
        elif isinstance(method, commands.Connection.Tune):
            self._tune(method)
        elif isinstance(method, commands.Connection.OpenOk):
            if self._ready and not self._ready.done():
                self._ready.set_result(None)
        elif isinstance(method, commands.Connection.Blocked):
            self.blocked = method.reason or "no reason given"
        elif isinstance(method, commands.Connection.Unblocked):
            self.blocked = ""
        elif isinstance(method, commands.Connection.Close):
            self._greeting.write(frame.marshal(commands.Connection.CloseOk(), 0))
            self._hang_up(method.reply_text)
        elif isinstance(method, commands.Connection.CloseOk):
            self._greeting.close()

    def _hello(self) -> base.Frame:
        address = self._address
        return commands.Connection.StartOk(
            client_properties={
                "product": "headrace",
                "connection_name": self._name,
                "capabilities": {
                    "authentication_failure_close": True,
                    "basic.nack": True,
                    "connection.blocked": True,
                    "consumer_cancel_notify": True,
                    "publisher_confirms": True,
                },
            },
            mechanism="PLAIN",
            response=f"\0{address.user}\0{address.password}",
        )

    def _tune(self, offer: Any) -> None:
        self._heartbeat_s = float(min(offer.heartbeat or HEARTBEAT_S, HEARTBEAT_S))
        frame_max = min(offer.frame_max or 131_072, 131_072)
        self.body_max = frame_max - 8
        tuned = commands.Connection.TuneOk(
            channel_max=offer.channel_max, frame_max=frame_max, heartbeat=int(self._heartbeat_s)
        )
        opened = commands.Connection.Open(virtual_host=self._address.vhost)
        self._greeting.write(frame.marshal(tuned, 0) + frame.marshal(opened, 0))

    def _hang_up(self, why: str) -> None:
        if self._ready and not self._ready.done():
            self._ready.set_exception(ConnectionError(why))
        self._greeting.close()


def framed(payload: bytes, number: int) -> bytes:
    """A method's payload as the frame it came in: pamqp reads frames."""
    return b"".join((_FRAME.pack(_METHOD, number, len(payload)), payload, _END))


def gone() -> Unavailable:
    return Unavailable("the broker is gone", code="broker-unavailable")
