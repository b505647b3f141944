"""What the machine says: memory of processes and accelerators, time that its host kept."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

_MB = 1e6
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


class Ticks(NamedTuple):
    """Of all cores, since the start of the machine."""

    all: int
    stolen: int


def ticks() -> Ticks:
    """Zeros where the machine does not say (not Linux)."""
    try:
        first = Path("/proc/stat").read_text().partition("\n")[0]
    except OSError:
        return Ticks(0, 0)
    counts = [int(word) for word in first.split()[1:9]]
    return Ticks(sum(counts), counts[7])


def stolen(before: Ticks) -> float:
    """Share of the time since then that the host gave to others."""
    now = ticks()
    return (now.stolen - before.stolen) / max(1, now.all - before.all)


def family(pid: int) -> list[int]:
    """The process and all that it started."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children = (task / "children").read_text().split()
            found += [one for child in children for one in family(int(child))]
    return found


def memory_mb(pids: list[int]) -> float:
    """Proportional set size: what processes share is counted once. 0 where nobody says."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            read = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
            total += int(read[1]) * 1024 if read else 0
    return total / _MB


def gpu_mb() -> float:
    """Memory in use on all accelerators; 0 where there is no nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0.0
    asked = [program, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
        return sum(float(line) for line in said.split()) * 1024 * 1024 / _MB
    return 0.0


def load() -> float:
    """Processes a core that wanted to run, over the last minute."""
    return os.getloadavg()[0] / cores()


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
