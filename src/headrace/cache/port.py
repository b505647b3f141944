"""Cache: bytes by key, for a while; whoever asks can do without.

What an adapter promises (the exam in `testing.cache_exam` checks it): what was put is got whole or
not at all, and not after its time; `get` and `put` raise whatever they like where the cache is
gone, and may be cancelled at any await. Nobody calls an adapter directly but `guard.Guard`, which
bounds the wait and leaves alone what does not answer.
"""

from __future__ import annotations

from typing import Protocol


class Cache(Protocol):
    async def open(self) -> None:
        """Connects as far as it can: a cache that is down is no error."""

    async def close(self) -> None: ...

    async def get(self, key: bytes) -> bytes | None:
        """None where there is nothing, or no more."""

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Replaces what is there. May be dropped."""
