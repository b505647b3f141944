"""One process of a service, in a folder of its own: start, kill, start again."""

from __future__ import annotations

import abc
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from headrace.lifecycle import die_with_parent
from headrace.testing.services.programs import ServiceError, as_user

# The kernel's parent is the thread that forked: one thread for all, which lives as long as we do.
_spawner = ThreadPoolExecutor(1, "headrace-services")


class Node(abc.ABC):
    """`folder/data` is what survives a restart, `folder/log` what the process printed."""

    START_S = 60.0
    GRACE_S = 20.0  # from `stop` to SIGKILL
    STOP = signal.SIGTERM
    ORPHANED = signal.SIGKILL  # what it gets when we are gone
    INHERITS_NOT: tuple[str, ...] = ()  # prefixes of variables that are not handed on

    def __init__(self, name: str, folder: Path, port: int, user: str = "") -> None:
        self.name, self.folder, self.port, self.user = name, folder, port, user
        self.data, self.log = folder / "data", folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def command(self) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        return {}

    def prepare(self) -> None:  # noqa: B027 - few need it
        """Before each start: what the command needs that is not there."""

    @abc.abstractmethod
    def answers(self) -> bool:
        """Does it serve? Asked again and again after the start."""

    def tidy(self) -> None:  # noqa: B027 - few need it
        """After each end: what it leaves outside its folder."""

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts it and waits until it answers. Raises ServiceError."""
        self.spawn()
        self.wait()

    def spawn(self) -> None:
        """Starts it. Does not wait."""
        if self.alive:
            return
        self.data.mkdir(parents=True, exist_ok=True)
        self.own(self.folder, self.data)
        self.prepare()
        with self.log.open("ab") as log:
            popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
            spawn = partial(
                popen,
                self.command(),
                env=self._inherited() | self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever started us
                preexec_fn=partial(die_with_parent, self.ORPHANED, os.getpid()),
                **as_user(self.user),
            )
            self.process = _spawner.submit(spawn).result()

    def wait(self) -> None:
        """Until it answers. Raises ServiceError where it ends first, or does not in `START_S`."""
        end = time.monotonic() + self.START_S
        while not self.answers():
            if not self.alive:
                raise ServiceError(f"{self.name} ended at its start\n{self.tail()}")
            if time.monotonic() > end:
                raise ServiceError(
                    f"{self.name} does not answer in {self.START_S:g} s\n{self.tail()}"
                )
            time.sleep(0.02)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """After SIGKILL, returns when it is gone and its children with it."""
        if self.process is None:
            return
        if self.process.poll() is None:
            os.kill(self.process.pid, how)
        if how is signal.SIGKILL:
            self._gone(self.GRACE_S)

    def stop(self, how: signal.Signals | None = None) -> None:
        """In order; by SIGKILL where it does not end in `GRACE_S`."""
        if self.process is None:
            return
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            os.kill(self.process.pid, how or self.STOP)
        self._gone(self.GRACE_S)

    def _gone(self, grace_s: float) -> None:
        """Waits for it and its children; SIGKILL for who is left after the grace. Reaps."""
        assert self.process is not None
        end = time.monotonic() + grace_s
        while (self.process.poll() is None) | bool(left := self.pids()):
            if time.monotonic() > end:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.tidy()

    def wipe(self) -> None:
        """Its data is gone, as after a lost disk. Only when it does not run."""
        assert not self.alive, f"{self.name} runs"
        shutil.rmtree(self.data, ignore_errors=True)

    # -- asking --------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def pids(self) -> list[int]:
        """Of it and its children: who works in its folder, zombies not counted."""
        inside = f"{self.folder}/"
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if f"{(entry / 'cwd').readlink()}/".startswith(inside):
                        found.append(int(entry.name))
        return sorted(found)

    def tail(self, size: int = 2000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    # -- for the kinds of nodes ------------------------------------------------------------------

    def own(self, *paths: Path) -> None:
        """Gives them to the user it runs as."""
        who = as_user(self.user)
        for path in paths if who else ():
            os.chown(path, who["user"], who["group"])

    def _inherited(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if not k.startswith(self.INHERITS_NOT)}

    def run(self, command: list[str]) -> str:
        """A tool beside it, as its user; what it printed. Raises ServiceError."""
        done = subprocess.run(
            command,
            env=self._inherited() | self.environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **as_user(self.user),
        )
        output: str = done.stdout.decode(errors="replace")
        if done.returncode:
            raise ServiceError(f"{self.name}: {Path(command[0]).name} failed\n{output[-2000:]}")
        return output
