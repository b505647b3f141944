"""`memory://name`: in this process, shared by all that open the same name; least used goes first.

`Lru` is the part in memory of every gateway as well: plain calls, no await.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar
from urllib.parse import urlsplit

V = TypeVar("V")

#: What an entry takes beside its value: key, tuple, two objects, its place in the dict.
ENTRY_BYTES = 400


class Lru(Generic[V]):
    """Values with a size and an end; the least lately used make room. Never above `max_bytes`."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes, self._clock = max_bytes, clock
        self._entries: OrderedDict[bytes, tuple[V, float, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[1] <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: bytes, value: V, size: int, ttl_s: float) -> None:
        """`size` in bytes. What is larger than an eighth of the whole is not kept: it would push
        out too many others."""
        if key in self._entries:
            self._drop(key)
        size += ENTRY_BYTES
        if ttl_s <= 0 or size > self._max_bytes // 8:
            return
        while self.bytes + size > self._max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[key] = (value, self._clock() + ttl_s, size)
        self.bytes += size

    def _drop(self, key: bytes) -> None:
        self.bytes -= self._entries.pop(key)[2]


_stores: dict[str, Lru[bytes]] = {}


class MemoryCache:
    def __init__(self, url: str, *, house: str, max_bytes: int) -> None:
        name = f"{house}/{urlsplit(url).netloc}"
        self._store = _stores.setdefault(name, Lru(max_bytes))

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def get(self, key: bytes) -> bytes | None:
        return self._store.get(key)

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        self._store.put(key, value, len(value), ttl_s)
