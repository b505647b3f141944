"""One server under test: started, proven right, weighed, stopped with all that it started.

Every process that a server starts inherits a mark in its environment: that is how its memory is
summed and how nothing of it stays behind.
"""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from bench.lineup import HOME, HOST, PORT, Peer
from bench.workloads import Case, Workload

START_LIMIT_S = 90.0
STOP_LIMIT_S = 15.0
CALL_LIMIT_S = 30.0
POLL_S = 0.01
LOG_TAIL = 1500


class ServerFailed(Exception):
    """The server did not start, or answered wrong: it is not timed."""


class Server:
    """`with Server(peer, workload, python) as server:` holds it between first answer and stop."""

    first_answer_s: float

    def __init__(self, peer: Peer, workload: Workload, headrace_python: Path) -> None:
        self.peer, self.workload = peer, workload
        self.python = peer.python(headrace_python)
        self.mark = f"BENCH_MARK={uuid.uuid4().hex}"
        self.scratch = Path(tempfile.mkdtemp(prefix="hb-"))
        self.path = peer.path(workload.name)
        self.url = f"http://{HOST}:{PORT}{self.path}"
        self.process: subprocess.Popen[bytes] | None = None
        self.log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
            self.first_answer_s = self._wait_first_answer()
            self.check()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Each sampled input must get its own answer, or the server is not timed."""
        for case in self.workload.sample():
            status, got = self._call(case)
            if status != 200 or not self.workload.accepts(case, got):
                shown = f"{status}: {str(got)[:200]}, expected {str(case.answer)[:80]}"
                raise ServerFailed(f"{self.peer.name} answers {self.workload.name} with {shown}")

    def drain(self) -> None:
        """Wait out what an earlier load left in the queue: one more call, answered in its turn."""
        self._call(self.workload.cases[0])

    def pss_mb(self) -> float:
        """Resident memory of the whole process tree, shared pages counted once."""
        return sum(_pss_kb(pid) for pid in self.pids()) / 1024

    def pids(self) -> list[int]:
        return [int(p.name) for p in Path("/proc").glob("[0-9]*") if self._is_ours(p)]

    def stop(self) -> None:
        """SIGTERM to the server, then SIGKILL to whatever still carries the mark."""
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_LIMIT_S)
        until = time.monotonic() + STOP_LIMIT_S
        while (left := self.pids()) and time.monotonic() < until:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)  # a killed process holds its port until it is gone
        if self.process is not None:
            self.process.wait(STOP_LIMIT_S)
        if self.log is not None:
            self.log.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _start(self) -> None:
        _refuse_busy_port()
        self.log = (self.scratch / "log").open("wb")
        name, value = self.mark.split("=")
        path = [str(self.python.parent), os.environ.get("PATH", "")]
        env = {
            **os.environ,
            **{k: v.format(scratch=self.scratch) for k, v in self.peer.env.items()},
            name: value,
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(HOME),
            "TMPDIR": str(self.scratch),
            "BENTOML_HOME": str(self.scratch / "bentoml"),
            "BENCH_WORKLOAD": self.workload.name,
            "BENCH_PORT": str(PORT),
        }
        command = self.peer.command(self.python, self.workload.name)
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=self.scratch,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _wait_first_answer(self) -> float:
        case = self.workload.cases[0]
        seen: object = "nothing"
        while time.perf_counter() - self.began < START_LIMIT_S:
            if self.process is None or self.process.poll() is not None:
                raise ServerFailed(f"{self.peer.name} left while starting: {self._log_tail()}")
            try:
                status, got = self._call(case)
            except (OSError, http.client.HTTPException) as error:
                seen = repr(error)
            else:
                if status == 200 and self.workload.accepts(case, got):
                    return time.perf_counter() - self.began
                seen = f"{status} {got!r}"
            time.sleep(POLL_S)
        tail = self._log_tail()
        raise ServerFailed(f"{self.peer.name}: no right answer, last seen {seen}; log: {tail}")

    def _call(self, case: Case) -> tuple[int, Any]:
        wire = http.client.HTTPConnection(HOST, PORT, timeout=CALL_LIMIT_S)
        try:
            headers = {"Content-Type": self.workload.content_type}
            wire.request("POST", self.path, self.peer.body(case.value), headers)
            answer = wire.getresponse()
            body = answer.read()
        finally:
            wire.close()
        try:
            return answer.status, self.peer.read(body)
        except (ValueError, KeyError, TypeError):
            return answer.status, body.decode(errors="replace")

    def _log_tail(self) -> str:
        text = (self.scratch / "log").read_text(errors="replace")
        return text[-LOG_TAIL:].strip() or "(empty)"

    def _is_ours(self, process: Path) -> bool:
        try:
            return self.mark.encode() in (process / "environ").read_bytes().split(b"\0")
        except OSError:
            return False


def _pss_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _refuse_busy_port(patience_s: float = 15.0) -> None:
    """The peer before may still be letting go of it."""
    end = time.monotonic() + patience_s
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, PORT)) != 0:
                return
        if time.monotonic() > end:
            raise ServerFailed(f"something already listens on {HOST}:{PORT}")
        time.sleep(0.5)
