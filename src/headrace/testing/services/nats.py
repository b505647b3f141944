"""NATS with JetStream: one server, or a cluster."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from headrace.testing.services.node import Node
from headrace.testing.services.programs import find, free_ports
from headrace.testing.services.service import Service


class Nats(Service):
    name = "nats"

    def __init__(self, folder: Path | None = None, count: int = 1) -> None:
        super().__init__(folder)
        ports = free_ports(3 * count)
        routes = ports[2 * count :] if count > 1 else []
        self.nodes: list[NatsNode] = [
            NatsNode(n, self.folder / str(n), ports[n], ports[count + n], routes)
            for n in range(count)
        ]

    @property
    def url(self) -> str:
        return "nats://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def urls(self) -> list[str]:
        return [f"nats://127.0.0.1:{node.port}" for node in self.nodes]

    def leader(self, stream: str) -> NatsNode | None:
        """Who leads a stream, by the servers' own word; None while nobody does."""
        for node in self.nodes:
            for account in node.about("jsz?streams=true&accounts=true").get("account_details", []):
                for detail in account.get("stream_detail", []):
                    if detail["name"] == stream and "cluster" in detail:
                        return self._named(detail["cluster"].get("leader", ""))
        return None

    def _named(self, name: str) -> NatsNode | None:
        return next((node for node in self.nodes if node.name == name), None)


class NatsNode(Node):
    def __init__(
        self, number: int, folder: Path, port: int, monitor: int, routes: list[int]
    ) -> None:
        super().__init__(f"nats-{number}", folder, port)
        self._program, self.monitor = find("nats-server"), monitor
        self._routes, self._route = routes, routes[number] if routes else 0

    def command(self) -> list[str]:
        return [self._program, "-c", str(self.folder / "nats.conf")]

    def prepare(self) -> None:
        lines = [
            f"server_name: {self.name}",
            f"listen: 127.0.0.1:{self.port}",
            f"http: 127.0.0.1:{self.monitor}",
            f'jetstream {{ store_dir: "{self.data}" }}',
        ]
        if self._routes:
            urls = ", ".join(f"nats://127.0.0.1:{port}" for port in self._routes)
            lines += [
                f"cluster {{ name: headrace, listen: 127.0.0.1:{self._route}, routes: [{urls}] }}"
            ]
        (self.folder / "nats.conf").write_text("\n".join(lines) + "\n")

    def answers(self) -> bool:
        """Its JetStream, too; of a cluster, that it knows all of it and who leads."""
        if self.about("healthz").get("status") != "ok":
            return False
        if not self._routes:
            return True
        meta = self.about("jsz").get("meta_cluster", {})
        return bool(meta.get("leader")) and meta.get("cluster_size") == len(self._routes)

    def about(self, page: str) -> dict[str, Any]:
        """One page of its monitoring; nothing where it does not answer."""
        try:
            url = f"http://127.0.0.1:{self.monitor}/{page}"
            with urllib.request.urlopen(url, timeout=1.0) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (OSError, ValueError):
            return {}
