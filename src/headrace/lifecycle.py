"""Processes: they end with their parent, they stop when told, they are reaped."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(how: int = signal.SIGKILL) -> None:
    """The kernel signals this process when its parent is gone, even by SIGKILL (Linux)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)
    if os.getppid() == 1:  # gone before we asked
        os.kill(os.getpid(), how)


def stop_event() -> asyncio.Event:
    """Set at the first SIGTERM or SIGINT. The second SIGINT ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for kind in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(kind, told)
    return stop


async def end(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """SIGTERM, then SIGKILL after the grace; gives the exit status. Reaps."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    end_at = asyncio.get_running_loop().time() + grace_s
    while process.poll() is None and asyncio.get_running_loop().time() < end_at:
        await asyncio.sleep(0.01)
    if process.poll() is None:
        process.kill()
    return await asyncio.get_running_loop().run_in_executor(None, process.wait)
