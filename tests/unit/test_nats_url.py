"""What stands in a `nats://` URL."""

from __future__ import annotations

import pytest

from headrace.broker.nats import _parsed
from headrace.broker.nats_wire import _servers


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("nats://a:1", ["nats://a:1"]),
        ("nats://a:1,b:2,nats://c:3", ["nats://a:1", "nats://b:2", "nats://c:3"]),
        ("tls://u:p@a:1,b:2", ["tls://u:p@a:1", "tls://u:p@b:2"]),
        ("nats://token@a:1,other@b:2", ["nats://other@b:2", "nats://token@a:1"]),
        ("a:1,b:2", ["nats://a:1", "nats://b:2"]),
    ],
)
def test_servers(url: str, servers: list[str]) -> None:
    assert sorted(_servers(url)) == servers


def test_clients_do_not_all_begin_with_the_same_server() -> None:
    assert len({_servers("nats://a:1,b:2,c:3")[0] for _ in range(200)}) == 3


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("nats://a:1", ("nats://a:1", 1)),
        ("nats://a:1,b:2?replicas=3", ("nats://a:1,b:2", 3)),
    ],
)
def test_replicas(url: str, parsed: tuple[str, int]) -> None:
    assert _parsed(url) == parsed


@pytest.mark.parametrize("query", ["replicas=2", "replicas=", "replicas=x", "replica=3", "x"])
def test_what_is_not_known_is_refused(query: str) -> None:
    with pytest.raises(ValueError, match="expected replicas=1, 3 or 5"):
        _parsed(f"nats://a:1?{query}")
