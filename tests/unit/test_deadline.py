"""`Headrace-Deadline-Ms`: a wait or a time, never later than allowed."""

from __future__ import annotations

import pytest

from headrace.errors import BadRequest, DeadlineExceeded
from headrace.gateway.deadline import read_deadline

NOW = 1_800_000_000.0


def read(value: bytes | None) -> float:
    return read_deadline(value, NOW, 30_000, 300_000) - NOW


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        (None, 30.0),
        (b"1", 0.001),
        (b"2000", 2.0),
        (b"300000", 300.0),
        (b"300001", 300.0),
        (b"31536000000", 300.0),
        (b"99999999999", 300.0),
        (b"1800000001500", 1.5),
        (b"1800000300000", 300.0),
        (b"1831536000000", 300.0),
        (b"999999999999999", 300.0),
    ],
)
def test_when(value: bytes | None, wait_s: float) -> None:
    assert read(value) == pytest.approx(wait_s, abs=1e-6)


@pytest.mark.parametrize(
    "value", [b"0", b"-0", b"-1", b"-99999999999999", b"100000000000", b"1799999999999"]
)
def test_past(value: bytes) -> None:
    with pytest.raises(DeadlineExceeded):
        read(value)


@pytest.mark.parametrize(
    "value", [b"", b"x", b"1.5", b"1e3", b"+1", b"--1", b"0x1", b" 1", b"1 ", b"1, 1", b"1_0",
              b"9" * 16, b"\xd9\xa3", b"-"],
)  # fmt: skip
def test_garbage(value: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read(value)
    assert caught.value.code == "deadline-invalid"
