"""HTTP/1.1 on httptools, as strict as a door must be and with nothing between it and the handler.

    bytes -> limits, framing -> Request -> handler(request) ... request.answer(...) -> bytes

The handler is a plain function; it answers at once or keeps the request and answers later. No task
and no future is made for a call: at 12 us a call against 44 for an ASGI server, this is the largest
single saving on the path (docs/decisions/0003). Answers leave in the order of the requests.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools

from headrace.errors import (
    BadRequest,
    HeadersTooLarge,
    LengthRequired,
    MethodUnknown,
    PayloadTooLarge,
    Refusal,
    RequestTimeout,
    UriTooLong,
)

MAX_URI = 8192
MAX_HEADER = 8192
MAX_HEADERS = 100
MAX_HEAD = 65_536
MAX_PIPELINED = 16
HEAD_WAIT_S = 10.0  # from the first byte of a request to the end of its headers
BODY_WAIT_S = 30.0  # without a byte of the body
BODY_RATE = 1_000  # bytes a second that an upload must average beside BODY_WAIT_S
IDLE_WAIT_S = 75.0  # a kept-alive connection without a request
WRITE_HIGH = 1 << 20

REASONS = {
    200: b"OK", 202: b"Accepted", 204: b"No Content", 400: b"Bad Request", 404: b"Not Found",
    405: b"Method Not Allowed", 406: b"Not Acceptable", 408: b"Request Timeout",
    411: b"Length Required", 413: b"Payload Too Large", 414: b"URI Too Long",
    415: b"Unsupported Media Type", 422: b"Unprocessable Content",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    501: b"Not Implemented", 503: b"Service Unavailable", 504: b"Gateway Timeout",
}  # fmt: skip

_BODY_METHODS = (b"POST", b"PUT", b"PATCH")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
#: headers that a request may not have twice, because two readers may choose differently
_ONCE = frozenset({b"content-length", b"host", b"content-type", b"transfer-encoding"})


class Request:
    """One request, whole. `answer` may be called once, now or later, from the loop's thread."""

    __slots__ = (
        "_connection", "_parts", "answered", "body", "headers", "id", "keep_alive", "method",
        "path", "query", "received", "refusal", "started",
    )  # fmt: skip

    def __init__(self, connection: Connection, started: float) -> None:
        self._connection = connection
        self.started = started
        self.received = started
        self.method = b""
        self.path = b""
        self.query = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.id = ""
        self.keep_alive = True
        self.answered = False
        self.refusal: Refusal | None = None
        self._parts: list[bytes] = []

    @property
    def client_gone(self) -> bool:
        return self._connection.transport is None

    def answer(self, status: int, body: bytes, head: bytes) -> None:
        """`head`: further header lines, each ended by CRLF."""
        self._connection.answer(self, status, body, head)


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
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Gives the port. Raises OSError where it is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self, loop), host, port, backlog=4096, reuse_port=reuse_port
        )
        self._sweeper = asyncio.create_task(self._sweep())
        return int(self._server.sockets[0].getsockname()[1])

    async def drain(self, grace_s: float) -> None:
        """No new connections; open requests are answered, then their connections closed."""
        self.draining = True
        if self._server:
            self._server.close()
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
            await asyncio.sleep(0.5)
            now = loop.time()
            for connection in list(self.connections):
                connection.check_time(now)


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
        self._head_size = 0
        self._last_read = 0.0
        self._closing = False
        self._paused_writing = False

    # -- connection ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)  # type: ignore[union-attr]
        self._server.connections.add(self)
        self._last_read = self._loop.time()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._server.connections.discard(self)
        self._open.clear()
        self._answers.clear()

    def pause_writing(self) -> None:
        self._paused_writing = True
        if self.transport:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused_writing = False
        if self.transport and len(self._open) <= MAX_PIPELINED:
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        return False

    def close_if_idle(self) -> None:
        if not self._open and self.transport:
            self.transport.close()

    def abort(self) -> None:
        if self.transport:
            self.transport.abort()

    def check_time(self, now: float) -> None:
        """Slow or silent clients do not hold what others need."""
        if not self.transport or self._closing:
            return
        reading = self._reading
        if reading is None:
            if not self._open and now - self._last_read > IDLE_WAIT_S:
                self.transport.close()
            return
        age = now - reading.started
        slow_head = not self._reading_body and age > HEAD_WAIT_S
        slow_body = self._reading_body and (
            now - self._last_read > BODY_WAIT_S or age > BODY_WAIT_S + self._size / BODY_RATE
        )
        if slow_head or slow_body:
            self._refuse(RequestTimeout("the request did not arrive in time"))

    # -- in ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._last_read = self._loop.time()
        if not self._reading_body:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(BadRequest("no upgrade is offered here", code="bad-request-framing"))
        except httptools.HttpParserInvalidMethodError:
            self._refuse(MethodUnknown("this method is not known here"))
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__ or error.__cause__
            if not isinstance(cause, Refusal):
                raise
            self._refuse(cause)
        except httptools.HttpParserError as error:
            self._refuse(BadRequest(str(error) or "bad framing", code="bad-request-framing"))
        else:
            if self._reading is not None and not self._reading_body:
                self._check_head_size()

    def _check_head_size(self) -> None:
        assert self._reading is not None
        if len(self._reading.path) > MAX_URI:
            self._refuse(UriTooLong(f"the URL is longer than {MAX_URI} bytes"))
        elif self._head_size > MAX_HEAD:
            self._refuse(HeadersTooLarge(f"the headers are larger than {MAX_HEAD} bytes"))

    def on_message_begin(self) -> None:
        self._reading = Request(self, self._last_read)
        self._reading_body = False
        self._size = 0
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
        headers = self._reading.headers  # type: ignore[union-attr]
        name = name.lower()
        if len(headers) >= MAX_HEADERS or len(name) + len(value) > MAX_HEADER:
            raise HeadersTooLarge(
                f"more than {MAX_HEADERS} headers, or one over {MAX_HEADER} bytes"
            )
        if _BAD_VALUE.search(value):
            raise BadRequest("a header has a control character", code="bad-request-framing")
        if name in headers:
            if name in _ONCE:
                raise BadRequest("a header that must be unique is not", code="bad-request-framing")
            headers[name] += b", " + value
        else:
            headers[name] = value

    def on_headers_complete(self) -> None:
        request = self._reading
        assert request is not None
        request.method = self._parser.get_method()
        request.keep_alive = self._parser.should_keep_alive()
        request.path, _, request.query = request.path.partition(b"?")
        self._head_size = 0
        self._reading_body = True
        self._check_framing(request)
        self._server.on_head(request)
        if request.headers.get(b"expect", b"").lower() == b"100-continue" and self.transport:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _check_framing(self, request: Request) -> None:
        headers = request.headers
        length, encoding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if length is not None and (encoding is not None or not length.isdigit()):
            raise BadRequest("conflicting or malformed lengths", code="bad-request-framing")
        if encoding is not None and encoding.strip().lower() != b"chunked":
            raise BadRequest("only chunked is known", code="bad-request-framing")
        if b"host" not in headers and self._parser.get_http_version() == "1.1":
            raise BadRequest("the Host header is missing", code="bad-request-framing")
        if length is not None and int(length) > self._server.max_body:
            raise PayloadTooLarge(f"the body is larger than {self._server.max_body} bytes")
        if length is None and encoding is None and request.method in _BODY_METHODS:
            raise LengthRequired("a Content-Length or chunked encoding is needed")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._server.max_body:
            raise PayloadTooLarge(f"the body is larger than {self._server.max_body} bytes")
        self._reading._parts.append(body)  # type: ignore[union-attr]

    def on_message_complete(self) -> None:
        request = self._reading
        assert request is not None
        self._reading = None
        self._reading_body = False
        parts = request._parts
        request.body = parts[0] if len(parts) == 1 else b"".join(parts)
        request._parts = []
        request.received = self._loop.time()
        try:
            self._server.handle(request)
        except Refusal as refusal:
            self._server.on_refusal(request, refusal)

    def _refuse(self, refusal: Refusal) -> None:
        """A request that cannot be read on: answer it, and read nothing more."""
        self._closing = True
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
        close = (
            b"" if request.keep_alive and not self._server.draining else b"Connection: close\r\n"
        )
        data = b"HTTP/1.1 %d %s\r\nContent-Length: %d\r\n%s%s\r\n%s" % (
            status, REASONS[status], len(body), head, close,
            b"" if request.method == b"HEAD" else body,
        )  # fmt: skip
        waiting = self._open
        if waiting[0] is request:
            waiting.popleft()
            self._send(request, data)
            while waiting and waiting[0] in self._answers:
                ahead = waiting.popleft()
                self._send(ahead, self._answers.pop(ahead))
        else:
            self._answers[request] = data

    def _send(self, request: Request, data: bytes) -> None:
        if self.transport is None:
            return
        self.transport.write(data)
        if not request.keep_alive or self._server.draining:
            self._closing = True
            self.transport.close()
        elif len(self._open) == MAX_PIPELINED and not self._paused_writing:
            self.transport.resume_reading()


def header_text(request: Request, name: bytes) -> str:
    """A header's value as text, "" where it is missing."""
    return request.headers.get(name, b"").decode("latin-1")


def answer_text(request: Request, status: int, body: bytes, content_type: str, **more: Any) -> None:
    """For the pages beside the path: text, JSON, HTML."""
    head = f"Content-Type: {content_type}\r\n" + "".join(
        f"{name.replace('_', '-').title()}: {value}\r\n" for name, value in more.items()
    )
    request.answer(status, body, head.encode("latin-1"))
