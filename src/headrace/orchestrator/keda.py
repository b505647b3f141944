"""`keda://host:port/NAMESPACE`: the count is not set but served, to KEDA, whose HPA sets it.

    scale -> figure <- GetMetrics <- KEDA <- HPA -> deployment
    status --------------------------------------------^

For clusters in which an HPA alone may scale. The deployments are read through the API of the
cluster that we run in, as `kubernetes:///NAMESPACE` does it, with `prefix` before their names; they
are not changed. Figures live in this process: one autoscaler may run, no more.
"""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

import structlog
from msgspec import structs

from headrace.errors import NotFound
from headrace.orchestrator import refusals
from headrace.orchestrator.keda_figures import Figures
from headrace.orchestrator.keda_scaler import Scaler
from headrace.orchestrator.kubernetes import MOST, KubernetesOrchestrator
from headrace.orchestrator.port import Orchestrator, Status
from headrace.schemes import shown

log = structlog.get_logger("headrace.orchestrator")


class KedaOrchestrator:
    def __init__(
        self,
        url: str,
        *,
        token_file: str = "",
        timeout_s: float = 5.0,
        cluster: Orchestrator | None = None,
    ) -> None:
        """`cluster` tells what is there, in place of the one around us. Raises ValueError."""
        at = urlsplit(url)
        if not at.hostname or at.port is None or at.username is not None:
            raise ValueError(
                f"orchestrator.url = {shown(url)!r}: expected keda://host:port/namespace, where "
                "KEDA will ask"
            )
        self._listen = at.netloc
        self._cluster = cluster or KubernetesOrchestrator(
            f"kubernetes://{at.path}" + (f"?{at.query}" if at.query else ""),
            token_file=token_file,
            timeout_s=timeout_s,
        )
        self._figures = Figures()
        self._scaler: Scaler | None = None
        self.port = 0

    async def open(self) -> None:
        """Raises OSError where the address is taken."""
        self._scaler = Scaler(self._figures)
        self.port = await self._scaler.open(self._listen)
        log.info("listening", keda=f"{self._listen.rpartition(':')[0]}:{self.port}")
        await self._cluster.open()

    async def close(self) -> None:
        if self._scaler:
            await self._scaler.close()
            self._scaler = None
        await self._cluster.close()

    async def status(self, workload: str) -> Status:
        """Asked for is the figure, whether or not the HPA has followed it. Where there is none, as
        after a start, the count that is there becomes it: nothing moves until a decision does."""
        found = await self._cluster.status(workload)
        figure = self._figures.desired(workload)
        if figure is None:
            self._figures.put(workload, found.desired)
            return found
        self._figures.stand_by(workload)
        return structs.replace(found, desired=figure)

    async def scale(
        self, workload: str, count: int, reason: str, seen: Status | None = None
    ) -> None:
        """The figure is ours alone: `seen` says that the workload is there, no more."""
        if not 0 <= count <= MOST:
            raise refusals.out_of_bounds(f"{count} of {workload!r}")
        if seen is None:
            await self._cluster.status(workload)
        self._figures.put(workload, count)
        log.info("asked for", workload=workload, count=count, reason=reason)

    async def create(self, workload: str, count: int, reason: str) -> None:
        """Raises Invalid: what KEDA scales has a ScaledObject of its own, which people write."""
        raise refusals.not_copied(f"{workload!r}: keda:// makes no deployments, kubernetes:// does")

    async def remove(self, workload: str, reason: str) -> None:
        with contextlib.suppress(NotFound):
            await self.scale(workload, 0, reason)

    async def note(self, workload: str, text: str) -> None:
        await self._cluster.note(workload, text)
