"""Real services for tests: started on free ports, killed, restarted, and gone without a trace.

    with Nats(count=3) as nats:
        nats.nodes[0].kill()   # SIGKILL
        nats.nodes[0].start()

Each has a folder and ports of its own, so that any number run side by side, next to what the
machine runs already. `start` waits until the service answers; `stop` keeps its data, `close` (and
the end of `with`) leaves no process and no file. They die with the process that started them
(Linux). What is not installed raises `ServiceError`, which says what to install.

All of it blocks: call it from a thread (`asyncio.to_thread`) where a loop must go on.
"""

from __future__ import annotations

from pathlib import Path

from headrace.testing.services.nats import Nats
from headrace.testing.services.node import Node
from headrace.testing.services.postgres import Postgres
from headrace.testing.services.programs import ServiceError, free_ports
from headrace.testing.services.rabbitmq import RabbitMQ
from headrace.testing.services.redis import Redis
from headrace.testing.services.seaweedfs import SeaweedFS
from headrace.testing.services.service import Service

__all__ = [
    "Nats", "Node", "Postgres", "RabbitMQ", "Redis", "SeaweedFS", "Service", "ServiceError",
    "free_ports", "make",
]  # fmt: skip

SINGLE = {"postgres": Postgres, "redis": Redis, "seaweedfs": SeaweedFS}
CLUSTERED = {"nats": Nats, "rabbitmq": RabbitMQ}


def make(asked: str, folder: Path | None = None) -> Service:
    """By name, and number of nodes: "redis", "nats:3". Raises ServiceError."""
    name, _, count = asked.partition(":")
    if name in CLUSTERED and (not count or (count.isdecimal() and int(count) > 0)):
        return CLUSTERED[name](folder, int(count or 1))
    if name in SINGLE and count in ("", "1"):
        return SINGLE[name](folder)
    known = ", ".join([*SINGLE, *(f"{name}[:COUNT]" for name in CLUSTERED)])
    raise ServiceError(f"no service {asked!r}; there are {known}")
