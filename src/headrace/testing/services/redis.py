"""Redis, or Valkey: one server that writes each command to its file before it answers."""

from __future__ import annotations

import socket
from pathlib import Path

from headrace.testing.services.node import Node
from headrace.testing.services.programs import find, free_ports
from headrace.testing.services.service import Service


class Redis(Service):
    name = "redis"

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.node = RedisNode("redis", self.folder / "0", free_ports(1)[0])
        self.nodes = [self.node]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.node.port}/0"


class RedisNode(Node):
    def command(self) -> list[str]:
        return [
            find("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1",
            "--dir", str(self.data), "--daemonize", "no", "--save", "", "--appendonly", "yes",
        ]  # fmt: skip

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.sendall(b"INFO server\r\n")
                mine = self.process and b"process_id:%d\r\n" % self.process.pid
                return bool(mine and mine in connection.recv(65_536))
        except OSError:
            return False
