"""Every cache adapter passes the exam; a real server dies, hangs, forgets and lies: no call fails
or waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from headrace.announce import Announcement
from headrace.cache.content import Content
from headrace.cache.guard import Guard
from headrace.cache.kept import Kept, seal
from headrace.cache.memory import Lru, MemoryCache
from headrace.cache.port import Cache
from headrace.cache.redis import RedisCache
from headrace.gateway.reuse import Reuse
from headrace.gateway.snapshot import ModelView
from headrace.jobs import Form, Outcome, Returned
from headrace.signature import Card
from headrace.telemetry.metrics import GatewayMetrics
from headrace.testing.cache_exam import ONE, QUESTIONS, TWO, Exam
from headrace.testing.services import Redis
from headrace.testing.services.redis import RedisNode

from .self_signed import self_signed

TIMEOUT_S = 0.05  # what is promised
PATIENT_S = 5.0  # for tests that ask what is done, not how quickly on this machine
SLACK_S = 0.05


def redis_cache(url: str, house: str = "house") -> RedisCache:
    return RedisCache(url, house=house, max_bytes=1 << 20)


# -- the exam --------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("scheme", ["memory", "redis"])
async def test_exam(scheme: str, question: str, request: pytest.FixtureRequest) -> None:
    house = secrets.token_hex(4)
    options: dict[str, Any] = {"house": house, "max_bytes": 1 << 23}
    url = request.getfixturevalue("redis").url if scheme == "redis" else "memory://exam"

    def make() -> Cache:
        return RedisCache(url, **options) if scheme == "redis" else MemoryCache(url, **options)

    await getattr(Exam(make), question)()


async def test_houses_share_a_server_without_meeting(redis: Redis) -> None:
    one, other = (redis_cache(redis.url, house) for house in ("one", "other"))
    await one.put(ONE, b"1", 30)
    assert await other.get(ONE) is None
    assert await one.get(ONE) == b"1"
    await one.close()
    await other.close()


class TlsNode(RedisNode):
    def command(self) -> list[str]:
        plain = [word for word in super().command() if word not in ("--port", str(self.port))]
        return [
            *plain, "--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no",
            "--tls-cert-file", str(self.data / "tls.pem"),
            "--tls-key-file", str(self.data / "tls.pem"),
            "--requirepass", "s3:cret/",
        ]  # fmt: skip

    def prepare(self) -> None:
        self_signed(self.data / "tls.pem")

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            return True
        return False


@pytest.fixture
def tls() -> Iterator[RedisNode]:
    service = Redis()
    service.node = TlsNode("redis", service.folder / "0", service.node.port)
    service.nodes = [service.node]
    with service:
        yield service.node


async def test_over_tls_with_a_password(tls: RedisNode) -> None:
    at = f"127.0.0.1:{tls.port}/1"
    cache = redis_cache(f"rediss://:s3%3Acret%2F@{at}?ssl_ca_certs={tls.data}/tls.pem")
    await cache.put(ONE, b"1", 30)
    assert await cache.get(ONE) == b"1"
    await cache.close()
    for stranger in (
        f"rediss://:s3%3Acret%2F@{at}",  # its certificate is not to be trusted
        f"rediss://:wrong@{at}?ssl_ca_certs={tls.data}/tls.pem",
        f"redis://:s3%3Acret%2F@{at}",  # no TLS
    ):
        async with guarded(stranger) as (guard, _):
            assert not guard.usable


# -- a server that is ill --------------------------------------------------------------------------


@pytest.fixture
def own() -> Iterator[Redis]:
    """A server of this test alone: it will suffer."""
    with Redis() as service:
        yield service


@contextlib.asynccontextmanager
async def guarded(url: str, timeout_s: float = PATIENT_S) -> AsyncIterator[tuple[Guard, list[str]]]:
    errors: list[str] = []
    guard = Guard(redis_cache(url), timeout_s, errors.append)
    await guard.open()
    try:
        yield guard, errors
    finally:
        began = time.monotonic()
        await guard.close()
    assert time.monotonic() - began < 3
    assert not guard.usable, "nothing is begun after the end"


async def longest_s(guard: Guard, seconds: float, until: Callable[[], bool]) -> float:
    """Asks four at a time; the longest that any of them took, in excess of what a sleep as long as
    the timeout took beside it: this machine may have other things to do."""
    worst, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end and not until():
        began = time.monotonic()
        slept = asyncio.create_task(asyncio.sleep(TIMEOUT_S))
        await asyncio.gather(*(guard.get(ONE) for _ in range(4)))
        took = time.monotonic() - began
        await slept
        worst = max(worst, took - (time.monotonic() - began))
    return worst


async def quickest_s(guard: Guard) -> float:
    took = []
    for _ in range(20):
        began = time.monotonic()
        assert await guard.get(ONE) is None
        took.append(time.monotonic() - began)
    return min(took)


async def well(guard: Guard) -> None:
    async with asyncio.timeout(20):
        while not guard.usable:
            await asyncio.sleep(0.01)


async def kept(guard: Guard, key: bytes, value: bytes) -> None:
    """Put until it is there: under load one that is late is a miss."""
    async with asyncio.timeout(20):
        while await guard.get(key) != value:
            await guard.put(key, value, 30)


async def test_killed_and_back(own: Redis) -> None:
    async with guarded(own.url, TIMEOUT_S) as (guard, errors):
        await kept(guard, ONE, b"1")
        await asyncio.to_thread(own.kill)
        assert await longest_s(guard, 5.0, lambda: not guard.usable) < SLACK_S
        assert not guard.usable and errors
        assert await quickest_s(guard) < 0.001, "left alone: no wait at all"
        await asyncio.to_thread(own.start)
        await well(guard)
        await kept(guard, ONE, b"3")


async def test_it_hangs_and_goes_on(own: Redis) -> None:
    """SIGSTOP: connections stay open, nothing answers. What comes late is nobody's answer."""
    async with guarded(own.url, TIMEOUT_S) as (guard, errors):
        await kept(guard, ONE, b"1")
        await kept(guard, TWO, b"2")
        await asyncio.gather(*(guard.get(ONE) for _ in range(8)))
        own.kill(signal.SIGSTOP)
        assert await longest_s(guard, 5.0, lambda: not guard.usable) < SLACK_S
        assert set(errors) == {"late"}
        own.kill(signal.SIGCONT)
        await well(guard)
        for _ in range(20):
            one, two = await asyncio.gather(guard.get(ONE), guard.get(TWO))
            assert one in (b"1", None) and two in (b"2", None)
        await kept(guard, ONE, b"1")


async def test_a_black_hole() -> None:
    """It takes connections and never answers, from the start on."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        began = time.monotonic()
        url = f"redis://127.0.0.1:{hole.getsockname()[1]}/0"
        async with guarded(url, TIMEOUT_S) as (guard, _):
            assert time.monotonic() - began < 2.5
            assert not guard.usable
            end = time.monotonic() + 2.5  # probes meanwhile: they disturb nobody
            while time.monotonic() < end:
                assert await quickest_s(guard) < 0.001
                await asyncio.sleep(0.05)


async def test_nobody_listens() -> None:
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        async with guarded(f"redis://127.0.0.1:{taken.getsockname()[1]}/0") as (guard, _):
            assert not guard.usable
            assert await guard.get(ONE) is None


async def test_a_full_server_still_answers(own: Redis) -> None:
    import redis.asyncio as client

    async with guarded(own.url) as (guard, errors):
        await guard.put(ONE, b"1", 30)
        async with client.Redis.from_url(own.url) as admin:
            await admin.config_set("maxmemory", "1mb")
            for _ in range(5):
                await guard.put(TWO, b"2" * 500_000, 30)
        assert errors and guard.usable
        assert await guard.get(ONE) == b"1"


# -- with calls ------------------------------------------------------------------------------------


class Runs:
    """In place of dispatch and model: each job is answered with its body, after a moment."""

    def __init__(self) -> None:
        self.jobs = 0

    def start(self, model: str, request_id: str, body: bytes, **more: Any) -> int:
        self.jobs += 1
        outcome = Outcome(self.jobs, time.time(), 0.0, 1.0, b"[%b]" % body)
        returned = Returned(model, "1", "w", time.time(), [outcome])
        asyncio.get_running_loop().call_later(0.002, more["on_outcome"], outcome, returned)
        return self.jobs

    def cancel(self, number: int) -> None: ...


def view(version: str = "1") -> ModelView:
    card = Card("m", version, "", {}, {}, 8)
    seen = ModelView("m")
    seen.workers["w"] = (
        Announcement("w", "m", True, "", card, 1, 1, 0, 0, 0, True, 1.0, 1.0, 8),
        time.monotonic(),
    )
    return seen


class Gateway:
    def __init__(self, guard: Guard) -> None:
        self.runs, self.metrics = Runs(), GatewayMetrics()
        self.reuse = Reuse(
            {"m": 30.0}, self.runs, self.metrics, max_bytes=1 << 20, most=1000, shared=guard
        )  # type: ignore[arg-type]

    async def call(self, body: bytes, tenant: str = "default") -> tuple[bytes, bytes]:
        """The result and how it was come by."""
        done: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()

        def on_answer(outcome: Any, returned: Any, how: bytes = b"") -> None:
            done.set_result((outcome.body, how))

        self.reuse.start(
            view(), "r", body, deadline=time.time() + 5, form=Form.JSON, tenant=tenant,
            admit=lambda now: None, on_answer=on_answer,
        )  # fmt: skip
        return await done

    def forget(self) -> None:
        """As a gateway that has just started."""
        self.reuse._front = Lru(1 << 20)

    def count(self, how: str) -> int:
        return int(self.metrics.reuse.values.get(("m", how), 0))


async def settled(gateway: Gateway) -> None:
    await gateway.reuse._background.idle(5.0)


async def test_gateways_meet_in_the_cache(own: Redis) -> None:
    async with guarded(own.url) as (first, _), guarded(own.url) as (second, _):
        one, other = Gateway(first), Gateway(second)
        assert await one.call(b"x") == (b"[x]", b"")
        await settled(one)
        assert await other.call(b"x") == (b"[x]", b"hit")
        assert await other.call(b"x") == (b"[x]", b"hit")
        assert other.runs.jobs == 0
        assert (other.count("hit_shared"), other.count("hit_memory")) == (1, 1)
        assert await other.call(b"x", tenant="another") == (b"[x]", b"")


@pytest.mark.parametrize("poison", ["garbage", "cut", "another's", "empty", "older", "over"])
async def test_a_poisoned_value_is_a_miss(own: Redis, poison: str) -> None:
    mine, others = (Content("default", "m", Form.JSON, b).key("1") for b in (b"x", b"y"))
    sealed = seal(mine, Kept("1", b"[x]", time.time() + 30))
    value = {
        "garbage": secrets.token_bytes(200),
        "cut": sealed[:-3],
        "another's": seal(others, Kept("1", b"[y]", time.time() + 30)),
        "empty": b"",
        "older": b"HR0\0" + sealed[4:],
        "over": seal(mine, Kept("1", b"[old]", time.time() - 1)),
    }[poison]
    async with guarded(own.url) as (guard, _):
        gateway = Gateway(guard)
        await guard.put(mine, value, 30)
        assert await gateway.call(b"x") == (b"[x]", b"")
        unreadable = gateway.metrics.cache_errors.values.get(("unreadable",), 0)
        assert unreadable == (0 if poison == "over" else 1)
        await settled(gateway)
        gateway.forget()
        assert await gateway.call(b"x") == (b"[x]", b"hit"), "what was run has replaced it"


@pytest.mark.parametrize("fault", ["flushall", "kill", "stop"])
async def test_faults_under_load(own: Redis, fault: str) -> None:
    """Every call gets its own content's result, in time, whatever becomes of the server."""
    import redis.asyncio as client

    async with guarded(own.url, TIMEOUT_S) as (guard, _):
        gateway, over, worst, calls = Gateway(guard), asyncio.Event(), 0.0, 0

        async def caller(number: int) -> None:
            nonlocal worst, calls
            while not over.is_set():
                body = b"%d" % ((calls * 7 + number) % 40)
                began = time.monotonic()
                slept = asyncio.create_task(asyncio.sleep(TIMEOUT_S))
                result, _ = await gateway.call(body)
                took = time.monotonic() - began
                if took > TIMEOUT_S:
                    await slept
                    worst = max(worst, took - (time.monotonic() - began))
                slept.cancel()
                assert result == b"[%b]" % body
                calls += 1
                if calls % 10 == 0:
                    gateway.forget()
                await asyncio.sleep(0.001)

        callers = asyncio.gather(*(caller(number) for number in range(8)))
        async with asyncio.timeout(20):
            while gateway.count("hit_shared") < 10:
                await asyncio.sleep(0.01)
        if fault == "flushall":
            async with client.Redis.from_url(own.url) as admin:
                for _ in range(20):
                    await admin.flushall()
                    await asyncio.sleep(0.02)
        else:
            own.kill(signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
        before = calls
        async with asyncio.timeout(20):
            while calls < before + 200:
                await asyncio.sleep(0.01)
        over.set()
        await callers
        if fault == "stop":
            own.kill(signal.SIGCONT)
        assert worst < SLACK_S, f"{worst:.3f} s"
        assert gateway.count("miss") == gateway.runs.jobs
