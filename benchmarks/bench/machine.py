"""The machine, in words that mean the same tomorrow: cores, processor, kernel, its load now."""

import os
import platform
import time
from pathlib import Path


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def memory_gb() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) / 1024 / 1024
    return 0.0


def describe() -> str:
    cores = len(os.sched_getaffinity(0))
    kernel = platform.release()
    return f"{cores} cores, {processor()}, {memory_gb():.0f} GB, Linux {kernel}"


class Stolen:
    """The share of processor time that the host kept from us since the last reading.

    On a shared machine this, more than our own load, decides what is measured."""

    def __init__(self) -> None:
        self._before = _times()

    def share(self) -> float:
        now = _times()
        total = sum(now) - sum(self._before)
        stolen = now[7] - self._before[7]
        self._before = now
        return stolen / total if total else 0.0


def wait_quiet(most: float, patience_s: float) -> None:
    """Until the host steals less than this share, or patience is over."""
    end = time.monotonic() + patience_s
    stolen = Stolen()
    while time.monotonic() < end:
        began = time.monotonic()
        while time.monotonic() - began < 0.5:
            pass  # an idle machine is not stolen from: it must be asked for
        if stolen.share() < most:
            return
        time.sleep(1.0)


def _times() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal: ticks of all cores."""
    return [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]


def load_average() -> str:
    return f"{os.getloadavg()[0]:.1f}"
