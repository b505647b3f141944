"""RabbitMQ: one node, or a cluster, with an Erlang port mapper of its own."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

from headrace.testing.services.node import Node
from headrace.testing.services.programs import ServiceError, find, free_ports, user_for
from headrace.testing.services.service import Service

USER, PASSWORD = "headrace", "headrace"


class RabbitMQ(Service):
    name = "rabbitmq"

    def __init__(self, folder: Path | None = None, count: int = 1) -> None:
        super().__init__(folder)
        mapper, *ports = free_ports(1 + 2 * count)
        self.mapper = MapperNode("epmd", self.folder / "epmd", mapper)
        mark = secrets.token_hex(3)
        names = [f"rabbit-{mark}-{n}@localhost" for n in range(count)]
        self.nodes: list[RabbitNode] = [
            RabbitNode(names, n, self.folder / str(n), (ports[n], ports[count + n]), mapper)
            for n in range(count)
        ]
        for node in self.nodes:
            node.peers = [other for other in self.nodes if other is not node]

    @property
    def url(self) -> str:
        """Of the first node."""
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        return [f"amqp://{USER}:{PASSWORD}@127.0.0.1:{node.port}/" for node in self.nodes]

    def environment(self) -> dict[str, str]:
        return {"RABBITMQ_URL": self.url, "RABBITMQ_URLS": " ".join(self.urls)}

    def start(self) -> None:
        self.mapper.start()
        if not any(node.holds_data() for node in self.nodes):
            self.nodes[0].start()  # for the others to join
        super().start()
        if len(self.nodes) > 1:
            self.nodes[0].await_cluster()

    def close(self) -> None:
        self.stop()
        self.mapper.stop()
        super().close()


class MapperNode(Node):
    """epmd: tells the nodes one another's ports. In the foreground, or it would outlive us."""

    def command(self) -> list[str]:
        return [find("epmd"), "-port", str(self.port), "-address", "127.0.0.1"]

    def answers(self) -> bool:
        return _open(self.port)


class RabbitNode(Node):
    START_S = 120.0  # a boot is 6 s of processor time
    INHERITS_NOT = ("RABBITMQ_", "ERL_")

    def __init__(
        self, cluster: list[str], number: int, folder: Path, ports: tuple[int, int], mapper: int
    ) -> None:
        """`ports`: for clients, and for the other nodes."""
        program = find("rabbitmq-server")
        super().__init__(f"rabbitmq-{number}", folder, ports[0], user_for("rabbitmq"))
        self._program, self._tools = program, Path(program).parent
        self._cluster, self.erlang_name = cluster, cluster[number]
        self.peers: list[RabbitNode] = []
        self._inner, self._mapper = ports[1], mapper

    def command(self) -> list[str]:
        return [self._program]

    def environment(self) -> dict[str, str]:
        here = self.folder
        return {
            "HOME": str(here),  # the Erlang cookie is looked for there
            "ERL_EPMD_PORT": str(self._mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the server, in place of a parent
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # not the machine's
            "RABBITMQ_NODENAME": self.erlang_name,
            "RABBITMQ_DIST_PORT": str(self._inner),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(here / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.data),
            "RABBITMQ_LOG_BASE": str(here),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def prepare(self) -> None:
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            f"default_user = {USER}",
            f"default_pass = {PASSWORD}",
            "log.console.level = warning",
            "disk_free_limit.absolute = 50MB",
            "raft.wal_max_size_bytes = 64000000",
        ]
        if len(self._cluster) > 1:
            # An empty node joins one that is up; a node of no cluster tries its peers for 5 s.
            known = [peer.erlang_name for peer in self.peers if peer.alive and peer.answers()]
            lines.append("cluster_formation.peer_discovery_backend = classic_config")
            lines += [
                f"cluster_formation.classic_config.nodes.{n} = {name}"
                for n, name in enumerate(known or [self.erlang_name], 1)
            ]
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text("headrace")
            cookie.chmod(0o400)
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "enabled_plugins").write_text("[].\n")
        self.own(*self.folder.iterdir())

    def holds_data(self) -> bool:
        """It was started before, and not wiped."""
        return self.data.exists() and any(self.data.iterdir())

    def answers(self) -> bool:
        return _open(self.port, b"AMQP\x00\x00\x09\x01")

    def wipe(self) -> None:
        """Of a cluster: the others forget it first, or they would not let it in again. Its copies
        of queues are gone with it: `rabbitmq-queues grow` makes new ones."""
        super().wipe()
        for other in self.peers:
            if other.alive:
                other.ctl("forget_cluster_node", self.erlang_name)
                break

    def ctl(self, *words: str) -> str:
        """`rabbitmqctl`; a second each. Raises ServiceError."""
        return self.run([str(self._tools / "rabbitmqctl"), "-q", "-n", self.erlang_name, *words])

    def await_cluster(self) -> None:
        """Until all nodes are in it. Raises ServiceError."""
        end = time.monotonic() + self.START_S
        names = self._cluster
        expression = f"length(rabbit_nodes:all_running()) =:= {len(names)}."
        while "true" not in self.ctl("eval", expression):
            if time.monotonic() > end:
                raise ServiceError(f"the nodes do not meet: {', '.join(names)}\n{self.tail()}")
            time.sleep(0.2)


def _open(port: int, hello: bytes = b"") -> bool:
    """Somebody listens, and answers where we say something."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as connection:
            if not hello:
                return True
            connection.sendall(hello)
            return bool(connection.recv(64))
    except OSError:
        return False
