"""AMQP 0-9-1, cut at every byte, and held against pamqp's reading of what we write."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header

from headrace.broker.amqp_intake import attempt
from headrace.broker.amqp_wire import Address, Channel, Wire

MODES = commands.Basic.Properties


def content(method, properties, data, most=40):
    size = len(data)
    frames = [frame.marshal(method, 1)]
    frames.append(frame.marshal(header.ContentHeader(body_size=size, properties=properties), 1))
    parts = (data[at : at + most] for at in range(0, size, most))
    return b"".join(frames + [frame.marshal(body.ContentBody(part), 1) for part in parts])


def deliver(tag, data, *, before=False, key="q", headers=None):
    method = commands.Basic.Deliver("c1", tag, before, "an.exchange", key)
    return content(method, MODES(delivery_mode=2, headers=headers), data)


def wire():
    got, it = [], Wire("amqp://127.0.0.1:1/", "test")
    it._loop = type("Loop", (), {"time": lambda self: 0.0})()
    channel = it._channels[1] = Channel(it, 1)
    channel.on_deliver = lambda *a: got.append(("job", *a[:4], attempt(a[4], a[2]), a[5]))
    channel.on_return = lambda head, data: got.append(("returned", data))
    channel.on_confirm = lambda *a: got.append(("confirm", *a))
    channel.on_cancelled = lambda: got.append(("cancelled",))
    return it, got


STREAM = b"".join(
    (
        deliver(1, b"hello"),
        frame.marshal(commands.Basic.Ack(7, True), 1),
        b"\x08\0\0\0\0\0\0\xce",  # a heartbeat
        deliver(2, b"", key="to.me"),
        deliver(3, bytes(range(256)), before=True, headers={"x-delivery-count": 4}),
        frame.marshal(commands.Basic.Nack(8, False, False), 1),
        content(
            commands.Basic.Return(312, "NO_ROUTE", "", "q"), MODES(message_id="9"), b"nobody's"
        ),
        deliver(99, b"of a channel that nobody opened").replace(b"\x01\0\x01", b"\x01\0\x63"),
        frame.marshal(commands.Basic.Cancel("c1"), 1),
    )
)
MEANT = [
    ("job", b"c1", 1, False, b"q", 1, b"hello"),
    ("confirm", 7, True, True),
    ("job", b"c1", 2, False, b"to.me", 1, b""),
    ("job", b"c1", 3, True, b"q", 5, bytes(range(256))),
    ("confirm", 8, False, False),
    ("returned", b"nobody's"),
    ("cancelled",),
]


def test_a_whole_stream_at_once():
    it, got = wire()
    it.data_received(STREAM)
    assert got == MEANT


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 16, 50])
def test_cut_into_equal_pieces(size):
    it, got = wire()
    for at in range(0, len(STREAM), size):
        it.data_received(STREAM[at : at + size])
    assert got == MEANT


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=12))
def test_cut_anywhere(cuts):
    it, got = wire()
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        it.data_received(STREAM[start:end])
    assert got == MEANT


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x01\0\x01\0\0\0\x01xy"])
def test_what_is_not_amqp_ends_the_connection(said):
    it, got = wire()
    closed = []
    it._greeting = type("Transport", (), {"close": lambda self: closed.append(True)})()
    it.data_received(said)
    assert got == [] and closed == [True]


class Sink:
    """A transport that keeps what it is given."""

    def __init__(self):
        self.written = b""

    def write(self, data):
        self.written += data

    def frames(self):
        left, found = self.written, []
        while left:
            used, channel, it = frame.unmarshal(left)
            found.append((channel, it))
            left = left[used:]
        return found


async def test_what_we_write_is_what_pamqp_reads():
    it = Wire("amqp://127.0.0.1:1/", "test")
    it._loop, it._transport, it.body_max = asyncio.get_running_loop(), Sink(), 10
    channel = it.channel()
    place = channel.address("", "the.queue", mandatory=True)
    channel.publish(place, b"0123456789ab", b"\x10\x80\x02\x0242")
    channel.publish(place, b"")
    channel.ack(2**40, multiple=True)
    channel.give_back(3)
    assert it._transport.written == b"", "one write, at the turn's end"
    await asyncio.sleep(0)
    (_, publish), (_, head), (_, one), (_, two), _, (_, empty), (_, ack), (_, nack) = (
        it._transport.frames()
    )
    assert (publish.routing_key, publish.mandatory) == ("the.queue", True)
    assert (head.body_size, head.properties.delivery_mode) == (12, 2)
    assert head.properties.message_id == "42"
    assert one.value + two.value == b"0123456789ab" and empty.body_size == 0
    assert (ack.delivery_tag, ack.multiple) == (2**40, True)
    assert (nack.delivery_tag, nack.multiple, nack.requeue) == (3, False, True)


async def test_what_is_put_off_to_the_turns_end_goes_with_its_write():
    it = Wire("amqp://127.0.0.1:1/", "test")
    it._loop, it._transport = asyncio.get_running_loop(), Sink()
    channel = it.channel()
    it.at_turns_end(lambda: channel.ack(1))
    channel.give_back(2)
    await asyncio.sleep(0)
    assert [method.delivery_tag for _, method in it._transport.frames()] == [2, 1]
    it.at_turns_end(lambda: it.at_turns_end(lambda: channel.ack(3)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert it._transport.frames()[-1][1].delivery_tag == 3


@pytest.mark.parametrize(
    ("url", "hosts", "rest"),
    [
        ("amqp://", [("127.0.0.1", 5672)], ("guest", "guest", "/", False)),
        ("amqp://a", [("a", 5672)], ("guest", "guest", "/", False)),
        ("amqp://u:p@a:1,b:2/", [("a", 1), ("b", 2)], ("u", "p", "/", False)),
        ("amqps://u:p%40s@a,b/v%2Fw", [("a", 5671), ("b", 5671)], ("u", "p@s", "v/w", True)),
        ("amqp://u:p@[::1]:7,[fe80::2]/v?x=1", [("::1", 7), ("fe80::2", 5672)],
         ("u", "p", "v", False)),
    ],
)  # fmt: skip
def test_urls(url, hosts, rest):
    address = Address.of(url)
    assert (address.hosts, address[1:]) == (hosts, rest)
    assert "p@s" not in address.shown(*hosts[0])
