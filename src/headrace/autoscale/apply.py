"""A decision -> the orchestrator, as far as the mode goes. What cannot be done leaves the count."""

from __future__ import annotations

import structlog

from headrace.autoscale.decide import Decision
from headrace.errors import Refusal
from headrace.orchestrator.port import Orchestrator, Status

log = structlog.get_logger("headrace.autoscale")

DONE = "yes"


class Apply:
    """Modes: shadow and advise change nothing, act does."""

    def __init__(self, mode: str, orchestrator: Orchestrator | None) -> None:
        self._mode, self._orchestrator = mode, orchestrator

    async def status(self, workload: str) -> tuple[Status | None, str]:
        """Or None, and why."""
        if self._orchestrator is None:
            return None, "there is no orchestrator"
        try:
            return await self._orchestrator.status(workload), ""
        except Refusal as refusal:
            return None, refusal.detail
        except Exception as error:
            log.exception("the orchestrator's answer is not understood", model=workload)
            return None, type(error).__name__

    async def __call__(
        self,
        made: Decision,
        workload: str,
        status: Status | None,
        why: str,
        *,
        by_rollout: bool = False,
    ) -> str:
        """`why` there is no status. `by_rollout`: deploy reads the decision, and asks for two
        versions' workers. "yes", or "no: " and the reason."""
        if self._mode != "act":
            return f"no: {self._mode}"
        if status is None or self._orchestrator is None:
            return f"no: {why}"
        if by_rollout or made.count == status.desired:
            return DONE
        try:
            await self._orchestrator.scale(workload, made.count, made.reason, status)
        except Refusal as refusal:
            return f"no: {refusal.detail}"
        except Exception as error:
            log.exception("the orchestrator's answer is not understood", model=made.model)
            return f"no: {type(error).__name__}"
        return DONE
