"""A slot: one model process, started, fed, watched, killed and started again.

    starting --Ready--> idle --run--> busy --Done--> idle
       |                 |             | stuck: SIGKILL
       |                 +----- gone --+
       +--Broken or gone: wait a little, start again

A process that dies or hangs takes its batch down; `isolate` finds out which job is to blame.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

import structlog

from headrace.errors import Problem
from headrace.worker.frames import Broken, Done, Ready, Run, Start, frame, read_to_worker
from headrace.worker.take import Held

log = structlog.get_logger("headrace.worker")

#: jobs, their outcomes (None: the process ended under them), how long it took
OnDone = Callable[[list[Held], "list[bytes | Problem] | None", float], None]

_CHILD = (sys.executable, "-m", "headrace.worker.child")
CRASH_WAIT_S = (0.0, 0.1, 0.5, 2.0, 5.0)  # before the next start, by failed starts in a row


class State(Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPED = "stopped"


class Slot(asyncio.Protocol):
    """One place for a model process. The process comes and goes, the slot stays."""

    def __init__(
        self,
        start: Start,
        *,
        load_limit_s: float,
        stuck_after_s: float,
        on_ready: Callable[[Slot], None],
        on_done: OnDone,
        on_gone: Callable[[str], None],
    ) -> None:
        self.start = start  # of the next process
        self._load_limit_s, self._stuck_after_s = load_limit_s, stuck_after_s
        self._on_ready, self._on_done, self._on_gone = on_ready, on_done, on_gone
        self.state = State.STARTING
        self.ready: Ready | None = None
        self.reason = "loading"
        self.runs = 0
        self.ending = False  # its batch is about to be done
        self._told = False  # the reason was given, by the process or by us, before it ended
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._batch: list[Held] = []
        self._ran_at = 0.0
        self._buffer = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._failed_starts = 0
        self._again: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        self._exit_fd = -1

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    # -- life of the process -------------------------------------------------------------------

    async def spawn(self) -> None:
        self._loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):  # a full batch of inline bodies should not block half-written
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        environment = os.environ | _device_environment(self.start.device)
        with theirs:
            self._process = subprocess.Popen(
                [*_CHILD, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                process_group=0,  # with the processes of its own that a model may start
            )
        self._gone.clear()
        self._told = False
        self._buffer.clear()
        ours.setblocking(False)
        transport, _ = await self._loop.create_connection(lambda: self, sock=ours)
        self._transport = transport
        transport.write(frame(self.start))
        self._arm(self._load_limit_s, "load")
        if hasattr(os, "pidfd_open"):  # Linux
            self._exit_fd = os.pidfd_open(self._process.pid)
            self._loop.add_reader(self._exit_fd, self._on_exit)

    def _on_exit(self) -> None:
        """Its socket may outlive it, in a process that it started. What it said is read first."""
        self._forget_exit()
        if self._transport:
            self._loop.call_later(0.1, self._transport.abort)

    def _forget_exit(self) -> None:
        if self._exit_fd >= 0:
            self._loop.remove_reader(self._exit_fd)
            os.close(self._exit_fd)
            self._exit_fd = -1

    def connection_lost(self, error: Exception | None) -> None:
        """The process is gone, or is about to be."""
        self._transport = None
        if self._timer:
            self._timer.cancel()
        batch, self._batch = self._batch, []
        was, stopped = self.state, self.state is State.STOPPED
        self._reap()
        self._gone.set()
        if stopped:
            if batch:
                self._on_done(batch, None, 0.0)
            return
        self.state = State.STARTING
        self.ending = False
        self._failed_starts = self._failed_starts + 1 if was is State.STARTING else 0
        if not self._told:
            while_loading = " while loading" if was is State.STARTING else ""
            self.reason = f"the model process ended{while_loading} ({self._ended_by()})"
        log.warning("model process gone", slot=self.start.slot, was=was.value, reason=self.reason)
        self._on_gone(was.value)
        if batch:
            self._on_done(batch, None, 0.0)
        wait_s = CRASH_WAIT_S[min(self._failed_starts, len(CRASH_WAIT_S) - 1)]
        self._again = self._loop.call_later(wait_s, self._spawn_again)

    def _spawn_again(self) -> None:
        if self.state is not State.STOPPED:
            self._spawning = asyncio.ensure_future(self._try_spawn())

    async def _try_spawn(self) -> None:
        try:
            await self.spawn()
        except OSError as error:  # no memory, no process, no file left: now
            log.error("model process not started", slot=self.start.slot, reason=str(error))
            self._again = self._loop.call_later(CRASH_WAIT_S[-1], self._spawn_again)

    def _reap(self) -> None:
        self._forget_exit()
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()  # it was sent SIGKILL: the wait is short

    def _ended_by(self) -> str:
        status = self._process.returncode if self._process else 0
        if status < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-status).name
        return f"exit status {status}"

    def _arm(self, limit_s: float, what: str) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(limit_s, self._kill_stuck, what, limit_s)

    def _kill_stuck(self, what: str, limit_s: float) -> None:
        self.reason, self._told = f"{what} took more than {limit_s:g} s", True
        log.error("model process stuck", slot=self.start.slot, pid=self.pid, reason=self.reason)
        if self._process:
            self._process.send_signal(signal.SIGKILL)

    async def stop(self) -> None:
        """Ends the process. A batch that runs is reported as gone."""
        self.state = State.STOPPED
        if self._again:
            self._again.cancel()
        if self._transport:
            self._transport.close()
            await self._gone.wait()

    # -- work ----------------------------------------------------------------------------------

    def run(self, batch: list[Held]) -> None:
        assert self._transport is not None
        self.state = State.BUSY
        self.runs += 1
        self.ending = False
        self._batch = batch
        self._ran_at = time.perf_counter()  # uvloop's clock has whole milliseconds
        self._transport.write(frame(Run([(held.job.form, held.body) for held in batch])))
        self._arm(self._stuck_after_s, "a batch")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4:
            size = struct.unpack_from("<I", self._buffer)[0]
            if len(self._buffer) < 4 + size:
                return
            message = read_to_worker(memoryview(self._buffer)[4 : 4 + size].tobytes())
            del self._buffer[: 4 + size]
            self._receive(message)

    def _receive(self, message: Any) -> None:
        if isinstance(message, Done):
            took_ms = (time.perf_counter() - self._ran_at) * 1000
            batch, self._batch = self._batch, []
            self._idle()
            self._on_done(batch, message.outcomes, took_ms)
        elif isinstance(message, Ready):
            self.ready, self.reason, self._failed_starts = message, "", 0
            self._idle()
            log.info("model process ready", slot=self.start.slot, pid=self.pid,
                     load_ms=round(message.load_ms), golden=message.golden)  # fmt: skip
            self._on_ready(self)
        elif isinstance(message, Broken):
            self.reason, self._told = message.reason, True

    def _idle(self) -> None:
        if self._timer:
            self._timer.cancel()
        self.state = State.IDLE
        self.ending = False


def _device_environment(device: str) -> dict[str, str]:
    """A process sees its own accelerator alone, as number 0."""
    kind, _, number = device.partition(":")
    if kind == "cuda" and number:
        return {"CUDA_VISIBLE_DEVICES": number}
    return {}
