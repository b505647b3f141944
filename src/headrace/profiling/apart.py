"""A house apart: broker and gateway of our own, and workers of one model that come and go.

Nobody else's calls come here, and nothing of it reaches the house that serves: another name, free
ports, a state of its own, no shared cache, no webhooks. The settings file is the user's; what must
differ stands in the environment of the roles.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Self

from headrace.client import AsyncClient, CallError, CallRefused, ModelStatus
from headrace.client.answers import WorkerStatus
from headrace.house import GRACE_S, MEMORY, NATS_ENVIRONMENT, free_port, nats_command, sweep
from headrace.lifecycle import die_with_parent, end
from headrace.settings import Settings, SettingsError

NAME = "profile"
POLL_S = 0.02
LOADING = "loading"


class NotServed(Exception):
    """The house apart does not answer: the message says why."""


def known(settings: Settings, model: str) -> None:
    """Raises SettingsError for a model that cannot be profiled."""
    if model not in settings.models:
        names = ", ".join(settings.models) or "none: the settings have no [models.NAME]"
        raise SettingsError(f"model {model}: expected one of {names}")
    if "__" in model:  # it could not be told from a section in the environment
        raise SettingsError(f"model {model}: a name with __ cannot be profiled")


class Apart:
    def __init__(self, settings: Settings, path: str, model: str) -> None:
        """`path`: the settings file. Raises SettingsError where the model is not in it."""
        known(settings, model)
        self.settings, self._path, self.model = settings, str(Path(path).resolve()), model
        self._roles: list[subprocess.Popen[bytes]] = []
        self._worker: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        sweep(NAME)
        # With our pid: a later one sees whether we still live, and removes what SIGKILL left.
        self.folder = Path(tempfile.mkdtemp(prefix=f"headrace-{NAME}-{os.getpid()}-"))
        memory = MEMORY if MEMORY.is_dir() else self.folder
        self._transit = memory / f"{self.folder.name}" / "transit"
        self.port, broker = free_port(), free_port()
        try:
            command = nats_command(broker, str(self.folder))
            self._environment = self._otherwise(f"nats://127.0.0.1:{broker}")
            self._roles.append(self._start(command, NATS_ENVIRONMENT))
            self._roles.append(self._start_role("gateway"))
            self.client = AsyncClient(f"http://127.0.0.1:{self.port}", deadline_s=30.0, retries=0)
            await self._answers()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if hasattr(self, "client"):
            await self.client.close()
        for role in (self._worker, *reversed(self._roles)):
            if role:
                await end(role, GRACE_S)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self._transit.parent, ignore_errors=True)

    def _otherwise(self, broker: str) -> dict[str, str]:
        """What differs from the user's settings."""
        return {
            "HEADRACE_HOUSE__NAME": NAME,
            "HEADRACE_HOUSE__STATE": str(self.folder / "state"),
            "HEADRACE_GATEWAY__LISTEN": f"127.0.0.1:{self.port}",
            "HEADRACE_GATEWAY__GRPC": "",
            "HEADRACE_GATEWAY__TENANT_HEADER": "",
            "HEADRACE_BROKER__URL": broker,
            "HEADRACE_DATABASE__URL": "",
            "HEADRACE_OBJECTS__URL": "",
            "HEADRACE_OBJECTS__FALLBACK": "",
            "HEADRACE_OBJECTS__KEYS": "",
            "HEADRACE_OBJECTS__TRANSIT": f"file://{self._transit}",
            "HEADRACE_CACHE__URL": "",
            "HEADRACE_AUTOSCALE__MODE": "off",
            "HEADRACE_CONTROL__LISTEN": "",
            "HEADRACE_TELEMETRY__LOG_LEVEL": "warning",
            self._key("cache_ttl_s"): "0",  # each call is to be run
        }

    def _key(self, setting: str) -> str:
        return f"HEADRACE_MODELS__{self.model.upper()}__{setting.upper()}"

    # -- processes -----------------------------------------------------------------------------

    def _start(self, command: list[str], more: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=os.environ | self._environment | more,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C comes to us, who stop them in order
                preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),  # noqa: PLW1509
            )

    def _start_role(self, *role: str, **more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "headrace.roles", role[0], self._path, *role[1:]]
        return self._start(command, more)

    async def _answers(self) -> None:
        """Waits for the gateway."""
        while True:
            with contextlib.suppress(CallError):
                await self.client.ready()
                return
            self._all_alive()
            await asyncio.sleep(POLL_S)

    def _all_alive(self) -> None:
        if any(role.poll() is not None for role in self._roles):
            raise NotServed(f"broker or gateway ended:\n{self._said()}")
        if self._worker and self._worker.poll() is not None:
            raise NotServed(f"the worker ended:\n{self._said()}")

    def _said(self) -> str:
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-10:])

    # -- the worker ----------------------------------------------------------------------------

    async def serve(self, slots: int, max_size: int, given: object) -> float:
        """Ends the worker that runs and starts another one; the seconds until all its slots are
        ready and it has answered. `max_size` 0: the model's own. Raises NotServed, CallRefused."""
        if self._worker:
            await end(self._worker, GRACE_S)
        more = {self._key("slots"): str(slots)}
        if max_size:
            more[self._key("max_size")] = str(max_size)
        limit_s = self.settings.models[self.model].load_limit_s
        began = time.monotonic()
        self._worker = self._start_role("worker", self.model, **more)
        while time.monotonic() - began < limit_s:
            self._all_alive()
            worker = await self._worker_status()
            if worker and worker.slots_ready == slots:
                await self.client.predict(self.model, given, deadline_s=limit_s)
                return time.monotonic() - began
            if worker and worker.reason not in ("", LOADING):
                raise NotServed(f"{self.model} is not ready: {worker.reason}")
            await asyncio.sleep(POLL_S)
        raise NotServed(f"{self.model}: {slots} model processes not ready after {limit_s:g} s")

    async def _worker_status(self) -> WorkerStatus | None:
        """Of the worker that was started last, once the gateway has heard of it."""
        with contextlib.suppress(CallError, CallRefused):
            for worker in (await self.status()).workers:
                if f"-{self.pid}-" in worker.worker:
                    return worker
        return None

    @property
    def pid(self) -> int:
        """Of the worker."""
        return self._worker.pid if self._worker else 0

    async def status(self) -> ModelStatus:
        """Raises CallError."""
        models = (await self.client.status()).models
        return next(found for found in models if found.name == self.model)  # the settings name it
