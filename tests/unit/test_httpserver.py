"""The server alone, with short limits: time, order, draining, what handlers do wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from headrace.errors import Invalid, NotAcceptable, Refusal
from headrace.httpserver import HttpServer, Request, answer_text

MAX_BODY = 1000


class Handler:
    """Answers at once with the path; keeps what is under /later for the test to answer."""

    def __init__(self) -> None:
        self.kept: list[Request] = []
        self.seen: list[Request] = []

    def on_head(self, request: Request) -> None:
        if b"x-refuse" in request.headers:
            raise NotAcceptable("no")

    def handle(self, request: Request) -> None:
        self.seen.append(request)
        if request.path.startswith(b"/later"):
            self.kept.append(request)
        elif request.path == b"/broken":
            raise KeyError("secret")
        elif request.path == b"/refused":
            raise Invalid("wrong")
        else:
            self.say(request)

    def say(self, request: Request) -> None:
        request.answer(200, request.path + b"|" + request.body, b"")

    def refuse(self, request: Request, refusal: Refusal) -> None:
        request.answer(refusal.status, refusal.code.encode(), b"")


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
async def server(handler: Handler) -> AsyncIterator[HttpServer]:
    server = HttpServer(handler.handle, handler.on_head, handler.refuse, MAX_BODY)
    server.head_wait_s = server.body_wait_s = server.idle_wait_s = 0.2
    server.linger_s, server.write_wait_s, server.sweep_s = 0.3, 0.3, 0.02
    server.port = await server.open("127.0.0.1", 0)  # type: ignore[attr-defined]
    yield server
    await server.drain(0.5)
    await asyncio.sleep(0)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 3)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head[9:12]), await asyncio.wait_for(self.reader.readexactly(length), 3)

    async def end(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), 3)


@pytest.fixture
async def connect(server: HttpServer) -> AsyncIterator[Callable[..., object]]:
    opened: list[Client] = []

    async def connect() -> Client:
        port = server.port  # type: ignore[attr-defined]
        opened.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
        return opened[-1]

    yield connect
    for client in opened:
        client.writer.close()


def get(path: bytes, more: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + more + b"\r\n"


def post(path: bytes, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body)


async def test_a_slow_head(connect, server) -> None:
    server.linger_s = 2.0  # what this client still sends is longer on its way on a busy machine
    client = await connect()
    began = asyncio.get_running_loop().time()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # answered and gone: enough
        for byte in b"GET / HTTP/1.1\r\nHost: x":
            client.send(bytes([byte]))
            await asyncio.sleep(0.02)
    assert await client.answer() == (408, b"request-timeout")
    assert await client.end() == b""
    assert asyncio.get_running_loop().time() - began < 1.5


async def test_a_slow_body(connect, server) -> None:
    client = await connect()
    client.send(post(b"/", b"x" * 100)[:-50])
    assert await client.answer() == (408, b"request-timeout")
    assert await client.end() == b""


async def test_a_body_that_drips(connect, server) -> None:
    """Never silent for long, but below the rate that an upload must have."""
    client = await connect()
    client.send(post(b"/", b"x" * 500)[:-490])
    answer = asyncio.create_task(client.answer())
    while not answer.done():
        client.send(b"x")
        await asyncio.sleep(0.02)
    assert answer.result()[0] == 408


async def test_an_idle_connection_is_closed(connect, server) -> None:
    fresh, used = await connect(), await connect()
    used.send(get(b"/a"))
    assert await used.answer() == (200, b"/a|")
    assert await fresh.end() == await used.end() == b""
    assert not server.connections


async def test_a_call_that_takes_long_is_not_idle(connect, server, handler) -> None:
    client = await connect()
    client.send(get(b"/later"))
    await asyncio.sleep(0.6)
    handler.say(handler.kept[0])
    assert await client.answer() == (200, b"/later|")


async def test_a_client_that_does_not_read(connect, server, handler) -> None:
    client = await connect()
    client.writer.transport.pause_reading()
    client.send(get(b"/later"))
    await asyncio.sleep(0.05)
    handler.kept[0].answer(200, bytes(50_000_000), b"")
    await asyncio.sleep(0.7)
    assert not server.connections
    client.writer.transport.abort()


async def test_answers_leave_in_the_order_of_the_requests(connect, server, handler) -> None:
    client = await connect()
    client.send(get(b"/later1") + get(b"/now") + get(b"/later2") + get(b"/last"))
    await asyncio.sleep(0.05)
    handler.say(handler.kept[1])
    handler.say(handler.kept[0])
    handler.say(handler.kept[0])  # twice is once
    assert [(await client.answer())[1] for _ in range(4)] == [
        b"/later1|", b"/now|", b"/later2|", b"/last|",
    ]  # fmt: skip


async def test_more_than_is_pipelined_waits(connect, server, handler) -> None:
    server.idle_wait_s = 2.0  # the first byte may be late on a busy machine
    client = await connect()
    client.send(b"".join(get(b"/later%d" % n) for n in range(40)))
    await asyncio.sleep(0.05)
    client.send(get(b"/after"))
    await asyncio.sleep(0.6)  # longer than a head may take: it is not the client who is slow
    assert len(handler.seen) == 40
    for request in handler.kept:
        handler.say(request)
    for n in range(40):
        assert (await client.answer())[1] == b"/later%d|" % n
    assert (await client.answer())[1] == b"/after|"


async def test_a_handler_that_fails(connect, server) -> None:
    client = await connect()
    client.send(get(b"/broken") + get(b"/refused") + get(b"/a"))
    assert await client.answer() == (500, b"internal")
    assert await client.answer() == (422, b"validation-failed")
    assert await client.answer() == (200, b"/a|")


async def test_refused_by_its_head(connect, server, handler) -> None:
    client = await connect()
    client.send(get(b"/later") + get(b"/b", b"X-Refuse: 1\r\n") + get(b"/c"))
    await asyncio.sleep(0.05)
    handler.say(handler.kept[0])
    assert await client.answer() == (200, b"/later|")
    assert await client.answer() == (406, b"not-acceptable")
    assert await client.end() == b""
    assert [r.path for r in handler.seen] == [b"/later"]


@pytest.mark.parametrize(("size", "status"), [(999, 200), (1000, 200), (1001, 413)])
async def test_body_limit(connect, server, size: int, status: int) -> None:
    client = await connect()
    client.send(post(b"/a", b"x" * size))
    assert (await client.answer())[0] == status


async def test_a_status_that_no_table_has(connect, server, handler) -> None:
    client = await connect()
    client.send(get(b"/later"))
    await asyncio.sleep(0.05)
    handler.kept[0].answer(418, b"tea", b"")
    assert await client.answer() == (418, b"tea")


async def test_a_client_that_is_gone(connect, server, handler) -> None:
    gone: list[bool] = []
    client = await connect()
    client.send(get(b"/later"))
    await asyncio.sleep(0.05)
    handler.kept[0].on_gone = lambda: gone.append(True)
    client.writer.close()
    await asyncio.sleep(0.05)
    assert gone == [True]
    handler.say(handler.kept[0])
    assert not server.connections


async def test_draining_answers_all_that_is_open(connect, server, handler) -> None:
    idle, busy = await connect(), await connect()
    busy.send(get(b"/later1") + get(b"/later2"))
    await asyncio.sleep(0.05)
    draining = asyncio.create_task(server.drain(5))
    await asyncio.sleep(0.05)
    assert await idle.end() == b""
    handler.say(handler.kept[0])
    await asyncio.sleep(0.02)
    handler.say(handler.kept[1])
    assert await busy.answer() == (200, b"/later1|")
    assert await busy.answer() == (200, b"/later2|")
    assert await busy.end() == b""
    await asyncio.wait_for(draining, 1)
    with pytest.raises(OSError, match=r".*"):
        await connect()


async def test_draining_ends(connect, server, handler) -> None:
    client = await connect()
    client.send(get(b"/later"))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(server.drain(0.1), 1)
    with pytest.raises((EOFError, ConnectionError)):
        await client.answer()


async def test_lingering_ends(connect, server) -> None:
    """A refused client that neither reads nor leaves is left."""
    client = await connect()
    client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")
    assert (await client.answer())[0] == 413
    client.send(b"x" * 100)
    await asyncio.sleep(0.6)
    assert not server.connections


async def test_head_and_small_things(connect, server, handler) -> None:
    client = await connect()
    client.send(b"HEAD /a?b=c HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\n\r\n")
    head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 3)
    assert b"Content-Length: 3\r\n" in head
    (request,) = handler.seen
    assert (request.path, request.query) == (b"/a", b"b=c")
    assert request.headers[b"x-a"] == b"1, 2"
    client.send(get(b"/later"))
    await asyncio.sleep(0.05)
    answer_text(handler.kept[0], 200, b"hi", "text/plain", x_more="1")
    head = await asyncio.wait_for(client.reader.readuntil(b"hi"), 3)
    assert b"Content-Type: text/plain\r\nX-More: 1\r\n" in head


# -- answers piece by piece ------------------------------------------------------------------------


async def begun(connect, handler, data):
    """A client, and its request that was begun."""
    client = await connect()
    client.send(data)
    while not handler.kept:
        await asyncio.sleep(0.005)
    return client, handler.kept[-1]


async def test_an_answer_in_pieces(connect, handler) -> None:
    client, request = await begun(connect, handler, get(b"/later"))
    assert request.begin(b"Content-Type: text/event-stream\r\n")
    head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 3)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"Connection: close" in head
    assert b"content-length" not in head.lower()
    for piece in (b"one\n", b"two\n"):
        request.write(piece)
        assert await asyncio.wait_for(client.reader.readexactly(4), 3) == piece
    request.end()
    assert await client.end() == b""
    request.write(b"too late")
    request.end()
    request.answer(200, b"too late", b"")


async def test_pieces_outlive_the_limits_of_idle_connections(connect, handler, server) -> None:
    client, request = await begun(connect, handler, get(b"/later"))
    assert request.begin(b"")
    await asyncio.sleep(3 * server.idle_wait_s)
    request.write(b"still here")
    request.end()
    assert (await client.end()).endswith(b"still here")


async def test_no_pieces_behind_a_request_that_is_not_answered(connect, handler) -> None:
    client, _ = await begun(connect, handler, get(b"/later/1") + get(b"/later/2"))
    first, second = handler.kept
    assert not second.begin(b""), "its bytes would be taken for the first one's"
    handler.say(first)
    assert await client.answer() == (200, b"/later/1|")
    assert second.begin(b""), "now it is its turn"
    second.end()


async def test_what_is_pipelined_behind_pieces_is_not_answered(connect, handler) -> None:
    client, _ = await begun(connect, handler, get(b"/later/1") + get(b"/2"))
    [first] = handler.kept
    assert first.begin(b"")
    client.send(get(b"/3"))
    await asyncio.sleep(0.05)
    first.write(b"one")
    first.end()
    everything = await client.end()
    assert everything.endswith(b"\r\n\r\none") and b"/2|" not in everything
    assert [request.path for request in handler.seen] == [b"/later/1", b"/2"]


async def test_a_client_that_leaves_its_pieces(connect, handler) -> None:
    client, request = await begun(connect, handler, get(b"/later"))
    gone = asyncio.Event()
    request.on_gone = gone.set
    assert request.begin(b"")
    client.writer.close()
    await asyncio.wait_for(gone.wait(), 3)
    request.write(b"nobody")
    request.end()
    assert not request.begin(b"")


async def test_heads_with_a_key_are_of_one_time(connect, server) -> None:
    """Each has its own: they would drive out those that come again."""
    client = await connect()
    for number in range(3):
        client.send(get(b"/", b"Idempotency-Key: k%d\r\n" % number))
        assert (await client.answer())[0] == 200
    assert server.heads == {}
