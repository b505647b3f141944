"""The model of the fault runs: its result is known beforehand, each of its runs is written down.

Imported by the model processes from a copy in the house's folder, and by the checker for `truth`,
`fate` and `read_runs`. The input is the number of a job, which no other job has; 0 is
the golden call's.
"""

from __future__ import annotations

import os
import select
import signal
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import headrace

RUNS = "HEADRACE_FAULTS_RUNS"  # the file that every run is appended to
WORK_MS = "HEADRACE_FAULTS_WORK_MS"  # of one batch: so that a kill finds it at work
REFUSED = "odd-one"  # the problem of those the model refuses


@dataclass
class Proof:
    """A result that only this input and this version of the model give."""

    number: int
    version: str
    proof: int


def truth(number: int, version: str) -> dict[str, int | str]:
    proof = zlib.crc32(f"{number}/{version}".encode())
    return {"number": number, "version": version, "proof": proof}


def fate(number: int) -> str:
    """The state that a job with this input must end in: one in 50 is refused by the model, and
    negative ones end its process each time."""
    if number < 0:
        return "dead"
    return "failed" if number % 50 == 49 else "succeeded"


class Run(NamedTuple):
    """One passing of one job through `predict`. `at`: time.monotonic(), which all processes of a
    machine share."""

    number: int
    pid: int
    worker: int
    at: float
    version: str


def note(numbers: list[int], version: str) -> None:
    """One write of less than a page: whole, or not there, whenever the process dies."""
    where = f"{os.getpid()} {os.getppid()} {time.monotonic():.6f} {version}\n"
    data = "".join(f"{number} {where}" for number in numbers).encode()
    file = os.open(os.environ[RUNS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def read_runs(path: Path) -> list[Run]:
    return [_run(line) for line in path.read_text().splitlines()] if path.exists() else []


def last_run(path: Path) -> Run | None:
    """Without reading what came before."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200))
        lines = file.read().decode().splitlines()
    return _run(lines[-1]) if lines else None


def _run(line: str) -> Run:
    number, pid, worker, at, version = line.split()
    return Run(int(number), int(pid), int(worker), float(at), version)


class Prove(headrace.Model):
    """Proves that it was run on this input."""

    batching = headrace.Batching(max_size=8)
    version = "1"
    work_s = float(os.environ.get(WORK_MS, "2")) / 1000

    def golden(self) -> headrace.model.Golden:
        return 0, Proof(**truth(0, self.version))  # type: ignore[arg-type]

    def predict(self, numbers: list[int]) -> list[Proof]:
        note(numbers, self.version)
        select.select([], [], [], self.work_s)  # time.sleep fails under a shifted clock
        if min(numbers) < 0:
            os.kill(os.getpid(), signal.SIGSEGV)
        return [
            headrace.ItemError(REFUSED, "one in 50 is")  # type: ignore[misc]
            if fate(number) == "failed"
            else Proof(**truth(number, self.version))  # type: ignore[arg-type]
            for number in numbers
        ]
