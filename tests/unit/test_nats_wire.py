"""The NATS protocol, cut at every byte."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.broker.nats_wire import Wire

MESSAGES = [
    (b"a.b", b"", b"", b"hello"),
    (b"a.b", b"reply.to", b"", b""),
    (b"a.c", b"", b"", b"\r\nMSG x 1 3\r\nabc\r\n"),
    (b"a.b", b"$JS.ACK.s.c.1.2.3.4.5", b"NATS/1.0\r\nA: b\r\n\r\n", b"with headers"),
    (b"a.b", b"", b"NATS/1.0 408 Request Timeout\r\n\r\n", b""),
]


def frame(subject, reply, headers, payload):
    words = [b"HMSG" if headers else b"MSG", subject, b"7"] + [reply] * bool(reply)
    words += [b"%d" % len(headers)] * bool(headers) + [b"%d" % len(headers + payload)]
    return b" ".join(words) + b"\r\n" + headers + payload + b"\r\n"


def wire():
    got = []
    wire = Wire("nats://127.0.0.1:1", "test")
    wire._subscriptions[b"7"] = (b"a.>", lambda *message: got.append(message))
    wire._write = lambda _: None
    return wire, got


STREAM = b"".join(frame(*m) for m in MESSAGES[:2]) + b"PING\r\n" + b"".join(
    frame(*m) for m in MESSAGES[2:]
) + b"PONG\r\n+OK\r\n"  # fmt: skip


def test_a_whole_stream_at_once():
    it, got = wire()
    it.data_received(STREAM)
    assert got == MESSAGES


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 50])
def test_cut_into_equal_pieces(size):
    it, got = wire()
    for at in range(0, len(STREAM), size):
        it.data_received(STREAM[at : at + size])
    assert got == MESSAGES


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=12))
def test_cut_anywhere(cuts):
    it, got = wire()
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        it.data_received(STREAM[start:end])
    assert got == MESSAGES


def test_messages_of_nobody_are_passed_over():
    it, got = wire()
    it.data_received(b"MSG a.b 99 2\r\nxx\r\n" + STREAM)
    assert got == MESSAGES
