"""`memory://name`: objects in this process, shared by all that open the same name."""

from __future__ import annotations

from urllib.parse import urlsplit

from headrace.objects.port import ObjectMissing

_stores: dict[str, dict[str, bytes]] = {}


class MemoryObjects:
    def __init__(self, url: str) -> None:
        self._store = _stores.setdefault(urlsplit(url).netloc, {})

    async def put(self, name: str, data: bytes) -> None:
        self._store[name] = data

    async def get(self, name: str) -> bytes:
        try:
            return self._store[name]
        except KeyError:
            raise ObjectMissing(name) from None

    async def delete(self, name: str) -> None:
        self._store.pop(name, None)

    async def names(self) -> list[str]:
        return list(self._store)
