"""A service of one node or several: what all kinds have in common."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from headrace.testing.services.node import Node


class Service:
    """Use it as a context manager, or end it with `close`. `stop` keeps the data, `close` does not.

    `folder`: where its nodes live; none: a new one, short enough for the path of a socket."""

    name = ""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"headrace-{self.name}-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # its processes may be another user's
        self.nodes: Sequence[Node] = []

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def urls(self) -> list[str]:
        """One a node."""
        return [self.url]

    def environment(self) -> dict[str, str]:
        """What `dev/services env` prints: variables by which clients find it."""
        return {f"{self.name.upper()}_URL": self.url}

    def start(self) -> None:
        """All nodes that do not run, at the same time. Raises ServiceError."""
        each(self.nodes, lambda node: node.start())

    def stop(self) -> None:
        each(self.nodes, lambda node: node.stop())

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """The same signal to all nodes."""
        each(self.nodes, lambda node: node.kill(how))

    def restart(self) -> None:
        self.stop()
        self.start()

    def wipe(self) -> None:
        """All data is gone. Only when it is stopped."""
        for node in self.nodes:
            node.wipe()

    def close(self) -> None:
        """Stops it, removes its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pids(self) -> list[int]:
        return [node.process.pid for node in self.nodes if node.process and node.alive]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            with contextlib.suppress(Exception):
                self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def each(things: Sequence[Any], do: Callable[[Any], None]) -> None:
    """For all at the same time; raises what the first raised, when all are done."""
    if not things:
        return
    with ThreadPoolExecutor(len(things)) as pool:
        for future in [pool.submit(do, thing) for thing in things]:
            future.result()
