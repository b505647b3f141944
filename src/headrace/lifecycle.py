"""Processes: they end with their parent, they stop when told, they are reaped."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def die_with_parent(how: int = signal.SIGKILL, parent: int = 0) -> None:
    """The kernel signals this process when its parent is gone, even by SIGKILL (Linux).

    `parent`: its pid, where known, to see whether it was gone before we asked. Not by a parent of
    1: in a container that is the house, or a supervisor, and alive."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)
    if parent and os.getppid() != parent:
        os.kill(os.getpid(), how)


class Stop:
    """Told to stop by SIGTERM or SIGINT; told to hurry by a second SIGINT.

    A second SIGTERM changes nothing: supervisors send it to the group and to the process."""

    def __init__(self) -> None:
        self._told = asyncio.Event()
        self.hurry = False
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def _interrupt(self) -> None:
        self.hurry = self._told.is_set()
        self._told.set()

    async def wait(self) -> None:
        await self._told.wait()


async def end(
    process: subprocess.Popen[bytes], grace_s: float, hurry: Callable[[], bool] = lambda: False
) -> int:
    """SIGTERM, then SIGKILL after the grace or when there is a hurry; the exit status. Reaps."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    end_at = asyncio.get_running_loop().time() + grace_s
    while process.poll() is None and asyncio.get_running_loop().time() < end_at and not hurry():
        await asyncio.sleep(0.01)
    if process.poll() is None:
        process.kill()
    return await asyncio.get_running_loop().run_in_executor(None, process.wait)
