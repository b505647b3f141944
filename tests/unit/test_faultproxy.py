"""The fault proxy: each toxic does what it says, and counts it."""

import asyncio
import contextlib
import time

import pytest

from headrace.testing.faultproxy import (
    Bandwidth,
    BlackHole,
    FaultProxy,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
)


class Echo:
    """Sends back what comes; tells when each connection was closed, and how."""

    def __init__(self):
        self.pieces, self.ends = [], []

    async def met(self, reader, writer):
        try:
            while data := await reader.read(65536):
                self.pieces.append(data)
                writer.write(data)
                await writer.drain()
            self.ends.append((time.monotonic(), "fin"))
        except ConnectionResetError:
            self.ends.append((time.monotonic(), "rst"))
        finally:
            writer.close()

    async def ended(self):
        async with asyncio.timeout(1):
            while not self.ends:
                await asyncio.sleep(0.005)
        return self.ends[-1]


@pytest.fixture
async def echo():
    echo = Echo()
    server = await asyncio.start_server(echo.met, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    yield echo
    server.close()
    await asyncio.sleep(0.01)  # its connections see the end of theirs


@pytest.fixture
async def proxy(echo):
    async with FaultProxy("127.0.0.1", echo.port) as proxy:
        yield proxy


@pytest.fixture
async def connect(proxy):
    writers = []

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def back(reader, size, wait_s=1.0):
    async with asyncio.timeout(wait_s):
        return await reader.readexactly(size)


async def test_without_toxics_it_is_a_wire(proxy, connect, echo):
    reader, writer = await connect()
    data = bytes(range(256)) * 4096  # 1 MiB, both ways at once
    writer.write(data)
    writer.write_eof()
    assert await back(reader, len(data), 3.0) == data
    assert await reader.read() == b""
    assert proxy.passed == {"forth": len(data), "back": len(data)}
    assert (await echo.ended())[1] == "fin"


async def test_latency_delays_each_chunk_and_keeps_their_order(proxy, connect):
    reader, writer = await connect()
    with proxy.toxic(Latency(0.05, jitter_s=0.02), "back") as latency:
        began = time.monotonic()
        for number in range(5):
            writer.write(b"%d" % number)
            await asyncio.sleep(0.002)
        assert await back(reader, 5) == b"01234"
        took = time.monotonic() - began
    assert 0.03 <= took < 0.5, took  # not five times the delay: chunks wait side by side
    assert 1 <= latency.acts["delayed"] <= 5


async def test_bandwidth(proxy, connect):
    reader, writer = await connect()
    with proxy.toxic(Bandwidth(100_000), "forth") as bandwidth:
        began = time.monotonic()
        writer.write(b"x" * 8_000)
        await back(reader, 8_000)
        took = time.monotonic() - began
    assert took >= 0.08
    assert bandwidth.acts["bytes_slowed"] == 8_000


async def test_a_black_hole_says_nothing_and_its_links_are_reset_when_it_goes(proxy, connect, echo):
    reader, writer = await connect()
    idle_reader, idle_writer = await connect()
    with proxy.toxic(BlackHole(), "forth") as hole:
        writer.write(b"lost")
        with pytest.raises(TimeoutError):
            await back(reader, 1, 0.05)
        assert hole.acts == {"bytes_dropped": 4}
    with pytest.raises(ConnectionResetError):
        await back(reader, 1)
    idle_writer.write(b"kept")
    assert await back(idle_reader, 4) == b"kept"
    assert echo.pieces == [b"kept"]


async def test_a_black_hole_that_closes(proxy, connect):
    reader, writer = await connect()
    with proxy.toxic(BlackHole(close_after_s=0.02), "forth") as hole:
        writer.write(b"x")
        async with asyncio.timeout(1):
            assert await reader.read() == b""
        assert hole.acts == {"bytes_dropped": 1, "closed": 1}


async def test_reset_peer_is_seen_by_both_ends(proxy, connect, echo):
    reader, writer = await connect()
    writer.write(b"x")
    await back(reader, 1)
    with proxy.toxic(ResetPeer(), "forth") as reset:
        writer.write(b"yy")
        with pytest.raises(ConnectionResetError):
            await back(reader, 1)
        assert reset.acts == {"resets": 1, "bytes_dropped": 2}
    assert (await echo.ended())[1] == "rst"


async def test_slow_close(proxy, connect, echo):
    _, writer = await connect()
    with proxy.toxic(SlowClose(0.08), "forth") as slow:
        began = time.monotonic()
        writer.write_eof()
        at, how = await echo.ended()
        assert at - began >= 0.08 and how == "fin"
        assert slow.acts == {"closes_delayed": 1}


async def test_slicer(proxy, connect, echo):
    reader, writer = await connect()
    with proxy.toxic(Slicer(3, pause_s=0.005), "forth") as slicer:
        writer.write(b"0123456789")
        assert await back(reader, 10) == b"0123456789"
    assert slicer.acts == {"slices": 4}
    assert echo.pieces == [b"012", b"345", b"678", b"9"]


async def test_limit_data_closes_in_the_middle(proxy, connect):
    reader, writer = await connect()
    with proxy.toxic(LimitData(4), "back") as limit:
        writer.write(b"0123456789")
        async with asyncio.timeout(1):
            assert await reader.read() == b"0123"
        assert limit.acts == {"bytes_dropped": 6, "closed": 1}


async def test_down_refuses_and_up_is_the_same_port(proxy, connect):
    reader, writer = await connect()
    writer.write(b"x")
    await back(reader, 1)
    port = proxy.port
    await proxy.down()
    with pytest.raises(ConnectionResetError):
        await back(reader, 1)
    with pytest.raises(ConnectionRefusedError):
        await connect()
    assert proxy.acts == {"links": 1, "downs": 1, "resets": 1}
    await proxy.up()
    assert proxy.port == port
    reader, writer = await connect()
    writer.write(b"x")
    assert await back(reader, 1) == b"x"


async def test_a_far_end_that_is_not_there_is_a_reset(echo):
    async with FaultProxy("127.0.0.1", 1) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await back(reader, 1)
        writer.close()


async def test_toxics_of_one_way_act_together(proxy, connect, echo):
    reader, writer = await connect()
    with proxy.toxic(Latency(0.03), "forth"), proxy.toxic(Slicer(2), "forth") as slicer:
        began = time.monotonic()
        writer.write(b"0123")
        assert await back(reader, 4) == b"0123"
        assert time.monotonic() - began >= 0.03
    assert slicer.acts == {"slices": 2}
