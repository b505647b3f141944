"""The exam every objects adapter passes: one test a method of `Exam`.

`make()` gives the same store each time it is called, empty at first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.objects.port import ObjectMissing, Objects

Make = Callable[[], Objects]


class Exam:
    """One method, one promise of `objects.port`."""

    def __init__(self, make: Make) -> None:
        self.make = make

    async def what_was_put_is_got(self) -> None:
        bodies = {"empty": b"", "binary": bytes(range(256)) * 8, "large": b"z" * 5_000_000}
        for name, body in bodies.items():
            await self.make().put(name, body)
        for name, body in bodies.items():
            assert await self.make().get(name) == body

    async def what_is_not_there_is_missing(self) -> None:
        try:
            await self.make().get("nobody-put-it")
        except ObjectMissing:
            return
        raise AssertionError("nothing was raised")

    async def deleted_is_gone(self) -> None:
        objects = self.make()
        await objects.put("a", b"1")
        await objects.put("b", b"2")
        await objects.delete("a")
        assert await objects.names() == ["b"]
        try:
            await objects.get("a")
        except ObjectMissing:
            return
        raise AssertionError("it is still there")

    async def deleting_what_is_not_there_is_no_error(self) -> None:
        objects = self.make()
        await objects.delete("nobody-put-it")
        await objects.put("a", b"1")
        await objects.delete("a")
        await objects.delete("a")

    async def put_again_is_replaced(self) -> None:
        objects = self.make()
        await objects.put("a", b"first")
        await objects.put("a", b"2nd")
        assert await objects.get("a") == b"2nd"
        assert await objects.names() == ["a"]

    async def names_are_those_put(self) -> None:
        objects = self.make()
        assert await objects.names() == []
        # As they are made: an address and a number, a model's name, a process, a number.
        names = ["0f" * 16 + "-1", "face-match_2-4711-0a1b2c3d-1", "A.b_c-9"]
        for name in names:
            await objects.put(name, b"x")
        assert sorted(await self.make().names()) == sorted(names)

    async def nobody_reads_half(self) -> None:
        """Put again and again from another thread: a read has one body or the other, whole."""
        first, second = b"1" * 300_000, b"2" * 200_000
        await self.make().put("a", first)

        async def put_often() -> None:
            objects = self.make()
            for _ in range(100):
                await objects.put("a", second)
                await objects.put("a", first)

        putting = asyncio.create_task(asyncio.to_thread(asyncio.run, put_often()))
        objects = self.make()
        while not putting.done():
            assert await objects.get("a") in (first, second)
            assert await objects.names() == ["a"]
            await asyncio.sleep(0)
        await putting


QUESTIONS = [name for name in vars(Exam) if not name.startswith("_") and name != "make"]
