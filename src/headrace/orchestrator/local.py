"""`local:///path/of/the/socket`: the house on this machine starts and stops worker processes.

`headrace up` tells its roles where its socket is.
"""

from __future__ import annotations

import contextlib
from urllib.parse import quote, unquote, urlsplit

import httpx
import msgspec

from headrace.errors import Conflict, Invalid, NotFound, Refusal
from headrace.orchestrator import copies
from headrace.orchestrator.door import PLACE, Count, No, Note
from headrace.orchestrator.port import Status
from headrace.orchestrator.web import Web
from headrace.schemes import shown

MEANT = {kind.status: kind for kind in (NotFound, Conflict, Invalid)}


class LocalOrchestrator:
    """The house whose socket the URL names. It asks for no token: the file's rights say who may."""

    def __init__(self, url: str, *, token_file: str = "", timeout_s: float = 5.0) -> None:
        """Raises ValueError."""
        at = urlsplit(url)
        path = unquote(at.path)
        if at.netloc or not path.startswith("/"):
            raise ValueError(f"orchestrator.url = {shown(url)!r}: expected local:///path/of/socket")
        self._web = Web("http://house", name=f"the house at {path}", timeout_s=timeout_s, uds=path)

    async def open(self) -> None:
        """Connections are made when they are needed."""

    async def close(self) -> None:
        await self._web.close()

    async def status(self, workload: str) -> Status:
        return self._web.read(await self._ask("GET", workload), Status)

    async def scale(
        self, workload: str, count: int, reason: str, seen: Status | None = None
    ) -> None:
        await self._ask("POST", workload, Count(count, reason, seen.token if seen else ""))

    async def create(self, workload: str, count: int, reason: str) -> None:
        """A house knows how to start any version of its models."""
        copies.model_of(workload)
        await self.scale(workload, count, reason)

    async def remove(self, workload: str, reason: str) -> None:
        with contextlib.suppress(NotFound):
            await self.scale(workload, 0, reason)

    async def note(self, workload: str, text: str) -> None:
        await self._ask("POST", workload, Note(text), "/notes")

    async def _ask(
        self, method: str, workload: str, body: msgspec.Struct | None = None, below: str = ""
    ) -> httpx.Response:
        answer = await self._web.ask(
            method,
            PLACE + quote(workload, safe="") + below,
            None if body is None else msgspec.json.encode(body),
            told=list(MEANT),
        )
        if answer.status_code != 200:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: httpx.Response) -> Refusal:
        no = self._web.read(answer, No)
        return MEANT[answer.status_code](no.detail, code=no.code)
