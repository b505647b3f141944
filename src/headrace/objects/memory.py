"""`memory://name`: objects in this process, shared by all that open the same name."""

from __future__ import annotations

from urllib.parse import urlsplit

from headrace.objects.port import ObjectMissing, checked, folder_of

_stores: dict[str, dict[str, bytes]] = {}


class MemoryObjects:
    def __init__(self, url: str) -> None:
        self._store = _stores.setdefault(urlsplit(url).netloc, {})

    async def put(self, name: str, data: bytes) -> None:
        self._store[checked(name)] = data

    async def get(self, name: str) -> bytes:
        try:
            return self._store[checked(name)]
        except KeyError:
            raise ObjectMissing(name) from None

    async def delete(self, name: str) -> None:
        self._store.pop(checked(name), None)

    async def names(self, prefix: str = "") -> list[str]:
        folder = folder_of(prefix)
        return [name for name in self._store if name.startswith(folder)]
