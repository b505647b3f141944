"""Requests that a coroutine answers, because the store has a part in it: by which verb, for whom,
and with an answer whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import structlog

from headrace.errors import MethodNotAllowed, ModelFailed, Refusal, Unavailable
from headrace.gateway.answer import answer_refusal
from headrace.gateway.tenant import Tenants
from headrace.telemetry.metrics import GatewayMetrics

if TYPE_CHECKING:
    from headrace.httpserver import Request
    from headrace.store.door import StoreDoor
    from headrace.store.open import Store

log = structlog.get_logger("headrace.gateway")

#: Answers a request of a tenant.
Act = Callable[["Request", str], Coroutine[Any, Any, None]]


class Errands:
    def __init__(self, tenants: Tenants, door: StoreDoor, metrics: GatewayMetrics) -> None:
        self._tenants, self._door, self._metrics = tenants, door, metrics
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, request: Request, verbs: dict[bytes, Act]) -> None:
        """The act of the request's method. Raises MethodNotAllowed, BadRequest."""
        act = verbs.get(request.method)
        if act is None:
            raise MethodNotAllowed(", ".join(sorted(verb.decode() for verb in verbs)))
        tenant = self._tenants.of(request)
        task = asyncio.ensure_future(self._answered(request, act(request, tenant)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answered(self, request: Request, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Refusal as refusal:
            self._metrics.refusals.add("", refusal.code)
            answer_refusal(request, refusal)
        except asyncio.CancelledError:
            answer_refusal(request, Unavailable("the gateway is leaving", code="leaving"))
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
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
