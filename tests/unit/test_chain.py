from __future__ import annotations

import asyncio
import secrets
import time

import pytest

from headrace.objects.chain import PROBE, Chained
from headrace.objects.memory import MemoryObjects
from headrace.objects.port import ObjectCorrupt, ObjectMissing, ObjectsDown
from headrace.objects.stamp import stamp, unstamp


class Moody(MemoryObjects):
    """Does what it is told to do wrong: `down`, `silent`, `full` (reads go on)."""

    def __init__(self, name):
        super().__init__(f"memory://{name}")
        self.mood, self.asked = "", []

    async def _feel(self, verb, name):
        self.asked.append((verb, name))
        if self.mood == "silent":
            await asyncio.Event().wait()
        if self.mood == "down" or (self.mood == "full" and verb == "put"):
            raise OSError("no")

    async def put(self, name, data):
        await self._feel("put", name)
        await super().put(name, data)

    async def get(self, name):
        await self._feel("get", name)
        return await super().get(name)

    async def delete(self, name):
        await self._feel("delete", name)
        await super().delete(name)

    async def names(self, prefix=""):
        await self._feel("names", prefix)
        return await super().names(prefix)


@pytest.fixture
def two():
    return Moody(secrets.token_hex(4)), Moody(secrets.token_hex(4))


@pytest.fixture
def chain(two):
    return Chained(*two, limit_s=0.05, probe_s=0.02)


async def back(chain):
    async with asyncio.timeout(1):
        while chain.reading.is_open or chain.writing.is_open:
            await asyncio.sleep(0.005)


async def test_the_fallback_is_left_alone_while_the_primary_is_there(chain, two):
    await chain.put("a", b"x")
    assert await chain.get("a") == b"x"
    assert two[1].asked == [] and chain.fell_back == 0


@pytest.mark.parametrize("mood", ["down", "silent"])
async def test_without_the_primary_all_goes_to_the_fallback_at_once(mood, chain, two):
    two[0].mood = mood
    await chain.put("a", b"x")
    assert await chain.get("a") == b"x"  # reading finds out for itself
    started, asked = time.monotonic(), len(two[0].asked)
    for _ in range(20):
        await chain.put("b", b"y")
        assert await chain.get("b") == b"y"
    assert time.monotonic() - started < 0.5  # 2 s, had each waited
    assert {name for _, name in two[0].asked[asked:]} <= {PROBE}
    assert chain.fell_back == 42 and chain.reading.opened == chain.writing.opened == 1


async def test_many_at_once_wait_one_limit_together(chain, two):
    two[0].mood = "silent"
    started = time.monotonic()
    await asyncio.gather(*(chain.put(f"a{n}", b"x") for n in range(50)))
    assert 0.04 < time.monotonic() - started < 1


async def test_it_is_asked_again_when_a_probe_succeeds(chain, two):
    two[0].mood = "down"
    await chain.put("a", b"x")
    two[0].mood = ""
    with pytest.raises(ObjectMissing):  # reading is judged apart: the primary was asked
        await chain.get("b")
    assert chain.writing.is_open
    await back(chain)
    await chain.put("b", b"y")
    assert [name for name in await two[0].names() if name != PROBE] == ["b"]
    assert await chain.names() == ["a", "b"]


async def test_a_full_primary_is_still_read(chain, two):
    await chain.put("a", b"x")
    two[0].mood = "full"
    await chain.put("b", b"y")
    assert chain.writing.is_open and not chain.reading.is_open
    assert await chain.get("a") == b"x" and await chain.get("b") == b"y"


async def test_what_only_the_primary_has_is_not_called_missing_while_it_is_away(chain, two):
    await chain.put("a", b"x")
    two[0].mood = "down"
    with pytest.raises(ObjectsDown):
        await chain.get("a")
    with pytest.raises(ObjectsDown):
        await chain.get("nobody-put-it")
    two[0].mood = ""
    await back(chain)
    assert await chain.get("a") == b"x"
    with pytest.raises(ObjectMissing):
        await chain.get("nobody-put-it")


async def test_missing_here_and_unknown_there_is_not_missing(chain, two):
    two[1].mood = "down"
    with pytest.raises(ObjectsDown):
        await chain.get("a")


async def test_with_both_away_a_put_says_so(chain, two):
    two[0].mood = two[1].mood = "down"
    with pytest.raises(ObjectsDown):
        await chain.put("a", b"x")
    assert chain.fell_back == 0


@pytest.mark.parametrize("away", [0, 1])
async def test_a_deletion_is_done_by_both_or_said_not_to_be(away, chain, two):
    await chain.put("a", b"x")
    two[0].mood = "down"
    await chain.put("a", b"x")
    two[0].mood = ""
    await back(chain)
    two[away].mood = "down"
    with pytest.raises(ObjectsDown, match=r"a is not deleted everywhere; (primary|fallback): "):
        await chain.delete("a")
    two[away].mood = ""
    await back(chain)
    await chain.delete("a")
    await chain.delete("a")
    assert [await side.names() for side in two] == [[], []]


@pytest.mark.parametrize("away", [0, 1])
async def test_half_a_list_is_none(away, chain, two):
    two[away].mood = "down"
    with pytest.raises(ObjectsDown):
        await chain.names()


async def test_names_are_the_union_without_the_probe(chain, two):
    await chain.put("a", b"x")
    await two[1].put("b", b"y")
    await two[0].put(PROBE, b"")
    assert await chain.names() == ["a", "b"]
    assert await chain.names("a") == []


def test_a_bad_name_does_not_open_the_circuit(chain):
    async def bad():
        for act in (chain.put("../a", b"x"), chain.get("../a"), chain.delete("../a")):
            with pytest.raises(ValueError, match="object name"):
                await act
        assert not chain.reading.is_open and not chain.writing.is_open

    asyncio.run(bad())


DAMAGES = {
    "flipped": lambda stored: stored[:-1] + bytes([stored[-1] ^ 1]),
    "cut": lambda stored: stored[:-1],
    "cut in the header": lambda stored: stored[:20],
    "empty": lambda stored: b"",
    "longer": lambda stored: stored + b"x",
    "of another name": lambda stored: stamp("other", b"x" * 100),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_copy_is_read_from_the_other_side(damage, chain, two):
    two[0].mood = "down"
    await chain.put("a", b"x" * 100)
    whole = await two[1].get("a")
    two[0].mood = ""
    await back(chain)
    await two[0].put("a", DAMAGES[damage](whole))
    assert await chain.get("a") == b"x" * 100
    assert (chain.corrupt, chain.fell_back) == (1, 2)
    assert await chain.repair() == 1
    assert await two[0].get("a") == whole and await two[1].names() == []


async def test_damaged_everywhere_is_corrupt(chain, two):
    await chain.put("a", b"x")
    await two[0].put("a", b"?")
    with pytest.raises(ObjectCorrupt):
        await chain.get("a")
    await two[1].put("a", b"?")
    with pytest.raises(ObjectCorrupt):
        await chain.get("a")
    two[0].mood = "down"
    with pytest.raises(ObjectsDown):  # it may have a whole one
        await chain.get("a")
    assert chain.corrupt == 4


async def test_repair_brings_back_what_fell_back(chain, two):
    two[0].mood = "down"
    for number in range(3):
        await chain.put(f"jobs/acme/{number}/input", b"x" * number)
    with pytest.raises(ObjectsDown):
        await chain.repair()
    two[0].mood = ""
    await back(chain)
    assert await chain.repair() == chain.repaired == 3
    assert await two[1].names() == [] and await chain.repair() == 0
    assert len(await chain.names("jobs/acme")) == 3
    assert await chain.get("jobs/acme/2/input") == b"xx"


async def test_repair_keeps_the_newer_of_two(chain, two):
    await two[0].put("a", stamp("a", b"old", at_ms=1))
    await two[1].put("a", stamp("a", b"new", at_ms=2))
    await two[0].put("b", stamp("b", b"new", at_ms=2))
    await two[1].put("b", stamp("b", b"old", at_ms=1))
    assert await chain.repair() == 1
    assert await chain.get("a") == await chain.get("b") == b"new"
    assert await two[1].names() == []
    assert unstamp("a", await two[0].get("a")).at_ms == 2


async def test_repair_leaves_a_damaged_copy_where_it_is(chain, two):
    await two[1].put("a", b"?")
    assert await chain.repair() == 0
    assert await two[1].names() == ["a"] and chain.corrupt == 1


async def test_repair_does_not_bring_back_what_was_deleted_meanwhile(chain, two):
    await two[1].put("a", stamp("a", b"x"))
    await two[1].put("b", stamp("b", b"x"))
    put, deleted = two[0].put, set()

    async def put_while_deleting(name, data):
        if name == "a":
            deleted.add("a")
            await chain.delete("a")
        await put(name, data)

    two[0].put = put_while_deleting

    async def wanted(name):
        return name not in deleted

    await chain.repair(wanted)
    assert await chain.names() == ["b"]


async def test_two_repairs_at_once_lose_nothing(chain, two):
    for number in range(20):
        await two[1].put(f"a{number}", stamp(f"a{number}", b"x" * number))
    await asyncio.gather(chain.repair(), chain.repair(), chain.repair())
    assert await two[1].names() == [] and len(await chain.names()) == 20


async def test_a_read_finds_what_a_repair_moves_meanwhile(chain, two):
    await two[1].put("a", stamp("a", b"x"))
    get = two[1].get

    async def get_too_late(name):
        two[1].get = get
        await chain.repair()
        return await get(name)

    two[1].get = get_too_late
    assert await chain.get("a") == b"x"


async def test_a_watch_that_ended_with_its_loop_starts_anew(chain, two):
    two[0].mood = "down"
    await asyncio.to_thread(asyncio.run, chain.put("a", b"x"))
    assert chain.writing.is_open
    two[0].mood = ""
    await chain.put("b", b"x")
    await back(chain)
    await chain.put("c", b"x")
    assert "c" in await two[0].names()
