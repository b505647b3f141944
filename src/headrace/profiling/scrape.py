"""What a worker counted: jobs, batches and their time, from its metrics page."""

from __future__ import annotations

from typing import NamedTuple

from headrace.profiling.wire import get

_JOBS, _BATCHES = "headrace_worker_batch_size_sum", "headrace_worker_batch_size_count"
_EXECUTED = "headrace_worker_executed_seconds_sum"


class Ran(NamedTuple):
    jobs: float
    batches: float
    executed_s: float

    def since(self, before: Ran) -> Ran:
        return Ran(*(now - then for now, then in zip(self, before, strict=True)))

    @property
    def batch(self) -> float:
        """Mean size."""
        return self.jobs / self.batches if self.batches else 0.0

    @property
    def service_s(self) -> float:
        """Time of a model process for each job."""
        return self.executed_s / self.jobs if self.jobs else 0.0


async def ran(metrics_url: str) -> Ran:
    """Raises OSError."""
    return read((await get(metrics_url)).decode())


def read(page: str) -> Ran:
    found = dict.fromkeys((_JOBS, _BATCHES, _EXECUTED), 0.0)
    for line in page.splitlines():
        name = line.partition("{")[0]
        if name in found:
            found[name] += float(line.rpartition(" ")[2])
    return Ran(found[_JOBS], found[_BATCHES], found[_EXECUTED])
