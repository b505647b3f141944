"""The exam every objects adapter passes: one test a method of `Exam`.

`make()` gives the same store each time it is called, empty at first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headrace.objects.port import ObjectMissing, Objects

Make = Callable[[], Objects]

FIRST, SECOND = b"1" * 300_000, b"2" * 200_000

#: Out of the folder, hidden, of the wrong letters, too long.
NO_NAMES = [
    "", "..", "../a", "a/../b", "a/./b", "/etc/passwd", "/", "a//b", "a/", ".hidden", "a/.hidden",
    "a\0b", "a\n", "\u00e9", "a\\b", "a b", "a?b", "a%2eb", "C:a", "x" * 202, "x/" * 256 + "x",
]  # fmt: skip


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
        await objects.delete("nobody/put/it")
        await objects.put("a", b"1")
        await objects.delete("a")
        await objects.delete("a")

    async def put_again_is_replaced(self) -> None:
        objects = self.make()
        await objects.put("a", b"first")
        await objects.put("a", b"2nd")
        assert await objects.get("a") == b"2nd"

    async def put_again_is_one_name(self) -> None:
        objects = self.make()
        await objects.put("a", b"first")
        await objects.put("a", b"2nd")
        assert await objects.names() == ["a"]

    async def names_are_those_put(self) -> None:
        objects = self.make()
        assert await objects.names() == []
        # As they are made: an address and a number, a model's name, a process, a number; and those
        # of a stored job.
        names = ["0f" * 16 + "-1", "face-match_2-4711-0a1b2c3d-1", "A.b_c-9", "jobs/acme/1f/input"]
        for name in names:
            await objects.put(name, b"x")
        assert sorted(await self.make().names()) == sorted(names)

    async def names_have_folders(self) -> None:
        objects = self.make()
        names = ["jobs/acme/1/input", "jobs/acme/1/result", "jobs/acme/2/input", "jobs/b/1/input"]
        for name in names:
            await objects.put(name, name.encode())
        for name in names:
            assert await self.make().get(name) == name.encode()
        await objects.delete(names[0])
        assert sorted(await objects.names()) == names[1:]
        for name in names[1:]:
            await objects.delete(name)
        assert await objects.names() == []
        await objects.put(names[0], b"again")
        assert await objects.get(names[0]) == b"again"

    async def names_below_a_folder(self) -> None:
        objects = self.make()
        for name in ("jobs/a/1", "jobs/a/2/x", "jobs/ab/1", "jobs.a", "a"):
            await objects.put(name, b"x")
        for prefix in ("jobs/a", "jobs/a/"):
            assert sorted(await objects.names(prefix)) == ["jobs/a/1", "jobs/a/2/x"]
        assert await objects.names("jobs/c") == []
        assert len(await objects.names("")) == 5

    async def what_is_no_name_is_refused(self) -> None:
        objects = self.make()
        for name in NO_NAMES:
            for act in (objects.put(name, b"x"), objects.get(name), objects.delete(name)):
                try:
                    await act
                except ValueError:
                    continue
                raise AssertionError(f"{name!r} was taken for a name")

    async def many_at_once(self) -> None:
        objects = self.make()
        names = [f"jobs/acme/{number}/input" for number in range(40)]
        await asyncio.gather(*(objects.put(name, name.encode() * 99) for name in names))
        bodies = await asyncio.gather(*(objects.get(name) for name in names))
        assert bodies == [name.encode() * 99 for name in names]
        await asyncio.gather(*(objects.delete(name) for name in names))
        assert await objects.names("jobs/acme") == []

    async def nobody_reads_half(self) -> None:
        """Put again and again from another thread: a read has one body or the other, whole."""
        await self._put_often(self._reads_whole)

    async def nobody_lists_half(self) -> None:
        """As above: the list has the name at every moment, and nothing unfinished."""
        await self._put_often(self._lists_one)

    async def _put_often(self, look: Callable[[Objects], Awaitable[None]]) -> None:
        await self.make().put("a", FIRST)

        async def put_often() -> None:
            objects = self.make()
            for _ in range(100):
                await objects.put("a", SECOND)
                await objects.put("a", FIRST)

        putting = asyncio.create_task(asyncio.to_thread(asyncio.run, put_often()))
        objects = self.make()
        while not putting.done():
            await look(objects)
            await asyncio.sleep(0)
        await putting

    async def _reads_whole(self, objects: Objects) -> None:
        assert await objects.get("a") in (FIRST, SECOND)

    async def _lists_one(self, objects: Objects) -> None:
        assert await objects.names() == ["a"]


QUESTIONS = [name for name in vars(Exam) if not name.startswith("_") and name != "make"]
