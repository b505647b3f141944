"""The two clients of a house's control API: by its socket on this machine, or by a URL and a token.

with Control(settings.state() / SOCKET) as control:
    control.override("ocr", "floor", 12, "the sale begins", for_s=7200)

What is asked is in `scale`, how it is sent in `face`. Nothing is tried twice: who sets a count sees
what came of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from headrace.client import scale
from headrace.client.asks import Ask
from headrace.client.errors import CallFailed
from headrace.client.face import AsyncClient, Client
from headrace.client.scale import (
    Alarm,
    DecisionPage,
    Me,
    Minutes,
    Override,
    OverrideSet,
    ScaledModel,
)

T = TypeVar("T")

SOCKET = "control.sock"  # in the house's state folder
_MOST_NAME = 107  # bytes of a socket's name, to the kernel
_BASE = "http://control"  # no host is looked up for a socket
_LISTED = 50


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


class Control(_Settings):
    """Blocks until the answer. Raises CallRefused, CallFailed, DeadlinePassed, AnswerUnreadable;
    OSError where the socket's folder is not there."""

    _kind, _transport = Client, httpx.HTTPTransport
    _client: Client

    def whoami(self) -> Me:
        return self._run(scale.whoami())

    def scaled(self) -> list[ScaledModel]:
        """All models that are scaled."""
        return self._run(scale.scaled())

    def scaled_one(self, model: str) -> ScaledModel:
        return self._run(scale.scaled_one(model))

    def override(
        self,
        model: str,
        kind: str,
        count: int,
        reason: str,
        *,
        for_s: float | None = None,
        until: float | None = None,
    ) -> OverrideSet:
        """`kind`: set, floor or cap; it takes the place of the one of its kind, and ends after four
        hours where neither `for_s` nor `until` (Unix time) is given."""
        return self._run(scale.override(model, kind, count, reason, for_s, until))

    def clear(self, model: str, override_id: str = "") -> list[Override]:
        """Takes back that one, or all of the model."""
        return self._run(scale.clear(model, override_id))

    def overrides(self, model: str, limit: int = _LISTED) -> list[Override]:
        """All that ever were, newest first."""
        return self._run(scale.overrides(model, limit))

    def decisions(
        self,
        model: str,
        limit: int = _LISTED,
        *,
        at: float | None = None,
        cursor: str | None = None,
    ) -> DecisionPage:
        """Newest first; `at`: from that Unix time back."""
        return self._run(scale.decisions(model, limit, cursor, at))

    def minutes(self, model: str, since: float, until: float | None = None) -> Minutes:
        """Unix times, at most eight days apart."""
        return self._run(scale.minutes(model, since, until))

    def alarms(self, *, open_only: bool = True, limit: int = _LISTED) -> list[Alarm]:
        return self._run(scale.alarms(open_only, limit))

    def _run(self, ask: Ask[T]) -> T:
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

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncControl(_Settings):
    """`Control` for asyncio: the same methods, awaited."""

    _kind, _transport = AsyncClient, httpx.AsyncHTTPTransport
    _client: AsyncClient

    async def whoami(self) -> Me:
        return await self._run(scale.whoami())

    async def scaled(self) -> list[ScaledModel]:
        """As `Control.scaled`."""
        return await self._run(scale.scaled())

    async def scaled_one(self, model: str) -> ScaledModel:
        return await self._run(scale.scaled_one(model))

    async def override(
        self,
        model: str,
        kind: str,
        count: int,
        reason: str,
        *,
        for_s: float | None = None,
        until: float | None = None,
    ) -> OverrideSet:
        """As `Control.override`."""
        return await self._run(scale.override(model, kind, count, reason, for_s, until))

    async def clear(self, model: str, override_id: str = "") -> list[Override]:
        """As `Control.clear`."""
        return await self._run(scale.clear(model, override_id))

    async def overrides(self, model: str, limit: int = _LISTED) -> list[Override]:
        """As `Control.overrides`."""
        return await self._run(scale.overrides(model, limit))

    async def decisions(
        self,
        model: str,
        limit: int = _LISTED,
        *,
        at: float | None = None,
        cursor: str | None = None,
    ) -> DecisionPage:
        """As `Control.decisions`."""
        return await self._run(scale.decisions(model, limit, cursor, at))

    async def minutes(self, model: str, since: float, until: float | None = None) -> Minutes:
        """As `Control.minutes`."""
        return await self._run(scale.minutes(model, since, until))

    async def alarms(self, *, open_only: bool = True, limit: int = _LISTED) -> list[Alarm]:
        return await self._run(scale.alarms(open_only, limit))

    async def _run(self, ask: Ask[T]) -> T:
        try:
            return await self._client._run(ask)
        except CallFailed as error:
            raise self._told(error) from error

    async def close(self) -> None:
        await self._client.close()
        self._held.close()

    async def __aenter__(self) -> AsyncControl:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
