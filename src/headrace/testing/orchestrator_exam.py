"""The exam every orchestrator adapter passes: one test a method of `Exam`.

A `World` has one workload, named like its model, that can run 0 to 3 workers, and may be left with
any count; and what it needs for workloads of the model's versions.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from headrace.deployments import workload_of
from headrace.errors import Conflict, Invalid, NotFound, Refusal
from headrace.orchestrator.port import Orchestrator, Status

#: For what is asked for to be there: real ones take their time.
WAIT_S = 90.0


class World(Protocol):
    """Where an adapter's orders are carried out."""

    workload: str
    #: A count above what may be asked for.
    too_many: int
    #: It compares and sets at once. Nomad compares with what it read before it writes.
    atomic: bool

    def make(self) -> Orchestrator:
        """A new adapter, not yet opened."""


class Exam:
    """One method, one promise of `orchestrator.port`."""

    def __init__(self, world: World) -> None:
        self.world, self.name = world, world.workload

    @asynccontextmanager
    async def _open(self, count: int = 1) -> AsyncIterator[Orchestrator]:
        """With so many there."""
        made = self.world.make()
        await made.open()
        try:
            await self._scaled(made, count)
            yield made
        finally:
            await made.close()

    @asynccontextmanager
    async def _version(self, made: Orchestrator) -> AsyncIterator[str]:
        """The name of one that is not there, and will not be there."""
        name = workload_of(self.name, 3)
        try:
            yield name
        finally:
            await made.remove(name, "the question is over")

    async def _gone(self, made: Orchestrator, name: str) -> None:
        """Where a workload needs nothing made, there is one with nobody in it."""
        with contextlib.suppress(NotFound):
            end = time.monotonic() + WAIT_S
            while (status := await made.status(name)).desired or status.running:
                assert time.monotonic() < end, status
                await asyncio.sleep(0.05)

    async def _scaled(self, made: Orchestrator, count: int, name: str = "") -> Status:
        """Asked for, as soon as that can be, and there."""
        await self._soon(lambda: made.scale(name or self.name, count, "the exam wants it"))
        return await self._there(made, count, name)

    async def _soon(self, verb: Callable[[], Awaitable[None]]) -> None:
        end = time.monotonic() + WAIT_S
        while True:
            try:
                return await verb()
            except Conflict as refusal:  # what was asked for before is still on its way
                if refusal.code != "rollout-under-way" or time.monotonic() > end:
                    raise
                await asyncio.sleep(0.5)

    async def _there(self, made: Orchestrator, count: int, name: str = "") -> Status:
        end = time.monotonic() + WAIT_S
        while True:
            status = await made.status(name or self.name)
            assert status.desired == count, status
            if status.running == count and not status.moving:
                return status
            assert time.monotonic() < end, status
            await asyncio.sleep(0.05)

    async def what_is_asked_for_comes(self) -> None:
        async with self._open(1) as made:
            status = await self._scaled(made, 3)
            assert status.token
            assert status.ready is None or 0 <= status.ready <= 3
            await self._scaled(made, 1)

    async def to_nothing_and_back(self) -> None:
        async with self._open(1) as made:
            assert (await self._scaled(made, 0)).running == 0
            await self._scaled(made, 1)

    async def the_same_count_again_is_no_error(self) -> None:
        async with self._open(2) as made:
            await made.scale(self.name, 2, "once more")
            await made.scale(self.name, 2, "and more", await made.status(self.name))
            await self._there(made, 2)

    async def reasons_are_any_text(self) -> None:
        async with self._open(1) as made:
            reason = 'raised "from" 1 to 2:\n40 % \\ of <it> — ünïcode {x} ' + "long " * 200
            await made.scale(self.name, 2, reason)
            await self._there(made, 2)

    async def others_see_it(self) -> None:
        async with self._open(1) as one, self._open(2) as other:
            await self._there(one, 2)
            await self._scaled(one, 1)
            await self._there(other, 1)

    async def it_stands_without_who_asked(self) -> None:
        async with self._open(2):
            pass
        other = self.world.make()
        await other.open()
        await self._there(other, 2)
        await other.close()

    async def an_old_view_is_refused(self) -> None:
        async with self._open(1) as one:
            seen = await one.status(self.name)
            await self._scaled(one, 2)
            await self._refused(one.scale(self.name, 3, "late", seen), "workload-changed")
            await self._there(one, 2)
            await one.scale(self.name, 1, "in time", await one.status(self.name))
            await self._there(one, 1)

    async def of_two_with_the_same_view_one_wins(self) -> None:
        async with self._open(1) as one, self._open(1) as other:
            seen = await one.status(self.name)
            results = await asyncio.gather(
                one.scale(self.name, 2, "mine", seen),
                other.scale(self.name, 3, "mine", seen),
                return_exceptions=True,
            )
            won = [count for count, result in zip((2, 3), results, strict=True) if result is None]
            lost = sum(isinstance(result, Conflict) for result in results)
            assert won and len(won) + lost == 2, results
            assert len(won) == 1 or not self.world.atomic, results
            status = await one.status(self.name)
            assert status.desired in won
            await self._there(one, status.desired)

    async def what_is_not_there_is_said_so(self) -> None:
        async with self._open(1) as made:
            for verb in (
                made.status("nobody"),
                made.scale("nobody", 1, "why not"),
                made.note("nobody", "hello"),
            ):
                await self._refused(verb, "workload-unknown", NotFound)

    async def bounds_are_kept(self) -> None:
        async with self._open(2) as made:
            for count in (-1, self.world.too_many):
                verb = made.scale(self.name, count, "too far")
                await self._refused(verb, "count-out-of-bounds", Invalid)
            await self._there(made, 2)

    async def a_note_changes_nothing(self) -> None:
        async with self._open(2) as made:
            seen = await made.status(self.name)
            await made.note(self.name, "forecast: 3 would do")
            await self._there(made, 2)
            await made.scale(self.name, 1, "nobody was here", seen)
            await self._there(made, 1)

    async def a_version_has_a_workload_of_its_own(self) -> None:
        async with self._open(1) as made, self._version(made) as version:
            await made.create(version, 2, "a rollout begins")
            await self._there(made, 2, version)
            await self._there(made, 1)
            seen = await made.status(version)
            await self._scaled(made, 1, version)
            await self._refused(made.scale(version, 3, "late", seen), "workload-changed")
            await made.note(version, "hello")
            await self._there(made, 1)

    async def a_workload_that_is_there_is_not_made_twice(self) -> None:
        async with self._open(1) as made, self._version(made) as version:
            other = self.world.make()
            await other.open()
            await asyncio.gather(
                *(each.create(version, 1, "a rollout begins") for each in (made, other)),
                return_exceptions=True,  # of two at once one may be told that it was late
            )
            await other.close()
            await self._there(made, 1, version)
            await self._soon(lambda: made.create(version, 2, "more of it"))
            await self._there(made, 2, version)

    async def what_was_made_can_be_removed(self) -> None:
        async with self._open(1) as made, self._version(made) as version:
            for _ in range(2):
                await made.create(version, 1, "a rollout begins")
                await self._there(made, 1, version)
                await made.remove(version, "nobody calls it")
                await self._gone(made, version)
                await made.remove(version, "once more")
            await self._there(made, 1)

    async def what_people_made_stays(self) -> None:
        async with self._open(2) as made:
            await made.remove(self.name, "nobody calls it")
            await self._there(made, 0)
            await made.remove(self.name, "once more")
            await self._scaled(made, 1)

    async def what_cannot_be_made_is_said_so(self) -> None:
        async with self._open(1) as made:
            await self._refused(made.create("nobody@3", 1, "x"), "workload-unknown", NotFound)
            for name in (self.name, "no name"):
                verb = made.create(name, 1, "x")
                await self._refused(verb, "workload-not-copied", Invalid)
            async with self._version(made) as version:
                for count in (-1, self.world.too_many):
                    verb = made.create(version, count, "x")
                    await self._refused(verb, "count-out-of-bounds", Invalid)
                await self._gone(made, version)
            await self._there(made, 1)

    async def closed_twice_is_no_error(self) -> None:
        made = self.world.make()
        await made.open()
        await made.close()
        await made.close()

    async def _refused(
        self, verb: Awaitable[object], code: str, kind: type[Refusal] = Conflict
    ) -> None:
        got = "nothing"
        try:
            await verb
        except kind as refusal:
            got = refusal.code
        assert got == code


QUESTIONS = [name for name in vars(Exam) if not name.startswith("_")]
