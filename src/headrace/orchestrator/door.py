"""Where a house is asked to start and stop workers: the other end of `local://`.

    GET  /workloads/NAME        -> Status
    POST /workloads/NAME        {"count": 3, "reason": "...", "token": "..."}
    POST /workloads/NAME/notes  {"text": "..."}

On a Unix socket that only this user of the machine can open. Refusals are {code, detail} with the
status of their class.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote

import msgspec

from headrace.errors import BadRequest, MethodNotAllowed, NotFound, Refusal
from headrace.httpserver import HttpServer, Request, answer_text
from headrace.orchestrator.port import Status

T = TypeVar("T")

MAX_BODY = 65_536
PLACE = "/workloads/"
JSON = "application/json"


class Count(msgspec.Struct, forbid_unknown_fields=True):
    """Asked for. `token`: of the status that it follows from; "": whatever happened since."""

    count: int
    reason: str = ""
    token: str = ""


class Note(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class No(msgspec.Struct):
    """A refusal."""

    code: str
    detail: str


class Hands(Protocol):
    """What does it: `crew.Crew`."""

    def status(self, workload: str) -> Status: ...

    def scale(self, workload: str, count: int, reason: str, token: str = "") -> None: ...

    def note(self, workload: str, text: str) -> None: ...


class Door:
    """Open from `bind` on: who comes before `open` waits."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._server = HttpServer(self._on_request, lambda _: None, _refuse, MAX_BODY)
        self._bound: socket.socket | None = None

    def bind(self, path: str) -> None:
        """In a folder that only this user can enter. Raises OSError."""
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(path)
            Path(path).chmod(0o600)
            bound.listen(64)
        except OSError:
            bound.close()
            raise
        self._bound = bound

    async def open(self) -> None:
        assert self._bound is not None
        await self._server.open_unix(self._bound)

    async def close(self) -> None:
        await self._server.drain(0.0)

    def _on_request(self, request: Request) -> None:
        path = unquote(request.path.decode("latin-1"))
        if not path.startswith(PLACE):
            raise NotFound(f"only {PLACE}NAME is here")
        name = path.removeprefix(PLACE)
        if request.method == b"GET":
            self._tell(request, name)
        elif request.method != b"POST":
            raise MethodNotAllowed("GET, POST")
        elif name.endswith("/notes"):
            self._hands.note(name.removesuffix("/notes"), _read(request, Note).text)
            answer_text(request, 200, b"{}", JSON)
        else:
            asked = _read(request, Count)
            self._hands.scale(name, asked.count, asked.reason, asked.token)
            self._tell(request, name)

    def _tell(self, request: Request, name: str) -> None:
        answer_text(request, 200, msgspec.json.encode(self._hands.status(name)), JSON)


def _read(request: Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(request.body, type=kind)
    except msgspec.DecodeError as error:
        raise BadRequest(str(error)) from None


def _refuse(request: Request, refusal: Refusal) -> None:
    told = No(refusal.code, refusal.detail)
    answer_text(request, refusal.status, msgspec.json.encode(told), JSON)
