"""`Chained(primary, fallback)`: two stores as one that is there while either of them is.

    put     the primary; while it is away, the fallback
    get     the primary; where it is away, has none or a damaged one, the fallback
    delete  both, or ObjectsDown: a deletion that only half the copies know of is none
    names   the union, or ObjectsDown
    repair  what the fallback has goes back to the primary

The primary is away when it fails or takes longer than `limit_s`; from then on nobody waits for it
until a probe succeeds. Reading and writing are judged apart: a full disk can still be read.

A name that is put again while the primary is away reads as it was before when the primary is back,
until `repair` compares the two. Jobs put each name once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import structlog

from headrace.objects.aside import aside
from headrace.objects.circuit import Circuit
from headrace.objects.port import ObjectCorrupt, ObjectMissing, Objects, ObjectsDown, checked
from headrace.objects.stamp import Stamped, stamp, unstamp

#: What the primary is probed with; no name of ours, `names` leaves it out.
PROBE = "_probe"

_T = TypeVar("_T")
log = structlog.get_logger("headrace.objects")


class Chained:
    """`limit_s` bounds each thing asked of either store. A primary that is away is probed `probe_s`
    after the last probe ended: its return is noticed in `limit_s` + `probe_s`."""

    def __init__(
        self, primary: Objects, fallback: Objects, *, limit_s: float = 3.0, probe_s: float = 1.0
    ) -> None:
        self.primary, self.fallback, self._limit_s = primary, fallback, limit_s
        self.reading = Circuit(self._probe_reading, limit_s=limit_s, probe_s=probe_s)
        self.writing = Circuit(self._probe_writing, limit_s=limit_s, probe_s=probe_s)
        self.fell_back = 0  # puts and gets that the fallback served
        self.repaired = 0  # objects copied back
        self.corrupt = 0  # damaged copies met

    async def put(self, name: str, data: bytes) -> None:
        checked(name)
        stored = await aside(len(data), lambda: stamp(name, data))
        try:
            await self._of_primary(self.writing, lambda: self.primary.put(name, stored))
        except ObjectsDown:
            await self._of_fallback(lambda: self.fallback.put(name, stored))
            self.fell_back += 1

    async def get(self, name: str) -> bytes:
        """Raises ObjectMissing where neither has it, ObjectCorrupt where what is there is damaged,
        ObjectsDown where one that may have it cannot be asked."""
        checked(name)
        try:
            return (await self._from_primary(name)).data
        except (ObjectMissing, ObjectCorrupt, ObjectsDown) as error:
            reason = error
        try:
            data = (await self._from_fallback(name)).data
        except ObjectMissing:
            if isinstance(reason, ObjectMissing):
                # A repair may have moved it between the two looks.
                return (await self._from_primary(name)).data
            raise reason from None
        except ObjectCorrupt:
            if isinstance(reason, ObjectsDown):
                raise reason from None  # it may have a whole one
            raise
        self.fell_back += 1
        return data

    async def delete(self, name: str) -> None:
        """Raises ObjectsDown unless both said that it is gone: to be called again then."""
        checked(name)
        # The fallback first: see `repair`.
        undone = []
        try:
            await self._of_fallback(lambda: self.fallback.delete(name))
        except ObjectsDown as error:
            undone.append(f"fallback: {error}")
        try:
            await self._of_primary(self.writing, lambda: self.primary.delete(name))
        except ObjectsDown as error:
            undone.append(f"primary: {error}")
        if undone:
            raise ObjectsDown(f"{name} is not deleted everywhere; {'; '.join(undone)}")

    async def names(self, prefix: str = "") -> list[str]:
        """Raises ObjectsDown unless both were asked: half a list would prove a deletion that did
        not happen."""
        # The fallback first: what `repair` moves meanwhile is then found twice, not never.
        found = set(await self._of_fallback(lambda: self.fallback.names(prefix)))
        found.update(await self._of_primary(self.reading, lambda: self.primary.names(prefix)))
        return sorted(found - {PROBE})

    async def repair(self, wanted: Callable[[str], Awaitable[bool]] | None = None) -> int:
        """Copies back what the fallback has, newer copies over older and whole ones over damaged,
        and removes it there; gives the number copied. Raises ObjectsDown.

        `wanted` is asked after each copy: a name that was deleted meanwhile is deleted again. Who
        deletes must therefore first say so where `wanted` looks, then call `delete`. Without
        `wanted` nothing may be deleted meanwhile. Several may repair at once.
        """
        before = self.repaired
        for name in await self._of_fallback(self.fallback.names):
            try:
                copy = await self._from_fallback(name)
            except ObjectMissing:
                continue
            except ObjectCorrupt as error:
                # Left where it is: it may be the only copy, and somebody may know better.
                log.warning("a copy in the fallback is damaged", reason=str(error))
                continue
            await self._copy_back(name, copy)
            if wanted is not None and not await wanted(name):
                await self.delete(name)
        return self.repaired - before

    async def _copy_back(self, name: str, copy: Stamped) -> None:
        there: Stamped | None = None
        with suppress(ObjectMissing, ObjectCorrupt):
            there = await self._from_primary(name)
        if there is None or there.at_ms < copy.at_ms:
            stored = await aside(len(copy.data), lambda: stamp(name, copy.data, copy.at_ms))
            await self._of_primary(self.writing, lambda: self.primary.put(name, stored))
            if (await self._from_primary(name)).data != copy.data:
                return  # put again meanwhile; next time we compare anew
            self.repaired += 1
        await self._of_fallback(lambda: self.fallback.delete(name))

    async def _from_primary(self, name: str) -> Stamped:
        stored = await self._of_primary(self.reading, lambda: self.primary.get(name))
        return await self._whole(name, stored)

    async def _from_fallback(self, name: str) -> Stamped:
        stored = await self._of_fallback(lambda: self.fallback.get(name))
        return await self._whole(name, stored)

    async def _whole(self, name: str, stored: bytes) -> Stamped:
        try:
            return await aside(len(stored), lambda: unstamp(name, stored))
        except ObjectCorrupt:
            self.corrupt += 1
            raise

    async def _of_primary(self, circuit: Circuit, ask: Callable[[], Awaitable[_T]]) -> _T:
        if circuit.is_open:
            circuit.watch()
            raise ObjectsDown("it was away when last asked")
        try:
            return await self._bounded(ask)
        except ObjectsDown as error:
            log.warning("the primary is away", reason=str(error))
            circuit.open()
            raise

    async def _of_fallback(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        return await self._bounded(ask)

    async def _bounded(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        try:
            async with asyncio.timeout(self._limit_s):
                return await ask()
        except (ObjectMissing, ObjectsDown, ValueError):
            raise
        except TimeoutError:
            raise ObjectsDown(f"no answer in {self._limit_s:g} s") from None
        except Exception as error:  # an adapter's own: it is no answer, whatever it is
            raise ObjectsDown(repr(error)) from error

    async def _probe_reading(self) -> None:
        with suppress(ObjectMissing):
            await self.primary.get(PROBE)

    async def _probe_writing(self) -> None:
        await self.primary.put(PROBE, b"")
        await self.primary.delete(PROBE)
