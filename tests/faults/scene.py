"""A house with two gateways, three workers and two clerks, over the broker and the database that
were asked for; its processes can be struck.

What the house starts itself (gateways, workers, clerks, its own NATS) it also starts again; a
service of ours is started again by `revive`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

from headrace.testing.faultproxy import FaultProxy
from headrace.testing.house import TestHouse
from headrace.testing.services import Postgres, RabbitMQ, SeaweedFS, Service

from .books import Books, Fetch, books_of
from .models import RUNS, WORK_MS, last_run
from .models import __file__ as models_file

HERE = Path(__file__).parent
BROKERS, DATABASES = ("nats", "rabbitmq"), ("sqlite", "postgresql")
MIGRATED_S = 20.0
OBJECTS = "bodies"  # the folder of the bucket
STAMP_BYTES = 52  # before each object: magic, time, length, digest
#: Read by bugs/sitecustomize.py alone.
BUG, ACTED = "HEADRACE_FAULTS_BUG", "HEADRACE_FAULTS_ACTED"
#: Read by releases/sitecustomize.py alone.
OLD = "HEADRACE_FAULTS_OLD"

TOML = """
    [house]
    state = "state"
    [gateway]
    count = {gateways}
    [clerk]
    count = {clerks}
    [jobs]
    backoff_s = 0.2
    max_attempts = 20  # no job is to die of kills that meet it by chance
    [models.prove]
    class = "models:Prove"
    workers = {workers}
"""


def fetch_of(store: SeaweedFS) -> Fetch:
    """Straight from the store, without our port."""
    client = S3Store(
        store.bucket, endpoint=store.url, region="us-east-1", access_key_id=store.access_key,
        secret_access_key=store.secret_key, client_options={"allow_http": True},
    )  # fmt: skip
    return lambda name: bytes(obstore.get(client, f"{OBJECTS}/{name}").bytes())[STAMP_BYTES:]


class Scene:
    """`residue` is filled when it is left: what the house did not clear away."""

    def __init__(
        self,
        folder: Path,
        *,
        broker: str = "nats",
        database: str = "sqlite",
        bug: str = "",
        old: str = "",
        gateways: int = 2,
        workers: int = 3,
        clerks: int = 2,
        work_ms: float = 2.0,
        stored: bool = False,
        proxied: bool = False,
        database_folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """`old`: "worker,gateway:/other/src", roles that run another release. `stored`: every input
        and result lies in an object store. `proxied`: `proxy` stands before that, else before
        PostgreSQL. `database_folder`: of the SQLite file."""
        self.folder, self._asked = folder, (broker, database)
        self._toml = TOML.format(gateways=gateways, workers=workers, clerks=clerks)
        self._work_s = work_ms / 1000
        self._environment = {RUNS: str(folder / "runs"), WORK_MS: f"{work_ms:g}"}
        self._environment |= environment or {}
        if bug or old:
            if bug and old:
                raise ValueError("bugs are of this release alone")
            paths = [str(HERE / ("bugs" if bug else "releases")), os.environ.get("PYTHONPATH", "")]
            self._environment |= {
                **({BUG: bug} if bug else {OLD: old}),
                ACTED: str(folder / "acted"),
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            }
        self._stored, self._proxied = stored, proxied
        self._database_folder = database_folder or folder
        self.proxy: FaultProxy | None = None
        self.broker: Service | None = None
        self.database: Postgres | None = None
        self.residue: list[str] = []
        self._stack = contextlib.AsyncExitStack()

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def runs_begun(self) -> int:
        """Golden calls and warm-up left out."""
        lines = self.runs.read_bytes().splitlines() if self.runs.exists() else []
        return sum(not line.startswith(b"0 ") for line in lines)

    def acted(self) -> set[str]:
        """The bugs that did what they are for, and the roles that ran another release."""
        path = self.folder / "acted"
        return set(path.read_text().split()) if path.exists() else set()

    @property
    def port(self) -> int:
        return self.house.port

    async def __aenter__(self) -> Self:
        try:
            await self._open(*self._asked)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _open(self, broker: str, database: str) -> None:
        environment = dict(self._environment)
        if broker == "rabbitmq":
            self.broker = RabbitMQ()
            await self._serve(self.broker)
            environment["HEADRACE_BROKER__URL"] = self.broker.url
        url = f"sqlite:///{self._database_folder}/jobs.db"
        if database == "postgresql":
            self.database = Postgres()
            await self._serve(self.database)
            url = self.database.url
        fetch = None
        direct = url
        if self._stored:
            store = SeaweedFS()
            await self._serve(store)
            fetch = fetch_of(store)
            environment |= await self._stored_in(store)
        elif self._proxied:
            url = await self._through_proxy(url)
        self.books: Books = books_of(direct, fetch)
        environment["HEADRACE_DATABASE__URL"] = url
        self.house = TestHouse(
            Path(models_file).read_text(), self._toml, self.folder, environment=environment
        )
        await self.house.start()
        self._stack.push_async_callback(self._leave)
        async with asyncio.timeout(MIGRATED_S):
            while not await self.books.migrated():
                await asyncio.sleep(0.05)
        await self.books.watch()

    async def _stored_in(self, store: SeaweedFS) -> dict[str, str]:
        endpoint = await self._through_proxy(store.url) if self._proxied else store.url
        return store.environment() | {
            "AWS_ENDPOINT_URL": endpoint,
            "HEADRACE_OBJECTS__URL": f"s3://{store.bucket}/{OBJECTS}",
            "HEADRACE_JOBS__INLINE_LIMIT_BYTES": "0",
        }

    async def _through_proxy(self, url: str) -> str:
        """The same URL with the proxy's port."""
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self.proxy = FaultProxy(parts.hostname, parts.port)
        await self._stack.enter_async_context(self.proxy)
        return url.replace(f":{parts.port}", f":{self.proxy.port}")

    async def _serve(self, service: Service) -> None:
        await asyncio.to_thread(service.start)
        self._stack.push_async_callback(asyncio.to_thread, service.close)

    async def stop_house(self) -> None:
        """As Ctrl-C does. What it leaves is residue."""
        if self.house.process and self.house.process.poll() is None:
            status = await self.house.stop()
            if status:
                self.residue.append(f"the house ended with {status}")
            self.residue += self.house.residue()

    async def _leave(self) -> None:
        with contextlib.suppress(AssertionError):  # said by `residue`, or by what failed before
            await self.house.__aexit__(None)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # -- who can be struck ---------------------------------------------------------------------

    def pids(self, role: str) -> list[int]:
        if role == "broker" and self.broker is not None:
            return self.broker.pids()
        return self.house.pids(role)

    def at_work(self, role: str) -> int | None:
        last = last_run(self.runs)
        if last is None or not last.number or time.monotonic() - last.at > self._work_s / 2:
            return None
        return last.worker if role == "worker" else last.pid

    async def revive(self, role: str) -> None:
        if role == "broker" and self.broker is not None:
            await asyncio.to_thread(self.broker.kill)  # reaps it and its children
            await asyncio.to_thread(self.broker.start)
