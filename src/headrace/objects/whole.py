"""`Whole(objects)`: what was damaged at rest is not got, but raises `ObjectCorrupt`.

For objects in one place; `chain` does the same for two.
"""

from __future__ import annotations

from headrace.objects.aside import aside
from headrace.objects.port import ObjectCorrupt, Objects
from headrace.objects.stamp import stamp, unstamp


class Whole:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.corrupt = 0

    async def put(self, name: str, data: bytes) -> None:
        await self._objects.put(name, await aside(len(data), lambda: stamp(name, data)))

    async def get(self, name: str) -> bytes:
        """Raises ObjectCorrupt, too."""
        stored = await self._objects.get(name)
        try:
            return (await aside(len(stored), lambda: unstamp(name, stored))).data
        except ObjectCorrupt:
            self.corrupt += 1
            raise

    async def delete(self, name: str) -> None:
        await self._objects.delete(name)

    async def names(self, prefix: str = "") -> list[str]:
        return await self._objects.names(prefix)
