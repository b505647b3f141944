"""What is kept is bounded, ends, and is nobody else's; a cache that is ill is nobody's wait."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cache import guard as guards
from headrace.cache.content import Content
from headrace.cache.guard import Guard
from headrace.cache.kept import Kept, seal, unseal
from headrace.cache.memory import ENTRY_BYTES, Lru
from headrace.jobs import Form

K = [bytes([n]) * 32 for n in range(64)]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


# -- in memory -------------------------------------------------------------------------------------


def test_the_least_used_makes_room():
    lru = Lru(10 * (ENTRY_BYTES + 10))
    for key in K[:10]:
        lru.put(key, key[:10], 10, 60)
    assert lru.get(K[0]) == K[0][:10]
    lru.put(K[10], b"x" * 10, 10, 60)
    assert lru.get(K[1]) is None and lru.get(K[0]) is not None
    assert len(lru) == 10


def test_it_ends_with_its_time():
    lru = Lru(10_000, clock := Clock())
    lru.put(K[0], b"1", 1, 5.0)
    clock.now += 4.9
    assert lru.get(K[0]) == b"1"
    clock.now += 0.1
    assert lru.get(K[0]) is None
    assert lru.bytes == 0


def test_what_is_too_large_is_not_kept_and_replaces():
    lru = Lru(8 * (ENTRY_BYTES + 100))
    lru.put(K[0], b"old", 3, 60)
    lru.put(K[0], b"z" * 101, 101, 60)
    assert lru.get(K[0]) is None, "the old one is no answer any more"
    assert (len(lru), lru.bytes) == (0, 0)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 400), st.floats(-1, 9), st.floats(0, 3)),
        max_size=80,
    )
)
def test_it_is_never_above_its_bound_and_never_wrong(steps):
    most = 5000
    lru, last = Lru(most, clock := Clock()), {}
    for number, size, ttl_s, passes in steps:
        lru.put(K[number], size, size, ttl_s)
        last[number] = (size, clock.now + ttl_s)
        clock.now += passes
        assert lru.bytes <= most
        assert lru.bytes >= len(lru) * ENTRY_BYTES
        for key, (value, end) in last.items():
            assert lru.get(K[key]) in ((None, value) if end > clock.now else (None,))


# -- keys ------------------------------------------------------------------------------------------

TEXT = st.text(max_size=6)
CONTENTS = st.builds(Content, TEXT, TEXT, st.sampled_from(Form), st.binary(max_size=12))


@given(CONTENTS, TEXT, CONTENTS, TEXT)
def test_keys_are_equal_where_all_is_equal(one, version, other, its):
    same = (one, version) == (other, its)
    assert (one.key(version) == other.key(its)) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c", "1", b"x"), ("a", "bc", "1", b"x")),
        (("a", "b", "1", b"0x"), ("a", "b", "10", b"x")),
        (("a", "m", "1", b""), ("a", "m", "", b"1")),
        (("a", "m\0v", "1", b""), ("a", "m", "v\x001", b"")),
    ],
)
def test_what_moves_over_a_border_is_another_key(one, other):
    keys = {
        Content(tenant, model, Form.JSON, body).key(version)
        for tenant, model, version, body in (one, other)
    }
    assert len(keys) == 2


@given(st.binary(max_size=50), st.lists(TEXT, min_size=2, max_size=9, unique=True))
def test_tenants_share_nothing(body, tenants):
    keys = {Content(tenant, "m", Form.JSON, body).key("1") for tenant in tenants}
    assert len(keys) == len(tenants)


# -- seals -----------------------------------------------------------------------------------------

KEPT = Kept("3", b'{"score":0.5}', 1_700_000_000.5)


def test_what_was_sealed_is_read():
    assert unseal(K[1], seal(K[1], KEPT)) == KEPT


@given(st.data())
def test_what_was_changed_is_nothing(data):
    whole = seal(K[1], KEPT)
    place = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(1, 255))
    changed = bytearray(whole)
    changed[place] ^= other
    assert unseal(K[1], bytes(changed)) is None
    assert unseal(K[1], whole[:place]) is None
    assert unseal(K[1], whole + whole[: place + 1]) is None
    assert unseal(K[2], whole) is None, "another key's value"


@given(st.binary(max_size=80))
def test_garbage_is_nothing(data):
    assert unseal(K[1], data) is None


# -- the guard -------------------------------------------------------------------------------------


class Ill:
    """A cache that does what it is told: answer, hang, or raise."""

    def __init__(self, state="well"):
        self.state, self.gets, self.kept = state, 0, {}

    async def open(self):
        pass

    async def close(self):
        await self._act()

    async def _act(self):
        if self.state == "hangs":
            await asyncio.sleep(3600)
        if self.state == "raises":
            raise ConnectionResetError("gone")

    async def get(self, key):
        self.gets += 1
        await self._act()
        return self.kept.get(key)

    async def put(self, key, value, ttl_s):
        await self._act()
        if self.state == "full":
            raise RuntimeError("OOM command not allowed")
        self.kept[key] = value


def guarded(cache, probe_s=3600.0):
    errors = []
    return Guard(cache, 0.03, errors.append, probe_s), errors


async def timed(work):
    began = time.monotonic()
    return await work, time.monotonic() - began


@pytest.mark.parametrize(("state", "why"), [("hangs", "late"), ("raises", "failed")])
async def test_an_ill_cache_is_a_miss_and_then_left_alone(state, why):
    cache = Ill(state)
    guard, errors = guarded(cache)
    for _ in range(guards.FAILURES):
        value, took_s = await timed(guard.get(K[0]))
        assert value is None and took_s < 0.1
    assert errors == [why] * guards.FAILURES
    assert not guard.usable
    asked = cache.gets
    value, took_s = await timed(guard.get(K[0]))
    assert (value, cache.gets) == (None, asked) and took_s < 0.01
    await guard.put(K[0], b"1", 1.0)
    assert len(errors) == guards.FAILURES
    await guard.close()


async def test_it_is_asked_again_when_it_is_well():
    cache = Ill("raises")
    guard, _ = guarded(cache, probe_s=0.01)
    await guard.open()
    assert not guard.usable
    await asyncio.sleep(0.03)
    assert not guard.usable
    cache.state, cache.kept[K[0]] = "well", b"1"
    await asyncio.sleep(0.03)
    assert guard.usable and await guard.get(K[0]) == b"1"
    await guard.close()


async def test_who_is_late_is_not_broken_off(monkeypatch):
    """A connection that is slow once is not made anew for it; nor does it go on for ever."""
    cache = Ill("hangs")
    guard, errors = guarded(cache)
    monkeypatch.setattr(guards, "PATIENCE_S", 0.06)
    assert await guard.get(K[0]) is None
    assert (errors, len(guard._under_way)) == (["late"], 1)
    await asyncio.sleep(0.06)
    assert guard._under_way == set() and errors == ["late"]
    await guard.close()


async def test_failures_that_are_not_in_a_row_change_nothing():
    cache = Ill()
    guard, errors = guarded(cache)
    for _ in range(4):
        cache.state = "raises"
        await guard.get(K[0])
        await guard.get(K[0])
        cache.state = "well"
        await guard.get(K[0])
    assert guard.usable and len(errors) == 8
    await guard.close()


async def test_a_full_cache_still_answers():
    cache = Ill("full")
    cache.kept[K[0]] = b"1"
    guard, errors = guarded(cache)
    for _ in range(10):
        await guard.put(K[1], b"2", 1.0)
    assert errors == ["failed"] * 10
    assert await guard.get(K[0]) == b"1"
    await guard.close()


async def test_more_than_it_bears_do_without():
    cache = Ill("hangs")
    guard, errors = guarded(cache)
    values = await asyncio.gather(*(guard.get(key) for key in K * 5))
    assert values == [None] * 5 * len(K)
    assert cache.gets == guards.MOST == len(errors)
    await guard.close()
