"""PostgreSQL: one server, on disk as it comes (fsync on)."""

from __future__ import annotations

import itertools
import signal
import subprocess
from pathlib import Path

from headrace.testing.services.node import Node
from headrace.testing.services.programs import find, free_ports, user_for
from headrace.testing.services.service import Service

USER = "headrace"
SOCKET_PATH_LIMIT = 100  # bytes that the kernel allows for the path of a socket, about


class Postgres(Service):
    name = "postgres"

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.node = PostgresNode(self.folder / "0", free_ports(1)[0])
        self.nodes = [self.node]
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.node.port}/{USER}"

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"db{next(self._numbers)}"
        self.node.make_database(name)
        return f"postgresql://{USER}@127.0.0.1:{self.node.port}/{name}"

    def stop(self, immediate: bool = False) -> None:
        """`immediate`: without a checkpoint, as after a crash, but all processes told."""
        self.node.stop(signal.SIGQUIT if immediate else None)


class PostgresNode(Node):
    STOP = signal.SIGINT  # "fast": sessions are ended, then a checkpoint
    ORPHANED = signal.SIGQUIT  # takes its shared memory along; SIGKILL would leave it behind

    def __init__(self, folder: Path, port: int) -> None:
        program = find("postgres")
        super().__init__("postgres", folder, port, user_for("postgres"))
        self._program, self._tools = program, Path(program).resolve().parent

    def command(self) -> list[str]:
        here = str(self.folder)
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": here if len(here) < SOCKET_PATH_LIMIT - 20 else "",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return [self._program, "-D", str(self.data), *options]

    def prepare(self) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        self.run(
            [str(self._tools / "initdb"), "-D", str(self.data), "-U", USER, "-A", "trust",
             "-E", "UTF8", "--locale=C", "--no-sync"]
        )  # fmt: skip

    def start(self) -> None:
        new = not (self.data / "PG_VERSION").exists()
        super().start()
        if new:
            self.make_database(USER)

    def make_database(self, name: str) -> None:
        server = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
        self.run([str(self._tools / "createdb"), *server, name])

    def answers(self) -> bool:
        ask = [str(self._tools / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ask, check=False).returncode == 0
