"""HTTP/1.1 on httptools, as strict as a door must be and with nothing between it and the handler.

    bytes -> limits, framing -> Request -> handler(request) ... request.answer(...) -> bytes

The handler is a plain function; it answers at once or keeps the request and answers later. No task
and no future is made for a call: at 12 us a call against 44 for an ASGI server, this is the largest
single saving on the path (docs/decisions/0003). Answers leave in the order of the requests.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import httptools
import structlog

from headrace.errors import (
    BadRequest,
    HeadersTooLarge,
    MethodUnknown,
    ModelFailed,
    PayloadTooLarge,
    Refusal,
    RequestTimeout,
    UriTooLong,
)

log = structlog.get_logger("headrace.http")

MAX_URI = 8192
MAX_HEADER = 8192
MAX_HEADERS = 100
MAX_HEAD = 65_536
MAX_PIPELINED = 16
MAX_KNOWN_HEAD = 1024  # heads up to this are remembered; larger ones are parsed each time
KNOWN_HEADS = 1024
HEAD_WAIT_S = 10.0  # from the first byte of a request to the end of its headers
BODY_WAIT_S = 30.0  # without a byte of the body
BODY_RATE = 1_000  # bytes a second that an upload must average beside BODY_WAIT_S
IDLE_WAIT_S = 75.0  # a kept-alive connection without a request
WRITE_WAIT_S = 60.0  # for a client to take what waits to be written
LINGER_S = 2.0  # what a refused client still sends is thrown away, so that it can read the answer
LINGER_BYTES = 32_000_000
MAX_UPGRADES = 8  # offers of one on a connection
DRAIN_IDLE_S = 0.2  # connections without a request are kept for so long when we leave
WRITE_HIGH = 1 << 20
MAX_OVERHEAD = 2  # bytes on the wire for one of the body, beyond MAX_HEAD: 5-byte chunks
FOLD_PARTS = 256  # so many pieces of a body become one buffer: a small `bytes` costs 33 more

REASONS = {
    200: b"OK", 202: b"Accepted", 204: b"No Content", 400: b"Bad Request",
    401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 406: b"Not Acceptable", 408: b"Request Timeout", 409: b"Conflict",
    411: b"Length Required", 413: b"Payload Too Large", 414: b"URI Too Long",
    415: b"Unsupported Media Type", 422: b"Unprocessable Content",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    501: b"Not Implemented", 503: b"Service Unavailable", 504: b"Gateway Timeout",
}  # fmt: skip


class _StatusLines(dict[int, bytes]):
    """A model's author may refuse with a status that stands in no table here."""

    def __missing__(self, status: int) -> bytes:
        return b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b""))


_STATUS_LINES = _StatusLines(
    {status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in REASONS.items()}
)
_OF_ONE_TIME = frozenset(
    {
        b"transfer-encoding",
        b"expect",
        b"upgrade",
        b"connection",
        b"x-request-id",
        b"traceparent",
        b"idempotency-key",
    }
)
_OF_AN_UPGRADE = (b"connection", b"upgrade", b"http2-settings")
_PEER = struct.Struct("iII")  # struct ucred: process, user, group
#: headers that a request may not have twice, because two readers may choose differently
_ONCE = frozenset({b"content-length", b"host", b"content-type", b"transfer-encoding"})


class Request:
    """One request, whole. `answer` may be called once, now or later, from the loop's thread."""

    __slots__ = (
        "_connection", "_parts", "answered", "body", "headers", "id", "keep_alive", "method",
        "on_gone", "path", "query", "started",
    )  # fmt: skip

    def __init__(self, connection: Connection, started: float) -> None:
        self._connection = connection
        self.started = started
        self.method = b""
        self.path = b""
        self.query = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.id = ""
        self.keep_alive = True
        self.answered = False
        #: called where the client leaves before it is answered
        self.on_gone: Callable[[], None] | None = None
        self._parts: list[bytes | bytearray] = []

    def answer(self, status: int, body: bytes, head: bytes) -> None:
        """`head`: further header lines, each ended by CRLF."""
        self._connection.answer(self, status, body, head)

    def begin(self, head: bytes) -> bool:
        """Starts an answer of 200 that comes piece by piece, up to the end of the connection. False
        where that cannot be: others that came before on this connection are not answered yet."""
        return self._connection.begin(self, head)

    def write(self, data: bytes) -> None:
        """A piece of an answer that was begun."""
        self._connection.write(self, data)

    def end(self) -> None:
        """The last piece was written."""
        self._connection.end(self)

    def user_id(self) -> int | None:
        """On a Unix socket: of whom, on this machine, the kernel says that he opened it."""
        return self._connection.user_id()


class KnownHead(NamedTuple):
    """What the bytes of one request head mean. `headers` is shared: nobody may change it."""

    method: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    length: int


Handler = Callable[[Request], None]
#: Sees a request when its headers are read; may raise a Refusal before the body is.
OnHead = Callable[[Request], None]
#: Answers a refusal: the server has no form of its own for it.
OnRefusal = Callable[[Request, Refusal], None]


class HttpServer:
    """Listens, and keeps the connections: their number, their time limits, their end."""

    def __init__(
        self, handle: Handler, on_head: OnHead, on_refusal: OnRefusal, max_body: int
    ) -> None:
        self.handle, self.on_head, self.on_refusal = handle, on_head, on_refusal
        self.max_body = max_body
        self.connections: set[Connection] = set()
        self.draining = False
        #: The time limits; tests shorten them.
        self.head_wait_s, self.body_wait_s, self.idle_wait_s = HEAD_WAIT_S, BODY_WAIT_S, IDLE_WAIT_S
        self.write_wait_s, self.linger_s, self.sweep_s = WRITE_WAIT_S, LINGER_S, 0.5
        self.heads: dict[bytes, KnownHead] = {}
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    def learn(self, head: bytes, request: Request) -> None:
        """Keeps what a head means, where it means the same every time: the length of the body is
        in it, and nothing of the connection hangs on it."""
        headers = request.headers
        length = int(headers.get(b"content-length", b"0"))
        if (
            not request.keep_alive
            or b" HTTP/1.1\r\n" not in head
            or not headers.keys().isdisjoint(_OF_ONE_TIME)
            or len(request.body) != length
        ):
            return
        if len(self.heads) >= KNOWN_HEADS:
            self.heads.clear()
        self.heads[head] = KnownHead(request.method, request.path, request.query, headers, length)

    async def open(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Gives the port. Raises OSError where it is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self, loop), host, port, backlog=4096, reuse_port=reuse_port
        )
        self._sweeper = asyncio.create_task(self._sweep())
        return int(self._server.sockets[0].getsockname()[1])

    async def open_unix(self, bound: socket.socket) -> None:
        """On a Unix socket that is bound, and ours from now on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Connection(self, loop), sock=bound)
        self._sweeper = asyncio.create_task(self._sweep())

    async def drain(self, grace_s: float) -> None:
        """No new connections; open requests are answered, then their connections closed."""
        self.draining = True
        if self._server:
            self._server.close()
        if self.connections:  # a request may be on its way: its answer says that it was the last
            await asyncio.sleep(min(DRAIN_IDLE_S, grace_s))
        for connection in list(self.connections):
            connection.close_if_idle()
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        while self.connections and loop.time() < end:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper:
            self._sweeper.cancel()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.sweep_s)
            now = loop.time()
            for connection in list(self.connections):
                try:
                    connection.check_time(now)
                except Exception:  # one connection's trouble is not the others'
                    log.exception("a connection failed its check")
                    connection.abort()


class Connection(asyncio.Protocol):
    """One client connection: a parser, the requests in order, the answers in the same order."""

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server, self._loop = server, loop
        self.transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._open: deque[Request] = deque()  # read or being read, not yet written
        self._answers: dict[Request, bytes] = {}
        self._reading: Request | None = None
        self._reading_body = False
        self._size = 0
        self._wire = 0
        self._head_size = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._head = b""  # of the request that begins what was read last, to be learned
        self._last_read = 0.0
        self._closing = False  # nothing more is read
        self._refused = False  # ... because what was sent could not be
        self._upgrading: Request | None = None
        self._upgrades = 0
        self._thrown = 0
        self._end = float("inf")  # the latest time for the connection to go
        self._paused_writing = False
        self._paused_at = 0.0

    # -- connection ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)  # type: ignore[union-attr]
        self._server.connections.add(self)
        self._last_read = self._loop.time()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._server.connections.discard(self)
        self._give_up()

    def _give_up(self) -> None:
        """What is not yet answered never is."""
        for request in self._open:
            if request.on_gone and not request.answered:
                request.on_gone()
            request.answered = True
        self._open.clear()
        self._answers.clear()

    def pause_writing(self) -> None:
        self._paused_writing = True
        self._paused_at = self._loop.time()
        if self.transport:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused_writing = False
        if self.transport and len(self._open) <= MAX_PIPELINED:
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        return False

    def user_id(self) -> int | None:
        ours = self.transport.get_extra_info("socket") if self.transport else None
        if ours is None or ours.family != socket.AF_UNIX:
            return None
        _, user_id, _ = _PEER.unpack(
            ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        )
        return int(user_id)

    def close_if_idle(self) -> None:
        if not self._open:
            self._close()

    def _close(self) -> None:
        """What is written is still sent, for a while."""
        if self._end < float("inf"):
            return
        self._closing = True
        self._give_up()
        if self.transport is None:
            return
        if self._refused and self.transport.can_write_eof():
            # Closed with unread bytes, the kernel would reset the connection and the client could
            # lose the answer that says why.
            self._end = self._loop.time() + self._server.linger_s
            self.transport.write_eof()
        else:
            self._end = self._loop.time() + self._server.write_wait_s
            self.transport.close()

    def abort(self) -> None:
        if self.transport:
            self.transport.abort()

    def check_time(self, now: float) -> None:
        """Slow or silent clients do not hold what others need."""
        server = self._server
        stalled = self._paused_writing and now - self._paused_at > server.write_wait_s
        if stalled or now > self._end:
            self.abort()
            return
        reading = self._reading
        if self._closing or len(self._open) > MAX_PIPELINED:  # the latter: it is we who do not read
            return
        if reading is None:
            if not self._open and now - self._last_read > server.idle_wait_s:
                self._close()
            return
        age = now - reading.started
        slow_head = not self._reading_body and age > server.head_wait_s
        slow_body = self._reading_body and (
            now - self._last_read > server.body_wait_s
            or age > server.body_wait_s + self._size / BODY_RATE
        )
        if slow_head or slow_body:
            self._refuse(RequestTimeout("the request did not arrive in time"))

    # -- in ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._throw_away(data)
            return
        self._last_read = self._loop.time()
        if self._reading_body:
            self._wire += len(data)
        else:
            if self._reading is None:
                data = self._read_known(data)
                if not data:
                    return
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            self._read_again(data[error.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(_why(error))
        else:
            if self._reading is not None:
                self._check_sizes()

    def _read_known(self, data: bytes) -> bytes:
        """Whole requests whose head was read before, byte for byte the same, need no parsing: a
        kept-alive client repeats itself. Gives what is left for the parser."""
        heads = self._server.heads
        while data and not self._closing:
            end = data.find(b"\r\n\r\n", 0, MAX_KNOWN_HEAD) + 4
            head = data[:end] if end > 3 else b""
            known = heads.get(head)
            if known is None:
                self._head = head
                return data
            stop = end + known.length
            if len(data) < stop:
                return data
            request = Request(self, self._last_read)
            request.method, request.path, request.query = known.method, known.path, known.query
            request.headers = known.headers
            request.body = data[end:stop]
            data = data[stop:]
            self._open.append(request)
            if len(self._open) > MAX_PIPELINED and self.transport:
                self.transport.pause_reading()
            self._server.on_head(request)
            self._handle(request)
        return b"" if self._closing else data

    def _throw_away(self, data: bytes) -> None:
        self._thrown += len(data)
        if self._thrown > LINGER_BYTES:
            self.abort()

    def _read_again(self, rest: bytes) -> None:
        """No upgrade is made here, but clients (Java's, by default) send whole requests that offer
        one. llhttp stops behind their headers: they are given to a new parser, the offer left out.
        """
        request, self._upgrading = self._upgrading, None
        self._upgrades += 1
        if request is None:  # CONNECT: nothing is read behind it
            self._closing = True
            if self._open:
                self._open[-1].keep_alive = False
            else:
                self._close()
            return
        if self._upgrades > MAX_UPGRADES:
            self._refuse(BadRequest("no upgrade is offered here", code="bad-request-framing"))
            return
        query = b"?" + request.query if request.query else b""
        lines = [b"%b %b%b HTTP/1.1" % (request.method, request.path, query)]
        headers = request.headers
        lines += [b"%b: %b" % each for each in headers.items() if each[0] not in _OF_AN_UPGRADE]
        if not request.keep_alive:
            lines.append(b"Connection: close")
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _check_sizes(self) -> None:
        """Of a request that has come in part. The URL's and the body's are checked as they come."""
        if self._reading_body:
            if self._wire > MAX_HEAD + MAX_OVERHEAD * self._size:
                # Trailers, chunk extensions, chunks of nothing: bytes that no other limit counts.
                self._refuse(PayloadTooLarge("the body is mostly framing"))
        elif self._head_size > MAX_HEAD:
            self._refuse(HeadersTooLarge(f"the headers are larger than {MAX_HEAD} bytes"))

    def on_message_begin(self) -> None:
        if self._closing:  # behind a request that was to be the last
            raise BadRequest("the connection is to be closed", code="bad-request-framing")
        self._reading = Request(self, self._last_read)
        self._reading_body = False
        self._size = self._wire = 0
        self._open.append(self._reading)
        if len(self._open) > MAX_PIPELINED and self.transport:
            self.transport.pause_reading()

    def on_url(self, url: bytes) -> None:
        request = self._reading
        assert request is not None
        request.path += url  # in pieces where it spans reads
        if len(request.path) > MAX_URI:
            raise UriTooLong(f"the URL is longer than {MAX_URI} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))  # checked together, when all are here

    def on_headers_complete(self) -> None:
        request = self._reading
        assert request is not None
        request.method = self._parser.get_method()
        request.keep_alive = self._parser.should_keep_alive()
        if b"?" in request.path:
            request.path, _, request.query = request.path.partition(b"?")
        pairs, self._headers = self._headers, []
        headers = {name.lower(): value for name, value in pairs}
        if len(headers) != len(pairs) or self._head_size > MAX_HEADER or len(pairs) > MAX_HEADERS:
            headers = _merged(pairs)
        request.headers = headers
        self._head_size = 0
        self._reading_body = True
        self._check_framing(request)
        self._server.on_head(request)
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue":
            self._continue(request)

    def _check_framing(self, request: Request) -> None:
        headers = request.headers
        length, encoding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if length is not None and (encoding is not None or not length.strip(b" \t").isdigit()):
            raise BadRequest("conflicting or malformed lengths", code="bad-request-framing")
        if encoding is not None and encoding.strip().lower() != b"chunked":
            raise BadRequest("only chunked is known", code="bad-request-framing")
        if not request.keep_alive or b"connection" in headers:  # else it is HTTP/1.1: spare a look
            self._check_version(request)
        if b"host" not in headers and self._parser.get_http_version() == "1.1":
            raise BadRequest("the Host header is missing", code="bad-request-framing")
        if length is not None and int(length) > self._server.max_body:
            raise PayloadTooLarge(f"the body is larger than {self._server.max_body} bytes")

    def _check_version(self, request: Request) -> None:
        """llhttp also knows 0.9 and 2.0, which nothing that speaks them would send here."""
        version = self._parser.get_http_version()
        if self._parser.should_upgrade():
            if request.method == b"CONNECT":
                raise MethodUnknown("this is no proxy")
            self._open.pop()
            self._upgrading, self._reading = request, None
        if version == "1.0":
            request.keep_alive = False
            if b"transfer-encoding" in request.headers:
                raise BadRequest("HTTP/1.0 has no chunks", code="bad-request-framing")
        elif version != "1.1":
            raise BadRequest("expected HTTP/1.1 or HTTP/1.0", code="bad-request-framing")

    def _continue(self, request: Request) -> None:
        # Behind another answer it would be taken for that request's; the client sends anyway.
        first = self._open and self._open[0] is request
        if self.transport and first and self._parser.get_http_version() == "1.1":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._server.max_body:
            raise PayloadTooLarge(f"the body is larger than {self._server.max_body} bytes")
        parts = self._reading._parts  # type: ignore[union-attr]
        parts.append(body)
        if len(parts) > FOLD_PARTS:
            first = parts[0]
            whole = first if isinstance(first, bytearray) else bytearray(first)
            whole += b"".join(parts[1:])
            parts[:] = [whole]

    def on_message_complete(self) -> None:
        request = self._reading
        self._reading = None
        self._reading_body = False
        if request is None:
            return  # it will be read again
        parts = request._parts
        request.body = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
        request._parts = []
        if self._headers:  # trailers: whoever reads them as headers is fooled
            self._headers = []
        if not request.keep_alive:
            self._closing = True
        if self._head:
            self._server.learn(self._head, request)
            self._head = b""
        self._handle(request)

    def _handle(self, request: Request) -> None:
        try:
            self._server.handle(request)
        except Refusal as refusal:
            self._server.on_refusal(request, refusal)
        except Exception:
            log.exception("a request failed", request_id=request.id)
            self._server.on_refusal(request, ModelFailed("an error of ours", code="internal"))

    def _refuse(self, refusal: Refusal) -> None:
        """A request that cannot be read on: answer it, and read nothing more."""
        self._closing = self._refused = True
        if self._end < float("inf"):
            return
        request = self._reading
        if request is None:
            request = Request(self, self._last_read)
            self._open.append(request)
        self._reading = None
        request.keep_alive = False
        self._server.on_refusal(request, refusal)

    # -- out -----------------------------------------------------------------------------------

    def answer(self, request: Request, status: int, body: bytes, head: bytes) -> None:
        if request.answered or self.transport is None:
            return
        request.answered = True
        waiting = self._open
        if not request.keep_alive or (self._server.draining and waiting[-1] is request):
            request.keep_alive = False
            head += b"Connection: close\r\n"
        if request.method == b"HEAD":
            data = b"%bContent-Length: %d\r\n%b\r\n" % (_STATUS_LINES[status], len(body), head)
        else:
            data = b"%bContent-Length: %d\r\n%b\r\n%b" % (
                _STATUS_LINES[status], len(body), head, body,
            )  # fmt: skip
        if waiting[0] is request:
            waiting.popleft()
            self._send(request, data)
            while waiting and waiting[0] in self._answers:
                ahead = waiting.popleft()
                self._send(ahead, self._answers.pop(ahead))
        else:
            self._answers[request] = data

    def begin(self, request: Request, head: bytes) -> bool:
        if request.answered or self.transport is None or self._open[0] is not request:
            return False
        request.keep_alive = False
        self._closing = True
        self.transport.write(b"%b%bConnection: close\r\n\r\n" % (_STATUS_LINES[200], head))
        return True

    def write(self, request: Request, data: bytes) -> None:
        if not request.answered and self.transport is not None:
            self.transport.write(data)

    def end(self, request: Request) -> None:
        if not request.answered and self.transport is not None:
            request.answered = True
            self._close()

    def _send(self, request: Request, data: bytes) -> None:
        if self.transport is None:
            return
        self.transport.write(data)
        if not request.keep_alive:
            self._close()
        elif len(self._open) == MAX_PIPELINED and not self._paused_writing:
            self.transport.resume_reading()


def _why(error: httptools.HttpParserError) -> Refusal:
    """What stopped the parser: a refusal raised in a callback, or its own rules."""
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return MethodUnknown("this method is not known here")
    if not isinstance(error, httptools.HttpParserCallbackError):
        return BadRequest(str(error) or "bad framing", code="bad-request-framing")
    cause = error.__context__ or error.__cause__
    if isinstance(cause, Refusal):
        return cause
    log.error("a request failed", exc_info=cause)
    return ModelFailed("an error of ours", code="internal")


def _merged(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers of a request that has some twice, or a lot. Raises HeadersTooLarge, BadRequest.

    Control characters, spaces before colons and folded lines do not come this far: llhttp refuses
    them."""
    if len(pairs) > MAX_HEADERS:
        raise HeadersTooLarge(f"more than {MAX_HEADERS} headers")
    headers: dict[bytes, bytes] = {}
    for raw_name, value in pairs:
        name = raw_name.lower()
        if len(name) + len(value) > MAX_HEADER:
            raise HeadersTooLarge(f"a header is larger than {MAX_HEADER} bytes")
        if name in headers and name in _ONCE:
            raise BadRequest("a header that must be unique is not", code="bad-request-framing")
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def answer_text(request: Request, status: int, body: bytes, content_type: str, **more: Any) -> None:
    """For the pages beside the path: text, JSON, HTML."""
    head = f"Content-Type: {content_type}\r\n" + "".join(
        f"{name.replace('_', '-').title()}: {value}\r\n" for name, value in more.items()
    )
    request.answer(status, body, head.encode("latin-1"))
