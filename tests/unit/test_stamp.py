from __future__ import annotations

import secrets
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.objects.memory import MemoryObjects
from headrace.objects.port import ObjectCorrupt
from headrace.objects.stamp import stamp, unstamp
from headrace.objects.whole import Whole


@given(st.text(), st.binary())
def test_what_was_stamped_is_read(name, data):
    assert unstamp(name, stamp(name, data)).data == data


@given(st.binary(max_size=60), st.data())
def test_any_flipped_bit_is_found(data, draw):
    stored = bytearray(stamp("a", data))
    stored[draw.draw(st.integers(0, len(stored) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(ObjectCorrupt):
        unstamp("a", bytes(stored))


@given(st.binary(max_size=60), st.binary(min_size=1, max_size=60))
def test_another_length_or_name_is_found(data, more):
    stored = stamp("a", data)
    for name, other in (("a", stored + more), ("a", stored[:-1]), ("b", stored), ("a", more)):
        with pytest.raises(ObjectCorrupt):
            unstamp(name, other)


def test_it_knows_when_it_was_put():
    assert abs(unstamp("a", stamp("a", b"")).at_ms - time.time() * 1000) < 1000
    assert unstamp("a", stamp("a", b"", at_ms=5)).at_ms == 5


async def test_whole_counts_what_was_damaged():
    stored = MemoryObjects(f"memory://{secrets.token_hex(4)}")
    objects = Whole(stored)
    await objects.put("a", b"x")
    await stored.put("a", b"?")
    with pytest.raises(ObjectCorrupt, match="a: 1 bytes are no header"):
        await objects.get("a")
    assert objects.corrupt == 1
