"""The machine, in words that mean the same tomorrow: cores, processor, kernel, its load now."""

import os
import platform
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


def load_average() -> str:
    return f"{os.getloadavg()[0]:.1f}"
