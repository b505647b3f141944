"""Real services for the exams: each starts when a test first asks for it, and stops at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from headrace.store.open import Store
from headrace.testing.services import Nats, Postgres, RabbitMQ, Redis, SeaweedFS
from headrace.testing.services.mlflow import Mlflow

from .stored import opened


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """`postgres.database()` gives a test an empty database of its own."""
    with Postgres() as service:
        yield service


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/house.db"
    postgres = request.getfixturevalue("postgres")
    return await asyncio.to_thread(postgres.database)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with opened(url) as store:
        yield store


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
