"""The exam every cache adapter passes: one test a method of `Exam`.

`make()` gives a new cache, not yet opened, over the same store each time, empty at first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from headrace.cache.port import Cache

Make = Callable[[], Cache]

ONE, TWO = bytes(range(32)), bytes(range(32, 64))


class Exam:
    """One method, one promise of `cache.port`."""

    def __init__(self, make: Make) -> None:
        self.make = make

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Cache]:
        cache = self.make()
        await cache.open()
        try:
            yield cache
        finally:
            await cache.close()

    async def what_was_put_is_got(self) -> None:
        values = {b"e" * 32: b"", b"b" * 32: bytes(range(256)) * 8, b"l" * 32: b"z" * 500_000}
        async with self._open() as cache:
            for key, value in values.items():
                await cache.put(key, value, 30.0)
            for key, value in values.items():
                assert await cache.get(key) == value

    async def what_is_not_there_is_none(self) -> None:
        async with self._open() as cache:
            await cache.put(ONE, b"1", 30.0)
            assert await cache.get(TWO) is None

    async def keys_are_any_bytes(self) -> None:
        """Keys that differ in one bit, or hold what text protocols give a meaning to."""
        keys = [bytes([bit, *bytes(31)]) for bit in (0, 1, 2, 4, 8, 16, 32, 64, 128)]
        keys += [b"\r\n" * 16, b" " * 32, b":" * 32, b"*" * 32, b"\xff" * 32]
        async with self._open() as cache:
            for number, key in enumerate(keys):
                await cache.put(key, b"%d" % number, 30.0)
            assert [await cache.get(key) for key in keys] == [
                b"%d" % number for number in range(len(keys))
            ]

    async def put_again_is_replaced(self) -> None:
        async with self._open() as cache:
            await cache.put(ONE, b"first", 0.15)
            await cache.put(ONE, b"2nd", 30.0)
            assert await cache.get(ONE) == b"2nd"
            await asyncio.sleep(0.2)
            assert await cache.get(ONE) == b"2nd", "its time is the second's"

    async def after_its_time_it_is_gone(self) -> None:
        async with self._open() as cache:
            await cache.put(ONE, b"short", 0.1)
            await cache.put(TWO, b"long", 30.0)
            assert await cache.get(ONE) == b"short"
            await asyncio.sleep(0.15)
            assert await cache.get(ONE) is None
            assert await cache.get(TWO) == b"long"

    async def no_time_at_all_is_no_error(self) -> None:
        async with self._open() as cache:
            await cache.put(ONE, b"1", 0.0001)
            await asyncio.sleep(0.01)
            assert await cache.get(ONE) is None

    async def others_see_it(self) -> None:
        async with self._open() as one, self._open() as other:
            await one.put(ONE, b"1", 30.0)
            assert await other.get(ONE) == b"1"
        async with self._open() as third:
            assert await third.get(ONE) == b"1", "it outlives who put it"

    async def many_at_once(self) -> None:
        async with self._open() as cache:
            keys = [number.to_bytes(32, "big") for number in range(200)]
            await asyncio.gather(*(cache.put(key, key * 10, 30.0) for key in keys))
            assert await asyncio.gather(*(cache.get(key) for key in keys)) == [
                key * 10 for key in keys
            ]

    async def a_cancelled_call_spoils_no_other(self) -> None:
        """The answer of who was cancelled must not be taken for the next one's."""
        async with self._open() as cache:
            await cache.put(ONE, b"1", 30.0)
            await cache.put(TWO, b"2", 30.0)
            for turns in range(20):
                doomed = asyncio.ensure_future(cache.get(ONE))
                for _ in range(turns):
                    await asyncio.sleep(0)
                doomed.cancel()
                assert await cache.get(TWO) == b"2"
                await asyncio.gather(doomed, return_exceptions=True)


QUESTIONS = [name for name in vars(Exam) if not name.startswith("_") and name != "make"]
