"""The client's ledger: one line an event, written by a process of its own.

    client, nemesis --pipe--> writer: O_APPEND, fsync --> ledger.jsonl

What is in the pipe outlives whoever put it there: the writer reads to its end, ignores signals that
can be ignored, and syncs what it wrote before it reads on. A line is written whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import msgspec

PIPE_BYTES = 1 << 20  # one slow fsync does not hold the client up


class Event(msgspec.Struct, omit_defaults=True):
    """`at` and `since` (when the request went out) are time.monotonic().

    attempt   a submit goes out: key
    acked     202: key, id
    refused   a problem: key or id, status, code, retry_after
    unknown   no answer, as `code` says: key or id; whether it took effect nobody knows
    seen      GET says that it is not over: id, state, attempt
    ok        GET says that it is over: id, state, attempt, version, result or code
    probe     /health/ready was asked: status
    fault     the nemesis acted: what, pids, proof
    lifted    ... and let go: what, pids, proof
    """

    event: str
    at: float
    since: float = 0.0
    key: str = ""
    id: str = ""
    status: int = 0
    code: str = ""
    retry_after: bool = False
    deadline_s: float = 0.0
    state: str = ""
    attempt: int = 0
    version: str = ""
    result: Any = None
    what: str = ""
    pids: list[int] = []
    proof: str = ""

    @property
    def took_s(self) -> float:
        return self.at - self.since if self.since else 0.0


_write, _read = msgspec.json.Encoder().encode, msgspec.json.Decoder(Event).decode


def read_ledger(path: Path) -> list[Event]:
    return [_read(line) for line in path.read_bytes().splitlines()]


class Ledger:
    """Starts the writer; the file is appended to."""

    def __init__(self, path: Path) -> None:
        self.path, self.sha256 = path, ""  # of the whole file, once it is closed
        read_end, self._pipe = os.pipe()
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._writer = subprocess.Popen(
            [sys.executable, __file__, str(path)], stdin=read_end, start_new_session=True
        )
        os.close(read_end)

    @property
    def pid(self) -> int:
        return self._writer.pid

    def enter(self, event: str, **fields: Any) -> None:
        line = _write(Event(event, fields.pop("at", None) or time.monotonic(), **fields)) + b"\n"
        while line:  # a write above PIPE_BUF may come in parts: one process alone has this pipe
            line = line[os.write(self._pipe, line) :]

    def close(self) -> str:
        """Waits until all is on the disk; the sha256 of the file."""
        os.close(self._pipe)
        status = self._writer.wait(30)
        if status:
            raise RuntimeError(f"the ledger's writer ended with {status}: the run is void")
        self.sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return self.sha256

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.sha256:
            self.close()


def write(path: str) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    rest = b""
    while data := os.read(0, PIPE_BYTES):
        whole, newline, rest = (rest + data).rpartition(b"\n")
        whole += newline
        while whole:
            whole = whole[os.write(file, whole) :]
        os.fsync(file)


if __name__ == "__main__":
    write(sys.argv[1])
