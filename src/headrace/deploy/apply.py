"""Counts -> the orchestrator. What cannot be done is tried again; counts stand meanwhile.

The workload of a version is made with its first worker, and removed when the version is retired.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable

import structlog

from headrace.deployments import workload_of
from headrace.errors import NotFound, Refusal
from headrace.orchestrator.port import Orchestrator
from headrace.settings import Settings

log = structlog.get_logger("headrace.deploy")

BELIEVED_S = 3.0  # a count that was seen; somebody else may change it


class Apply:
    """Of one model. Without an orchestrator people start workers, and this does nothing."""

    def __init__(self, model: str, orchestrator: Orchestrator | None) -> None:
        self._model, self._orchestrator = model, orchestrator
        self._counts: dict[int, tuple[int, float]] = {}  # asked for, when that was seen
        self._said: dict[int, str] = {}

    async def count(self, version: int) -> int | None:
        """Workers that are asked for; None where nobody knows."""
        seen = self._counts.get(version)
        if seen is not None and time.monotonic() - seen[1] < BELIEVED_S:
            return seen[0]
        if self._orchestrator is None:
            return None
        try:
            status = await self._orchestrator.status(workload_of(self._model, version))
        except NotFound:
            return 0
        except Refusal as refusal:
            self._trouble(version, refusal.detail)
            return None
        except Exception as error:
            log.exception("the orchestrator's answer is not understood", model=self._model)
            self._trouble(version, type(error).__name__)
            return None
        self._counts[version] = status.desired, time.monotonic()
        return status.desired

    async def to(self, version: int, count: int, reason: str) -> bool:
        """True where it is asked for."""
        if await self.count(version) == count:
            return True
        if self._orchestrator is None:
            return count == 0  # who started them sees them off
        if not await self._done(version, count, self._scaled(version, count, reason)):
            return False
        log.info("asked for", workload=workload_of(self._model, version), count=count,
                 reason=reason)  # fmt: skip
        return True

    async def retire(self, version: int, reason: str) -> bool:
        """Its workers go, and its workload with them; that of version 0 is what the others are made
        like, and stays. True where it is asked for."""
        if not version or self._orchestrator is None:
            return await self.to(version, 0, reason)
        workload = workload_of(self._model, version)
        return await self._done(version, 0, self._orchestrator.remove(workload, reason))

    async def _scaled(self, version: int, count: int, reason: str) -> None:
        assert self._orchestrator is not None
        workload = workload_of(self._model, version)
        try:
            await self._orchestrator.scale(workload, count, reason)
        except NotFound:
            if not count:
                return  # there is nobody to go
            if not version:
                raise
            await self._orchestrator.create(workload, count, reason)

    async def _done(self, version: int, count: int, verb: Awaitable[None]) -> bool:
        try:
            await verb
        except Refusal as refusal:
            self._trouble(version, refusal.detail)
            return False
        except Exception as error:
            log.exception("the orchestrator's answer is not understood", model=self._model)
            self._trouble(version, type(error).__name__)
            return False
        self._counts[version] = count, time.monotonic()
        self._said.pop(version, None)
        return True

    def _trouble(self, version: int, detail: str) -> None:
        """Said once, and not each time that it is tried."""
        if self._said.get(version) != detail:
            self._said[version] = detail
            log.warning("workers cannot be scaled", version=version, model=self._model,
                        reason=detail)  # fmt: skip


def first_count(settings: Settings, model: str) -> int:
    """Workers of a model when the house opens: what was scaled before is forgotten."""
    ours = settings.models[model]
    if settings.autoscale.mode != "act" or ours.scale is None:
        return ours.workers
    return min(max(ours.workers, ours.scale.least), ours.scale.most)
