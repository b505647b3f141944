"""Requests that a coroutine answers, because the store has a part in it: by which verb, for whom,
and with an answer whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog

from headrace.background import Background
from headrace.errors import MethodNotAllowed, ModelFailed, Refusal, Unavailable
from headrace.httpapi.answer import answer_refusal

if TYPE_CHECKING:
    from headrace.httpserver import Request
    from headrace.store.door import StoreDoor
    from headrace.store.open import Store

log = structlog.get_logger("headrace.httpapi")

Who = TypeVar("Who")
#: Answers a request of somebody.
Act = Callable[["Request", Who], Coroutine[Any, Any, None]]


class Errands(Generic[Who]):
    def __init__(
        self, who: Callable[[Request], Who], door: StoreDoor, refused: Callable[[str], None]
    ) -> None:
        """`who`: whose request it is, or the refusal raised. `refused`: told each refusal's code
        that an act comes to."""
        self._who, self._door, self._refused = who, door, refused
        self._acts = Background()

    def run(self, request: Request, verbs: dict[bytes, Act[Who]]) -> None:
        """The act of the request's method. Raises MethodNotAllowed, and what `who` raises."""
        act = verbs.get(request.method)
        if act is None:
            raise MethodNotAllowed(", ".join(sorted(verb.decode() for verb in verbs)))
        self._acts.spawn(self._answered(request, act(request, self._who(request))))

    async def _answered(self, request: Request, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Refusal as refusal:
            self._refused(refusal.code)
            answer_refusal(request, refusal)
        except asyncio.CancelledError:
            answer_refusal(request, Unavailable("this process is leaving", code="leaving"))
        except Exception:
            log.exception("a request failed", request_id=request.id)
            answer_refusal(request, ModelFailed("an error of ours", code="internal"))

    async def store(self) -> Store:
        """Raises Unavailable."""
        try:
            return await self._door.open()
        except ImportError as error:
            raise Unavailable(str(error), code="storage-unavailable") from None

    async def close(self, grace_s: float) -> None:
        """What has not been answered when the time is over is told to come again."""
        await self._acts.idle(grace_s)
        await self._acts.close()


def bound(act: Callable[..., Coroutine[Any, Any, None]], *more: Any) -> Act[Any]:
    """An act that has what its path said."""
    return lambda request, who: act(request, who, *more)
