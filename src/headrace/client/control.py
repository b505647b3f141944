"""The two clients of a house's control API: by its socket on this machine, or by a URL and a token.

with Control(settings.state() / SOCKET) as control:
    control.ask(scale.override("ocr", "floor", 12, "the sale begins", for_s=7200))
    control.ask(rollout.order("iris", "start", "better on the night shift", version=4))

What can be asked is in `scale`, `rollout` and `promotion`, how it is sent in `face`. Nothing is
tried twice: who sets a count sees what came of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx

from headrace.client.asks import Ask
from headrace.client.errors import CallFailed
from headrace.client.face import AsyncClient, Client
from headrace.client.held import AsyncHeld, Held

T = TypeVar("T")

SOCKET = "control.sock"  # in the house's state folder
_MOST_NAME = 107  # bytes of a socket's name, to the kernel
_BASE = "http://control"  # no host is looked up for a socket


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name of a socket that is short enough, while it is used (Linux)."""
    name = os.fspath(path)
    if len(os.fsencode(name)) <= _MOST_NAME:
        yield name
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def is_served(path: Path) -> bool:
    """Whether somebody answers at the socket."""
    if not path.is_socket():
        return False
    with reachable(path) as name, socket.socket(socket.AF_UNIX) as tried:
        return tried.connect_ex(name) == 0


class _Settings:
    """What both are made with."""

    _kind: Any
    _transport: Any

    def __init__(
        self,
        where: str | Path,
        *,
        token: str = "",
        deadline_s: float = 10.0,
        transport: Any = None,
    ) -> None:
        """
        where         the socket's path, or a URL such as "https://control.example:8101"
        token         as `headrace control token` made it; a socket needs none
        deadline_s    seconds that an answer may take
        transport     an httpx transport in place of the network, for tests
        """
        self._where = str(where)
        self._held = contextlib.ExitStack()
        self._socket = ""
        url = self._where if isinstance(where, str) else _BASE
        if isinstance(where, Path) and transport is None:
            self._socket = self._held.enter_context(reachable(where))
            # There is no TLS on it; reading the certificates takes 0.1 s.
            transport = self._transport(uds=self._socket, verify=False)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = self._kind(
            url, deadline_s=deadline_s, retries=0, headers=headers, transport=transport
        )

    def _told(self, error: CallFailed) -> CallFailed:
        """A socket has no URL."""
        detail = error.detail.replace(_BASE, self._where)
        return type(error)(detail, error.attempts, error.request_id)


class Control(Held, _Settings):
    """Blocks until the answer."""

    _kind, _transport = Client, httpx.HTTPTransport
    _client: Client

    def ask(self, ask: Ask[T]) -> T:
        """Raises CallRefused, CallFailed, DeadlinePassed, AnswerUnreadable; OSError where the
        socket's folder is not there."""
        self._try_socket()
        try:
            return self._client._run(ask)
        except CallFailed as error:
            raise self._told(error) from error

    def _try_socket(self) -> None:
        """httpcore forgets to close a socket that nobody answers."""
        if self._socket:
            with socket.socket(socket.AF_UNIX) as tried:
                try:
                    tried.connect(self._socket)
                except OSError as error:
                    detail = f"cannot connect to {self._where}: {error.strerror}"
                    raise CallFailed(detail) from error

    def close(self) -> None:
        self._client.close()
        self._held.close()


class AsyncControl(AsyncHeld, _Settings):
    """`Control` for asyncio."""

    _kind, _transport = AsyncClient, httpx.AsyncHTTPTransport
    _client: AsyncClient

    async def ask(self, ask: Ask[T]) -> T:
        """As `Control.ask`."""
        try:
            return await self._client._run(ask)
        except CallFailed as error:
            raise self._told(error) from error

    async def close(self) -> None:
        await self._client.close()
        self._held.close()
