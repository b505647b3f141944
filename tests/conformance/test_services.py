"""The services that the other exams rest on: they answer, survive a kill, leave nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
import redis as redis_client
from obstore.store import S3Store

from headrace.broker.nats_wire import Wire
from headrace.errors import Unavailable
from headrace.testing.services import (
    Nats,
    Postgres,
    RabbitMQ,
    Redis,
    SeaweedFS,
    ServiceError,
    free_ports,
    make,
)
from headrace.testing.services.programs import PROGRAMS, Source, find

PROGRAM = Path(__file__).parents[2] / "dev" / "services"


# -- one word kept in each, by its own client ------------------------------------------------------


async def postgres_write(service: Postgres) -> None:
    connection = await asyncpg.connect(service.url)
    await connection.execute("CREATE TABLE kept (word text)")
    await connection.execute("INSERT INTO kept VALUES ('kept')")
    await connection.close()


async def postgres_read(service: Postgres) -> str:
    connection = await asyncpg.connect(service.url)
    word: str = await connection.fetchval("SELECT word FROM kept")
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.close()
    return word


async def redis_write(service: Redis) -> None:
    with contextlib.closing(redis_client.Redis.from_url(service.url)) as client:
        client.set("word", "kept")


async def redis_read(service: Redis) -> str:
    with contextlib.closing(redis_client.Redis.from_url(service.url)) as client:
        return bytes(client.get("word")).decode()


async def _nats(service: Nats, *asked: tuple[bytes, bytes]) -> list[dict[str, Any]]:
    wire = Wire(service.url, "test")
    await wire.open()
    answers = []
    for number, (subject, payload) in enumerate(asked):
        async with asyncio.timeout(30.0):  # a stream may have no leader yet
            while len(answers) == number:
                with contextlib.suppress(Unavailable):
                    answers.append(json.loads(await wire.request(subject, payload, 1.0)))
    await wire.close()
    assert not any("error" in answer for answer in answers), answers
    return answers


async def nats_write(service: Nats) -> None:
    config = {"name": "S", "subjects": ["s"], "storage": "file", "num_replicas": len(service.nodes)}
    await _nats(service, (b"$JS.API.STREAM.CREATE.S", json.dumps(config).encode()), (b"s", b"kept"))


async def nats_read(service: Nats) -> str:
    [info] = await _nats(service, (b"$JS.API.STREAM.INFO.S", b""))
    return "kept" if info["state"]["messages"] == 1 else "lost"


async def rabbitmq_write(service: RabbitMQ) -> None:
    service.nodes[0].ctl("add_vhost", "kept")


async def rabbitmq_read(service: RabbitMQ) -> str:
    return "kept" if "kept" in service.nodes[-1].ctl("list_vhosts").split() else "lost"


def _bucket(service: SeaweedFS) -> S3Store:
    return S3Store(
        service.bucket,
        endpoint=service.url,
        access_key_id=service.access_key,
        secret_access_key=service.secret_key,
        region="us-east-1",
        client_options={"allow_http": True},
    )


async def seaweedfs_write(service: SeaweedFS) -> None:
    await _bucket(service).put_async("word", b"kept")


async def seaweedfs_read(service: SeaweedFS) -> str:
    answer = await _bucket(service).get_async("word")
    return bytes(await answer.bytes_async()).decode()


class Kind(NamedTuple):
    asked: str
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


KINDS = [
    Kind("postgres", postgres_write, postgres_read),
    Kind("redis", redis_write, redis_read),
    Kind("nats", nats_write, nats_read),
    Kind("nats:3", nats_write, nats_read),
    Kind("rabbitmq", rabbitmq_write, rabbitmq_read),
    Kind("seaweedfs", seaweedfs_write, seaweedfs_read),
]


def processes(folder: Path) -> list[int]:
    """Who works in that folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder) in str((entry / "cwd").readlink()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("kind", KINDS, ids=[kind.asked for kind in KINDS])
async def test_it_keeps_its_data_and_leaves_nothing(kind: Kind) -> None:
    service = make(kind.asked)
    with service:
        await kind.write(service)
        service.kill()
        assert [node.alive for node in service.nodes] == [False] * len(service.nodes)
        service.start()
        assert await kind.read(service) == "kept"
        assert processes(service.folder)
    assert processes(service.folder) == []
    assert not service.folder.exists()
    ports = getattr(service.nodes[0], "_ports", [])
    assert [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*{port}*")] == []


async def test_two_of_the_same_side_by_side() -> None:
    with Postgres() as one, Postgres() as two, Redis() as three, Redis() as four:
        await postgres_write(one)
        await postgres_write(two)
        await redis_write(three)
        with contextlib.closing(redis_client.Redis.from_url(four.url)) as client:
            assert client.get("word") is None
        assert len({one.url, two.url}) == 2


async def test_a_wiped_node_comes_back_empty() -> None:
    with Redis() as redis:
        await redis_write(redis)
        redis.restart()
        assert await redis_read(redis) == "kept"
        with pytest.raises(AssertionError, match="runs"):
            redis.wipe()
        redis.stop()
        redis.wipe()
        redis.start()
        with contextlib.closing(redis_client.Redis.from_url(redis.url)) as client:
            assert client.get("word") is None


async def test_the_database_stopped_at_once_recovers(postgres: Postgres) -> None:
    url = postgres.database()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE t (n int)")
    await connection.execute("INSERT INTO t VALUES (1)")
    postgres.stop(immediate=True)
    connection.terminate()
    assert "database system is shut down" in postgres.node.tail()
    postgres.start()
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT n FROM t") == 1
    await connection.close()


async def test_a_lost_node_of_a_nats_cluster_is_filled_again() -> None:
    with Nats(count=3) as nats:
        await nats_write(nats)
        node = nats.leader("S")
        assert node is not None
        node.kill()
        node.wipe()
        node.start()

        def caught_up() -> bool:
            accounts = node.about("jsz?streams=true&accounts=true").get("account_details", [])
            streams = [stream for one in accounts for stream in one.get("stream_detail", [])]
            return [stream["state"]["messages"] for stream in streams] == [1]

        async with asyncio.timeout(30.0):
            while not caught_up():
                await asyncio.sleep(0.1)


async def test_a_lost_node_of_a_rabbitmq_cluster_joins_again(rabbitmq_cluster: RabbitMQ) -> None:
    await rabbitmq_write(rabbitmq_cluster)
    assert await rabbitmq_read(rabbitmq_cluster) == "kept"  # asks the last node
    node = rabbitmq_cluster.nodes[2]
    node.kill()
    node.wipe()
    node.start()
    rabbitmq_cluster.nodes[0].await_cluster()
    assert await rabbitmq_read(rabbitmq_cluster) == "kept"


@pytest.mark.parametrize("asked", ["postgres", "rabbitmq", "redis"])
def test_they_die_with_who_started_them(asked: str, tmp_path: Path) -> None:
    """Killed by SIGKILL, it can stop nobody: the kernel does."""
    tmp_path.chmod(0o755)
    code = (
        "import sys, time; from pathlib import Path; from headrace.testing.services import make;"
        "service = make(sys.argv[1], Path(sys.argv[2])); service.start(); print(1, flush=True);"
        "time.sleep(60)"
    )
    service = make(asked)  # for its folder, which another user can reach
    command = [sys.executable, "-c", code, asked, str(service.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"1\n"
        assert processes(service.folder)
        owner.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10.0
    while processes(service.folder) and time.monotonic() < end:
        time.sleep(0.02)
    assert processes(service.folder) == []
    service.close()


def test_what_is_not_installed_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROGRAMS, "redis-server", Source(("no-such-program",), (), "Debian: it"))
    with pytest.raises(ServiceError, match=r"redis-server is not installed\. Debian: it"):
        find("redis-server")
    with pytest.raises(ServiceError, match="no service 'kafka'; there are postgres"):
        make("kafka")


def test_one_that_does_not_start_says_why() -> None:
    """And it is not taken for the one that has its port."""
    with Redis() as one:
        two = Redis()
        two.node.port = one.node.port
        with pytest.raises(ServiceError, match=r"(?s)redis ended at its start.*bind"), two:
            pass
        assert not two.folder.exists()


def test_ports_are_given_once() -> None:
    ports = [*free_ports(20), *free_ports(20)]
    assert len(set(ports)) == 40


# -- dev/services ----------------------------------------------------------------------------------


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "services"
    said = dev("start", "--dir", str(folder), "redis", "nats")
    assert "REDIS_URL=redis://127.0.0.1:" in said and "NATS_URL=nats://127.0.0.1:" in said
    yield folder
    if folder.exists():
        dev("stop", "--dir", str(folder))


def dev(*words: str, fails: bool = False) -> str:
    done = subprocess.run(
        [str(PROGRAM), *words], check=False, capture_output=True, text=True, timeout=90
    )
    assert bool(done.returncode) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_started_in_the_background_and_stopped(started: Path) -> None:
    said = json.loads((started / "services.json").read_text())["services"]
    assert set(said) == {"redis", "nats"}
    assert f"export REDIS_URL={said['redis']['url']}" in dev("env", "--dir", str(started))
    assert "redis        up" in dev("status", "--dir", str(started))
    assert "already" in dev("start", "--dir", str(started), "redis", fails=True)
    [pid] = said["redis"]["pids"]
    os.kill(pid, signal.SIGKILL)
    assert f"pids gone: [{pid}]" in dev("status", "--dir", str(started), fails=True)
    dev("stop", "--dir", str(started))
    assert processes(started) == []
    assert not started.exists()
    assert "nothing was started" in dev("stop", "--dir", str(started), fails=True)


def test_in_the_foreground_until_told() -> None:
    with subprocess.Popen([str(PROGRAM), "run", "redis"], stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        lines = iter(one.stdout.readline, "Ctrl-C stops them\n")
        [url] = [line.partition("REDIS_URL=")[2].strip() for line in lines if "REDIS_URL" in line]
        with contextlib.closing(redis_client.Redis.from_url(url)) as client:
            assert client.ping()
        one.send_signal(signal.SIGINT)
        assert one.wait(30) == 0
    with pytest.raises(redis_client.ConnectionError), contextlib.closing(
        redis_client.Redis.from_url(url)
    ) as client:  # fmt: skip
        client.ping()


def test_help_teaches() -> None:
    said = dev("--help")
    assert "dev/services start --dir DIR" in said and "rabbitmq[:COUNT]" in said
    assert "no service 'kafka'" in dev("run", "kafka", fails=True)
