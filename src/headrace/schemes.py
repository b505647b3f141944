"""URL scheme -> adapter, imported when asked for: a port's extras are nobody else's burden."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit


class Adapter(NamedTuple):
    """`target` is "module:callable"; `install` is what to install where its import fails."""

    target: str
    install: str = ""


BROKERS = {
    "memory": Adapter("headrace.broker.memory:MemoryBroker"),
    "nats": Adapter("headrace.broker.nats:NatsBroker"),
    "tls": Adapter("headrace.broker.nats:NatsBroker"),
    "amqp": Adapter("headrace.broker.amqp:AmqpBroker", "'headrace[rabbitmq]'"),
    "amqps": Adapter("headrace.broker.amqp:AmqpBroker", "'headrace[rabbitmq]'"),
}
OBJECTS = {
    "memory": Adapter("headrace.objects.memory:MemoryObjects"),
    "file": Adapter("headrace.objects.file:FileObjects"),
    "s3": Adapter("headrace.objects.cloud:CloudObjects", "'headrace[cloud]'"),
    "gs": Adapter("headrace.objects.cloud:CloudObjects", "'headrace[cloud]'"),
    "az": Adapter("headrace.objects.cloud:CloudObjects", "'headrace[cloud]'"),
}
CACHES = {
    "memory": Adapter("headrace.cache.memory:MemoryCache"),
    "redis": Adapter("headrace.cache.redis:RedisCache", "'headrace[redis]'"),
    "rediss": Adapter("headrace.cache.redis:RedisCache", "'headrace[redis]'"),
}
ORCHESTRATORS = {
    "local": Adapter("headrace.orchestrator.local:LocalOrchestrator"),
    "nomad": Adapter("headrace.orchestrator.nomad:NomadOrchestrator"),
    "nomads": Adapter("headrace.orchestrator.nomad:NomadOrchestrator"),
    "kubernetes": Adapter("headrace.orchestrator.kubernetes:KubernetesOrchestrator"),
    "keda": Adapter("headrace.orchestrator.keda:KedaOrchestrator", "'headrace[grpc]'"),
}
REGISTRIES = {
    "file": Adapter("headrace.registry.file:FileRegistry"),
    "mlflow": Adapter("headrace.registry.mlflow:MlflowRegistry"),
    "mlflows": Adapter("headrace.registry.mlflow:MlflowRegistry"),
}


class UnknownScheme(ValueError):
    """A URL whose scheme no adapter has."""


def shown(url: str) -> str:
    """A URL for people and logs: without what may be secret, user, password and query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def build(port: str, table: dict[str, Adapter], url: str, **options: Any) -> Any:
    """The adapter for a URL, not yet opened. Raises UnknownScheme, or ImportError that says what
    to install."""
    scheme = urlsplit(url).scheme
    adapter = table.get(scheme)
    if adapter is None:
        known = ", ".join(f"{name}://" for name in table)
        raise UnknownScheme(f"{port} = {shown(url)!r}: no adapter for {scheme!r}; expected {known}")
    module, _, name = adapter.target.partition(":")
    try:
        make = getattr(import_module(module), name)
    except ImportError as error:
        hint = f"; install it with: pip install {adapter.install}" if adapter.install else ""
        raise ImportError(f"{port} = {shown(url)!r} needs {error.name}{hint}") from error
    return make(url, **options)
