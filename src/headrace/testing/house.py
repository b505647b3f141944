"""A whole house for tests: real processes, a real broker, faults, and proof that nothing is left.

    async with TestHouse(MODELS_PY, TOML, tmp_path) as house:
        [worker] = house.pids("worker")
        await house.kill(worker)
        await house.ready()

Every process of a house carries its name in the environment, by which it is found: children of
children and orphans, too. `RolesApart` is the same without `headrace.house`: each role is started
by the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from headrace.house import House, free_port, nats_command
from headrace.lifecycle import Stop
from headrace.settings import load
from headrace.telemetry import logs
from headrace.testing.load import Answer, get, post

NAME = "HEADRACE_HOUSE__NAME"
START_S = 30.0
LEAVE_S = 45.0


async def until(true: Callable[[], bool], wait_s: float, what: str) -> float:
    """Waits until it is true; gives how long that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < wait_s, f"not within {wait_s:g} s: {what}"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def patience() -> float:
    """What takes a second alone takes longer beside others: by as much as the cores are wanted."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Crowd:
    """How many wanted a core while the block lasted: `patience` of that time alone, not of the
    minute before it, as the load average is."""

    EVERY_S = 0.02

    def __init__(self) -> None:
        self._seen: list[int] = []

    async def _look(self) -> None:
        while True:
            running = _read("/proc/loadavg").split()[3].partition(b"/")[0]
            self._seen.append(int(running))  # with us, who stand for whoever has work to do
            await asyncio.sleep(self.EVERY_S)

    def patience(self) -> float:
        """1 where there was a core for everyone."""
        cores = os.cpu_count() or 1
        return max(1.0, sum(self._seen) / max(1, len(self._seen)) / cores)

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # ended meanwhile
        return b""


def alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    state = _read(f"/proc/{pid}/stat").rpartition(b") ")[2][:1]
    return state not in (b"", b"Z", b"X")


class _Processes:
    """The processes of one house name, found by their environment."""

    __test__ = False

    def __init__(self, models_py: str, toml: str, folder: Path) -> None:
        self.name = f"t{secrets.token_hex(5)}"
        self.folder = folder
        (folder / "models.py").write_text(textwrap.dedent(models_py))
        self.path = folder / "headrace.toml"
        self.path.write_text(textwrap.dedent(toml))
        self.log_path = folder / "house.log"
        self.port = free_port()
        self.environment = os.environ | {NAME: self.name}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def logged(self, event: str, reason: str = "") -> list[dict[str, Any]]:
        """The log's lines of one event; `reason`: a regular expression found in theirs."""
        found = []
        for line in self.log().splitlines():
            if line.startswith("{"):
                entry = json.loads(line)
                if entry.get("event") == event and re.search(reason, entry.get("reason", "")):
                    found.append(entry)
        return found

    def commands(self) -> dict[int, list[str]]:
        """Every living process of this house: pid -> command."""
        marker = f"{NAME}={self.name}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            if marker in _read(f"{entry}/environ").split(b"\0"):
                command = _read(f"{entry}/cmdline").decode(errors="replace").split("\0")
                found[int(entry.name)] = command
        return found

    def pids(self, role: str) -> list[int]:
        """`role`: gateway, worker, model, broker or house, in the order of their start."""
        signs = {
            "gateway": ("headrace.roles", "gateway"), "worker": ("headrace.roles", "worker"),
            "model": ("headrace.worker.child",), "house": ("headrace.testing.house",),
            "clerk": ("headrace.roles", "clerk"),
        }  # fmt: skip
        return sorted(
            pid
            for pid, command in self.commands().items()
            if (
                command[0].endswith("nats-server")
                if role == "broker"
                else all(sign in command for sign in signs[role])
            )
        )

    async def kill(self, pid: int, how: signal.Signals = signal.SIGKILL) -> None:
        """To one process of this house. After SIGKILL, waits until it is gone."""
        assert pid in self.commands(), f"{pid} is no process of this house"
        os.kill(pid, how)
        if how is signal.SIGKILL:
            await until(lambda: not alive(pid), 5.0, f"{pid} gone")

    # -- over HTTP -----------------------------------------------------------------------------

    async def get(self, path: str, port: int = 0) -> Answer:
        return await get(port or self.port, path)

    async def call(self, model: str, body: Any, port: int = 0, **headers: str) -> Answer:
        return await post(port or self.port, f"/models/{model}/predict", body, **headers)

    async def health(self, port: int = 0) -> Answer | None:
        """/health/ready, or None where nobody listens."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            return await self.get("/health/ready", port)
        return None

    async def ready(self, wait_s: float = START_S, port: int = 0, want: bool = True) -> float:
        """Waits until /health/ready says 200 (`want`), or anything else; gives how long."""
        began = time.monotonic()
        last: Answer | None = None
        while time.monotonic() - began < wait_s:
            last = await self.health(port)
            if (last is not None and last.status == 200) == want:
                return time.monotonic() - began
            await asyncio.sleep(0.02)
        raise AssertionError(f"ready = {not want} after {wait_s:g} s: {last}\n{self.tail()}")

    async def status(self, port: int = 0) -> dict[str, Any]:
        """/status's models by name."""
        return {view["name"]: view for view in (await self.get("/status", port)).json["models"]}

    async def metrics(self) -> Counter[str]:
        """The samples of this gateway and of every worker it knows, summed over processes:
        'headrace_worker_jobs_total{end="expired",model="m"}' -> value."""
        pages = [(await self.get("/metrics")).body]
        for view in (await self.status()).values():
            for worker in view["workers"]:
                port = int(worker["metrics_url"].split(":")[2].split("/")[0])
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    pages.append((await get(port, "/metrics")).body)
        samples: Counter[str] = Counter()
        for line in b"\n".join(pages).decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] += float(value)  # type: ignore[assignment]
        return samples

    async def total(self, metric: str, **labels: str) -> float:
        """The sum of one metric over processes and over the labels not named."""
        named = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            value
            for name, value in (await self.metrics()).items()
            if name.partition("{")[0] == metric and all(label in name for label in named)
        )

    # -- the end -------------------------------------------------------------------------------

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def residue(self) -> list[str]:
        """Processes and temporary files of this house that are still there."""
        left = [f"{pid}: {' '.join(command)}" for pid, command in self.commands().items()]
        return left + [str(path) for path in self._files()]

    def _files(self) -> list[Path]:
        places = (Path(tempfile.gettempdir()), Path("/dev/shm"))  # noqa: S108
        return [path for place in places for path in place.glob(f"headrace-*{self.name}*")]

    def _spawn(
        self, command: list[str], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                env=self.environment | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def _end_all(self) -> None:
        """After a failed test: nothing of it may disturb the next."""
        for _ in range(3):
            for pid in self.commands():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        for path in self._files():
            shutil.rmtree(path, ignore_errors=True)


class TestHouse(_Processes):
    """`headrace up` as a process of its own, on free ports, in the folder given."""

    def __init__(
        self,
        models_py: str,
        toml: str,
        folder: Path,
        *,
        wait_ready: bool = True,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(models_py, toml, folder)
        self.environment |= {"HEADRACE_GATEWAY__LISTEN": f"127.0.0.1:{self.port}"}
        self.environment |= environment or {}
        self._wait_ready = wait_ready
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.process = self._spawn([sys.executable, "-m", "headrace.testing.house", str(self.path)])
        try:
            if self._wait_ready:
                await self.ready()
            else:
                await self._listening()
        except BaseException:
            self._end_all()
            raise

    async def _listening(self) -> None:
        async with asyncio.timeout(START_S):
            while await self.health() is None:
                await asyncio.sleep(0.02)

    async def ended(self, wait_s: float = LEAVE_S) -> int:
        """Waits for the house's own process; its exit status."""
        process = self.process
        assert process is not None
        await until(lambda: process.poll() is not None, wait_s, f"house ended\n{self.tail()}")
        return int(process.returncode)

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Tells the house to stop; its exit status."""
        assert self.process is not None
        self.process.send_signal(how)
        return await self.ended()

    def leaves_nothing(self) -> None:
        assert self.residue() == [], f"left behind: {self.residue()}\n{self.tail()}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            if kind:
                print(self.tail())  # pytest shows it with the failure
                return
            if self.process and self.process.poll() is None:
                status = await self.stop()
                assert status == 0, f"exit status {status}\n{self.tail()}"
            self.leaves_nothing()
        finally:
            self._end_all()
            if self.process:
                self.process.wait()


class RolesApart(_Processes):
    """A broker and roles, each started on its own: two gateways, three workers, ..."""

    def __init__(self, models_py: str, toml: str, folder: Path) -> None:
        super().__init__(models_py, toml, folder)
        self.broker_port = free_port()
        self.objects = folder / "objects"
        self.environment |= {
            "HEADRACE_BROKER__URL": f"nats://127.0.0.1:{self.broker_port}",
            "HEADRACE_OBJECTS__TRANSIT": f"file://{self.objects}",
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def _start(
        self, command: list[str], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        process = self._spawn(command, environment)
        self.started.append(process)
        return process

    def broker(self) -> subprocess.Popen[bytes]:
        return self._start(nats_command(self.broker_port, str(self.folder)))

    def gateway(self, port: int = 0, **environment: str) -> subprocess.Popen[bytes]:
        listen = {"HEADRACE_GATEWAY__LISTEN": f"127.0.0.1:{port or self.port}"}
        command = [sys.executable, "-m", "headrace.roles", "gateway", str(self.path)]
        return self._start(command, listen | environment)

    def worker(self, model: str, failpoints: str = "") -> subprocess.Popen[bytes]:
        """`failpoints`: for this worker and its model processes alone."""
        command = [sys.executable, "-m", "headrace.roles", "worker", str(self.path), model]
        return self._start(command, {"HEADRACE_FAILPOINTS": failpoints})

    async def workers_ready(self, model: str, count: int, wait_s: float = START_S) -> None:
        began = time.monotonic()
        workers: list[dict[str, Any]] = []
        while time.monotonic() - began < wait_s:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                workers = (await self.status())[model]["workers"]
                if sum(worker["ready"] for worker in workers) == count:
                    return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{count} workers not ready: {workers}\n{self.tail()}")

    async def __aenter__(self) -> Self:
        self.broker()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            if kind:
                print(self.tail())  # pytest shows it with the failure
                return
            # As the house does: gateways, workers, broker.
            for role in ("gateway", "worker", "broker"):
                pids = self.pids(role)
                for pid in pids:
                    os.kill(pid, signal.SIGTERM)
                for pid in pids:
                    await until(lambda pid=pid: not alive(pid), LEAVE_S, f"{role} left")  # type: ignore[misc]
            assert self.residue() == [], f"left behind: {self.residue()}"
        finally:
            self._end_all()
            for process in self.started:
                process.wait()


async def _up(path: str) -> None:
    house, stop = House(load(path), path), Stop()
    house.open()
    await stop.wait()
    await house.close(hurry=lambda: stop.hurry)


if __name__ == "__main__":
    logs.set_up("house")
    asyncio.run(_up(sys.argv[1]))
