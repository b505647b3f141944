"""`redis://`, `rediss://`: Redis 6 or later, or Valkey; one server, no cluster, no sentinel.

The server's own `maxmemory` and eviction policy bound what is kept (`allkeys-lru` suits); keys end
by themselves. `max_bytes` is for the memory of a gateway and means nothing here.
"""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECTIONS = 16
#: Of one operation. Callers wait less: see `guard`.
TIMEOUT_S = 1.0


class RedisCache:
    """Keys are "headrace:HOUSE:result:KEY": houses share a server without meeting."""

    def __init__(self, url: str, *, house: str, max_bytes: int) -> None:
        # A retry would only spend the little time there is, and so would the greeting of protocol
        # 3. A connection that the server closed meanwhile is noticed and made anew by the pool.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )
        self._client = Redis.from_pool(pool)
        self._prefix = f"headrace:{house}:result:".encode()

    async def open(self) -> None:
        """Connections are made when they are needed."""

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, key: bytes) -> bytes | None:
        value = await self._client.get(self._name(key))
        return value if isinstance(value, bytes) else None

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        await self._client.set(self._name(key), value, px=max(1, int(ttl_s * 1000)))

    def _name(self, key: bytes) -> bytes:
        return self._prefix + key.hex().encode()
