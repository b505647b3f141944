"""Rows of the fault matrix on real processes: each fault shows that it acted, what a client sees of
it is what was promised, and the checker judges the run."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headrace.house import free_port
from headrace.testing.faultproxy import BlackHole
from headrace.testing.house import Crowd, RolesApart, alive
from headrace.testing.load import get, post
from headrace.testing.services import Postgres

from .books import books_of
from .checker import TERMINAL, Accounts, Verdict, check, quantile
from .ledger import Event, Ledger, read_ledger
from .load import JobLoad
from .models import RUNS, WORK_MS, read_runs
from .models import __file__ as models_file
from .nemesis import becomes, children, kill, pause, resume
from .play import Play
from .scene import BROKERS, Scene

PUBLISHED_AGAIN = "all that waits is published again"
SMALL = {"gateways": 1, "workers": 2, "clerks": 1}


class Stream:
    """Numbers without end, until it is told."""

    def __init__(self) -> None:
        self.over = False
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[int]:
        return itertools.takewhile(lambda _: not self.over, self._numbers)


@contextlib.asynccontextmanager
async def under_load(play: Play, **how: Any) -> AsyncIterator[JobLoad]:
    """Jobs come while the block lasts; each is accepted in the end."""
    numbers = Stream()
    load = play.load(numbers, **({"rate": 100.0, "connections": 16} | how))
    submitting = asyncio.create_task(load.submit_all())
    try:
        assert await becomes(lambda: play.scene.runs_begun() > 20, 30.0, 0.02), "no job was run"
        yield load
        numbers.over = True
        await submitting
    finally:
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)
    assert not load.given_up, load.given_up[:5]


def between(play: Play, begin: float, end: float, event: str) -> list[Event]:
    """Calls that began and ended in that time."""
    events = [each for each in play.events() if each.event == event]
    return [each for each in events if begin < each.since and each.at < end]


async def accepted_since(play: Play, since: float, within_s: float) -> bool:
    """Was a call that began after that time answered with 202?"""

    def there() -> bool:
        return any(each.event == "acked" and each.since > since for each in play.events())

    return await becomes(there, within_s, 0.2)


async def ended(port: int, job: str, within_s: float = 15.0) -> str:
    """The state that it comes to."""
    end = time.monotonic() + within_s
    while True:
        state = str((await get(port, f"/jobs/{job}")).json["state"])
        if state in TERMINAL or time.monotonic() > end:
            return state
        await asyncio.sleep(0.05)


# -- F2: a worker that is stopped ------------------------------------------------------------------


async def paused_at_work(play: Play) -> tuple[int, str]:
    """A worker whose batch began less than half of its time ago, and the proof that it stopped."""
    found: list[int] = []

    def there() -> bool:
        found[:] = filter(None, [play.scene.at_work("worker")])
        return bool(found)

    while True:
        assert await becomes(there, 10.0)
        proof = await pause(found[0])
        if play.scene.at_work("worker") == found[0]:
            return found[0], proof
        await resume(found[0])


async def test_f2_a_stopped_worker_comes_back(tmp_path: Path) -> None:
    """Others have its jobs when the lease is over; what it says when it goes on is refused. On
    PostgreSQL: on SQLite one that is stopped in the middle of a commit stops all others' too."""
    scene = {"database": "postgresql", "work_ms": 200.0, **SMALL}
    async with Play(tmp_path, **scene) as play, under_load(play, rate=25.0):
        house = play.scene.house
        worker, proof = await paused_at_work(play)
        play.fault("pause worker", proof, worker, *children(worker))
        await asyncio.sleep(6.0)
        play.lifted("pause worker", await resume(worker), worker)
        assert await becomes(lambda: bool(house.logged("ending refused")), 5.0, 0.05)
    assert play.verdict.good, play.verdict.told()
    assert 0 < max(play.verdict.requeue_s, default=0) <= 5.0, play.verdict.requeue_s


# -- F5: a gateway that dies on the way ------------------------------------------------------------


class Apart(RolesApart):
    """Roles on their own, with the model of the fault runs; `end` stops the clerks."""

    TOML = '[clerk]\n[jobs]\nbackoff_s = 0.2\n[models.prove]\nclass = "models:Prove"\n'

    def __init__(self, folder: Path, database: str = "", work_ms: float = 2.0) -> None:
        super().__init__(Path(models_file).read_text(), self.TOML, folder)
        self.runs = folder / "runs"
        self.database = database or f"sqlite:///{folder}/jobs.db"
        self.books = books_of(self.database)
        self.environment |= {
            RUNS: str(self.runs),
            WORK_MS: f"{work_ms:g}",
            "HEADRACE_DATABASE__URL": self.database,
        }

    def role(self, name: str, *more: str, **environment: str) -> int:
        command = [sys.executable, "-m", "headrace.roles", name, str(self.path), *more]
        return self._start(command, environment).pid

    async def __aexit__(self, kind: object, *rest: object) -> None:
        for pid in self.pids("clerk"):
            os.kill(pid, signal.SIGTERM)
            await becomes(lambda pid=pid: not alive(pid), 20.0)  # type: ignore[misc]
        await super().__aexit__(kind, *rest)


POINTS = {"gateway.submitting": 0, "gateway.submitted": 1, "gateway.published": 1}


async def test_f5_a_gateway_dies_at_each_point(tmp_path: Path) -> None:
    """The same key at another gateway is the same job, which is there or not as the point says."""
    async with Apart(tmp_path) as house:
        house.role("clerk")
        house.gateway()
        house.role("worker", "prove")
        await house.workers_ready("prove", 1)
        for number, (point, committed) in enumerate(POINTS.items(), 1):
            port, key = free_port(), f"r.{number}"
            doomed = house.gateway(port, HEADRACE_FAILPOINTS=f"{point}=kill@1")
            await house.ready(port=port)
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await post(port, "/models/prove/jobs", number, idempotency_key=key)
            assert await asyncio.to_thread(doomed.wait, 5) == -signal.SIGKILL
            there = [row.id for row in await house.books.rows() if row.key == key]
            assert len(there) == committed, point
            answers = [
                await post(house.port, "/models/prove/jobs", number, idempotency_key=key)
                for _ in range(2)
            ]
            [job] = {answer.json["id"] for answer in answers}
            assert {answer.status for answer in answers} <= {200, 202}
            assert there in ([], [job])
            assert await ended(house.port, job) == "succeeded", point
        assert len(await house.books.rows()) == len(POINTS)


# -- F6: a broker that comes back empty ------------------------------------------------------------


async def something_waits(play: Play) -> None:
    """More jobs than workers hold: the broker has them."""
    end = time.monotonic() + 15.0
    while sum(row.state == "waiting" for row in await play.scene.books.rows()) < 10:
        assert time.monotonic() < end, "nothing waits"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("broker", BROKERS)
async def test_f6_a_broker_comes_back_empty(broker: str, tmp_path: Path) -> None:
    """202 goes on meanwhile; all that waited is published again within 10 s."""
    async with Play(tmp_path, broker=broker, **SMALL, work_ms=20.0) as play:
        async with under_load(play, rate=60.0):
            [pid, *_] = play.scene.pids("broker")
            kin = [one for worker in play.scene.pids("worker") for one in children(worker)]
            for model in kin:
                await pause(model)
            await something_waits(play)
            play.fault("kill broker", await kill(pid), pid)
            down = time.monotonic()
            for model in kin:
                os.kill(model, signal.SIGCONT)
            if play.scene.broker:
                await asyncio.to_thread(play.scene.broker.kill)
                await asyncio.sleep(3.0)
                play.scene.broker.wipe()
                await asyncio.to_thread(play.scene.broker.start)
                accepted = between(play, down, time.monotonic(), "acked")
                assert len(accepted) > 60, "no submits while the broker was away"
            else:  # its streams are in memory: who is killed comes back empty
                assert await becomes(lambda: bool(play.scene.pids("broker")), 10.0)
            again = play.scene.house.logged
            assert await becomes(lambda: bool(again(PUBLISHED_AGAIN)), 15.0, 0.05)
            await asyncio.sleep(1.0)
        await play.quiet()
        assert play.quiet_s <= 10.0
    assert play.verdict.good, play.verdict.told()


# -- F9: a database that is away -------------------------------------------------------------------


@contextlib.asynccontextmanager
async def stopped(play: Play) -> AsyncIterator[None]:
    """`pg_ctl stop -m immediate`, as after a crash."""
    assert play.scene.database
    await asyncio.to_thread(play.scene.database.stop, immediate=True)
    play.fault("stop database", "gone" if not play.scene.database.pids() else "")
    yield
    await asyncio.to_thread(play.scene.database.start)


@contextlib.asynccontextmanager
async def black_hole(play: Play) -> AsyncIterator[None]:
    """Nothing comes back from it, and nobody is told."""
    assert play.scene.proxy
    with play.scene.proxy.toxic(BlackHole(), "back") as hole:
        yield
    play.fault("cut database", f"{hole.acts['bytes_dropped']} bytes dropped")


OUTAGE_S = 6.0
TIMEOUT_S = 2.0  # `database.timeout_s`: the first calls wait for it, then the circuit is open
PROBES_A_SECOND = 4


@pytest.mark.parametrize("away", [stopped, black_hole])
async def test_f9_a_database_that_is_away(
    away: Callable[[Play], contextlib.AbstractAsyncContextManager[None]], tmp_path: Path
) -> None:
    async with Play(tmp_path, database="postgresql", proxied=True, **SMALL) as play:
        proxy = play.scene.proxy
        assert proxy
        async with under_load(play, rate=60.0), Crowd() as crowd:
            async with away(play):
                down = time.monotonic()
                await asyncio.sleep(TIMEOUT_S + 0.5)
                links, asked = proxy.acts["links"], time.monotonic()
                await asyncio.sleep(OUTAGE_S - TIMEOUT_S - 0.5)
                links = proxy.acts["links"] - links
                up = time.monotonic()
            assert await accepted_since(play, up, 15.0)
        assert between(play, down, up, "acked") == [], "202 while nothing can be committed"
        refused = between(play, asked, up, "refused")
        took_s = [event.took_s for event in refused if event.code == "storage-unavailable"]
        print(f"refused in p50 {quantile(took_s, 0.5) * 1e3:.1f} p99 "
              f"{quantile(took_s, 0.99) * 1e3:.1f} ms, {links} connections")  # fmt: skip
        assert len(took_s) > 50 and all(event.retry_after for event in refused)
        assert quantile(took_s, 0.5) <= 0.05  # a machine with two cores is not always free
        back = [event.at for event in play.events() if event.event == "acked" and event.since > up]
        print(f"accepted again after {min(back) - up:.1f} s")
        assert min(back) - up <= 5.0 * crowd.patience()
        # Refusals do not multiply: whoever asks is refused here, and each process looks four times
        # a second whether the database is back.
        processes = 1 + 2 + 1
        assert links <= (up - asked + 1) * PROBES_A_SECOND * processes
    assert play.verdict.good, play.verdict.told()


# -- F10: objects that are away --------------------------------------------------------------------


CUT_S = 8.0  # four leases


async def away(play: Play) -> None:
    assert play.scene.proxy
    await play.scene.proxy.down()
    play.fault("cut objects", f"{play.scene.proxy.acts['downs']} down")
    await asyncio.sleep(CUT_S)
    await play.scene.proxy.up()


async def hole(play: Play) -> None:
    assert play.scene.proxy
    with play.scene.proxy.toxic(BlackHole(), "forth") as eaten:
        await asyncio.sleep(CUT_S)
    play.fault("cut objects", f"{eaten.acts['bytes_dropped']} bytes dropped")


@pytest.mark.parametrize("cut", [away, hole])
async def test_f10_objects_that_are_away(
    cut: Callable[[Play], Awaitable[None]], tmp_path: Path
) -> None:
    """Every input and result is an object. What is known of a job is told all the same, and
    nobody's lease runs out over it."""
    five = {"HEADRACE_JOBS__MAX_ATTEMPTS": "5"}
    async with Play(tmp_path, stored=True, proxied=True, environment=five, **SMALL) as play:
        async with under_load(play, rate=40.0, deadline_s=20.0, follow=0) as load:
            job = next(iter(load.acked.values()))
            assert await ended(play.scene.port, job) == "succeeded"
            down = time.monotonic()
            cutting = asyncio.create_task(cut(play))
            await asyncio.sleep(0.2)
            answer, result = await asyncio.gather(
                get(play.scene.port, f"/jobs/{job}"), get(play.scene.port, f"/jobs/{job}/result")
            )
            print(f"told after {time.monotonic() - down:.1f} s")
            assert answer.status == 200 and answer.json["state"] == "succeeded"
            assert answer.json.get("result") is None
            assert answer.headers["headrace-result"] == "artifact-unavailable"
            assert (result.status, result.code) == (503, "artifact-unavailable")
            await cutting
            up = time.monotonic()
            await asyncio.sleep(1.0)
        assert between(play, down + 0.2, up, "acked") == []
        refused = between(play, down, up + 15.0, "refused")
        assert {event.code for event in refused} == {"storage-unavailable"}
        assert "lease lost" not in play.scene.house.log()
    assert play.verdict.good, play.verdict.told()


# -- F12: clocks -----------------------------------------------------------------------------------

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
MONOTONIC = {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
DAY_S = 86_400


async def test_f12_workers_of_other_days(tmp_path: Path) -> None:
    """One a day ahead, one a day behind: leases and ends are of the database's clock."""
    with Postgres() as postgres:
        async with Apart(tmp_path, postgres.url, work_ms=50.0) as house:
            house.role("clerk")
            house.gateway()
            skewed = {
                days: house.role(
                    "worker", "prove", LD_PRELOAD=FAKETIME, FAKETIME=f"{days:+d}d", **MONOTONIC
                )
                for days in (1, -1)
            }
            await house.workers_ready("prove", 2)
            with Ledger(tmp_path / "ledger.jsonl") as ledger:
                load = JobLoad([house.port], ledger, range(1, 301), rate=100.0, job_deadline_s=60.0)
                await load.submit_all()
                while await house.books.open():
                    await asyncio.sleep(0.1)
                seen = await load.look_at(load.acked.values())
            runs, rows = read_runs(house.runs), await house.books.rows()
            assert {run.worker for run in runs} == set(skewed.values()), "one did nothing"
            today = datetime.now(UTC).timestamp()
            ready = [
                datetime.fromisoformat(line["timestamp"]).timestamp() - today
                for line in house.logged("model process ready")
            ]
            assert sorted(round(ahead / DAY_S) for ahead in ready) == [-1, 1]
            verdict = check(Accounts(read_ledger(ledger.path), runs, rows, seen))
    assert verdict.good, verdict.told()
    assert verdict.counts["accepted"] == 300


# -- F13: a disk that is full ----------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    os_mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    assert os.spawnvp(os.P_WAIT, "mount", os_mount) == 0
    try:
        yield folder
    finally:
        assert os.spawnvp(os.P_WAIT, "umount", ["umount", "-l", str(folder)]) == 0


def fill(path: Path) -> str:
    """To the last byte."""
    filler = os.open(path, os.O_WRONLY | os.O_CREAT)
    written = 0
    try:
        while True:
            written += os.write(filler, b"\0" * 4096)
    except OSError as error:
        return f"{written} bytes, then {error.strerror}"
    finally:
        os.close(filler)


async def test_f13_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        async with Play(tmp_path, database_folder=disk, **SMALL) as play:
            async with under_load(play), Crowd() as crowd:
                play.fault("fill disk", fill(disk / "filler"))
                full = time.monotonic()
                await asyncio.sleep(4.0)
                (disk / "filler").unlink()
                free = time.monotonic()
                assert await accepted_since(play, free, 15.0)
            refused = between(play, full, free, "refused")
            codes = {event.code for event in refused}
            assert "insufficient-storage" in codes, codes
            assert codes <= {"insufficient-storage", "storage-unavailable"}
            acked = [e.at for e in play.events() if e.event == "acked" and e.since > free]
            assert min(acked) - free <= 5.0 * crowd.patience()
        assert play.verdict.good, play.verdict.told()


# -- F14: slow clients -----------------------------------------------------------------------------

SLOW = 1000
HEAD = b"POST /models/prove/jobs HTTP/1.1\r\nHost: x\r\n"


async def drip(port: int, number: int) -> None:
    """A byte a second of a head or of a body; some ask for megabytes and read none of them."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if number % 100 == 0:
            writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
            await asyncio.Event().wait()
        rest = HEAD if number % 2 else b"1" * 600
        if rest is not HEAD:
            writer.write(HEAD + b"Content-Length: 600\r\n\r\n")
        for place in range(len(rest)):
            if writer.is_closing():
                return  # it lost its patience with us, as it should
            writer.write(rest[place : place + 1])
            await asyncio.sleep(random.uniform(0.8, 1.2))
    finally:
        writer.transport.abort()


async def test_f14_a_thousand_slow_clients(tmp_path: Path) -> None:
    async with Play(tmp_path, **SMALL) as play:
        async with under_load(play, rate=60.0):
            began = time.monotonic()
            await asyncio.sleep(5.0)
            slow_from = time.monotonic()
            slow = [asyncio.create_task(drip(play.scene.port, n)) for n in range(SLOW)]
            [gateway] = play.scene.pids("gateway")
            fds = Path(f"/proc/{gateway}/fd")
            assert await becomes(lambda: len(list(fds.iterdir())) > SLOW, 20.0, 0.1)
            slow_all = time.monotonic()
            play.fault("slow clients", f"{len(list(fds.iterdir()))} open files")
            async with Crowd() as crowd:
                await asyncio.sleep(5.0)
            end = time.monotonic()
            # Heads that take longer than 10 s are not waited for.
            assert await becomes(lambda: len(list(fds.iterdir())) < SLOW, 15.0, 0.1)
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
        before = [event.took_s for event in between(play, began, slow_from, "acked")]
        during = [event.took_s for event in between(play, slow_all, end, "acked")]
        shown = [f"{quantile(each, 0.5) * 1e3:.1f}" for each in (before, during)]
        print("accepted in p50 (ms) before, during:", *shown)
        assert len(during) > 0.5 * len(before) / crowd.patience()
        # The clients themselves take much of two cores: what is seen here is that nobody starves.
        most = (2 * quantile(before, 0.5) + 0.02) * crowd.patience()
        assert quantile(during, 0.5) <= most, shown
    assert play.verdict.good, play.verdict.told()


# -- F15: deliveries that come twice ---------------------------------------------------------------


async def test_f15_each_message_five_times(tmp_path: Path) -> None:
    """At once, to whoever pulls, and again 3 s later: one run and one result."""
    async with Play(tmp_path, bug="deliver-again", **SMALL) as play:
        async with under_load(play):
            await asyncio.sleep(5.0)
        play.fault("deliver again", ", ".join(play.scene.acted()))
    assert play.verdict.good, play.verdict.told()
    assert play.verdict.counts["repeats"] == 0


# -- F22: more jobs than can be done ---------------------------------------------------------------


async def test_f22_a_flood_of_jobs_leaves_calls_answered(tmp_path: Path) -> None:
    """Bulk jobs come faster than they are done; who calls meanwhile is answered."""
    async with Play(tmp_path, **SMALL, work_ms=50.0) as play:
        flood = {"rate": 2000.0, "connections": 32, "follow": 0}
        took_s: list[float] = []
        async with under_load(play, **flood, headers={"headrace-priority": "bulk"}) as load:
            for number in range(10**6, 10**6 + 60):
                since = time.monotonic()
                answer = await play.scene.house.call("prove", number * 50)
                took_s.append(time.monotonic() - since)
                assert answer.status == 200, answer.body
                await asyncio.sleep(0.1)
            waiting = await play.scene.books.open()
            play.fault("flood", f"{waiting} jobs wait, {len(load.acked)} accepted")
            assert waiting > 500
        print(f"{waiting} waited; calls p50 {quantile(took_s, 0.5):.3f} max {max(took_s):.3f} s")
        assert quantile(took_s, 0.5) <= 0.5 and max(took_s) <= 5.0
    verdict = play.verdict
    # The calls beside them are no jobs: their runs are all that the checker may wonder about.
    assert all("nobody attempted it" in told for told in verdict.broken.pop("unexpected", []))
    assert verdict.good, verdict.told()


# -- F26: everything at once -----------------------------------------------------------------------


async def kill_all(scene: Scene) -> list[int]:
    struck: list[int] = []
    while found := list(scene.house.commands()):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        struck += found
        await asyncio.sleep(0.01)
    assert scene.house.process
    scene.house.process.wait()
    return struck


async def test_f26_everything_is_killed_at_once(tmp_path: Path) -> None:
    whole = {"gateways": 2, "workers": 3, "clerks": 2}
    async with Play(tmp_path, **whole) as play, under_load(play):
        for _ in range(3):
            struck = await kill_all(play.scene)
            assert len(set(struck)) >= 1 + 1 + 2 + 3 + 2
            play.fault("kill everything", "gone", *struck)
            await play.scene.house.start()
            await asyncio.sleep(1.5)
    verdict: Verdict = play.verdict
    assert verdict.good, verdict.told()
    assert verdict.counts["unknown"] + verdict.counts["refused"] > 0


@pytest.mark.parametrize("bug", ["", "no-sync"])
async def test_f26_the_disk_has_it_before_the_client(bug: str, tmp_path: Path) -> None:
    """What a power cut would take: between a job's write into the database's log and its 202 the
    log is synced, say the gateway's system calls."""
    trace = tmp_path / "trace"
    async with Scene(tmp_path, bug=bug, gateways=1, workers=1, clerks=1) as scene:
        await post(scene.port, "/models/prove/jobs", 1, idempotency_key="r.1")
        [gateway] = scene.pids("gateway")
        calls = "trace=pwrite64,fdatasync,fsync,write,sendto,sendmsg,writev"
        command = ["-f", "-y", "-s", "64", "-e", calls, "-o", str(trace), "-p", str(gateway)]
        tracer = await asyncio.create_subprocess_exec("strace", *command, stderr=-3)
        assert await becomes(lambda: tracer_of(gateway) == tracer.pid, 10.0)
        answer = await post(scene.port, "/models/prove/jobs", 2, idempotency_key="r.2")
        assert answer.status == 202
        tracer.send_signal(signal.SIGINT)
        await tracer.wait()
    lines = trace.read_text().splitlines()
    [told] = [n for n, line in enumerate(lines) if "HTTP/1.1 202" in line]
    written = max(n for n in range(told) if "pwrite64" in lines[n] and "jobs.db-wal" in lines[n])
    synced = [n for n in range(written, told) if "sync(" in lines[n] and "jobs.db-wal" in lines[n]]
    assert bool(synced) == (not bug), "\n".join(lines[max(0, written - 2) : told + 1])


def tracer_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("TracerPid:")[2].split()[0])
