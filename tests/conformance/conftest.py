"""Real services for the exams: each starts when a test first asks for it, and stops at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.testing.services import Nats, Postgres, RabbitMQ, Redis, SeaweedFS
from headrace.testing.services.mlflow import Mlflow


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """`postgres.database()` gives a test an empty database of its own."""
    with Postgres() as service:
        yield service


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    with RabbitMQ() as service:
        yield service


@pytest.fixture(scope="session")
def rabbitmq_cluster() -> Iterator[RabbitMQ]:
    with RabbitMQ(count=3) as service:
        yield service


@pytest.fixture(scope="session")
def nats_cluster() -> Iterator[Nats]:
    with Nats(count=3) as service:
        yield service


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    with Redis() as service:
        yield service


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    with SeaweedFS() as service:
        yield service


@pytest.fixture(scope="session")
def mlflow() -> Iterator[Mlflow]:
    """Takes a quarter of a minute to start: tests share it, and use names of their own."""
    with Mlflow() as service:
        yield service
