"""BentoML: adaptive batching (W2, W3), uvloop (installed beside it), no access log, one worker.

W1 is an async method (no thread hop). A batchable method takes a list, so a call carries a list
of one row. max_latency_ms is wide, so that BentoML sheds nothing.
"""

from typing import Any

import bentoml
import work
from PIL import Image as PILImage

SERVICE: dict[str, Any] = {
    "workers": 1,
    "traffic": {"timeout": 60},
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
}
NAME = work.workload()
BATCHES: dict[str, Any] = {
    "batchable": True,
    "max_batch_size": work.BATCH_MAX[NAME],
    "max_latency_ms": 60_000,
}


@bentoml.service(**SERVICE)
class Sum:
    @bentoml.api
    async def predict(self, rows: list[list[float]]) -> list[float]:
        return [sum(row) for row in rows]


@bentoml.service(**SERVICE)
class SlowSum:
    @bentoml.api(**BATCHES)
    def predict(self, rows: list[list[float]]) -> list[float]:
        return work.slow_sums(rows, work.SLOWER[NAME])


@bentoml.service(**SERVICE)
class Mlp:
    def __init__(self) -> None:
        self.mlp = work.Mlp()

    @bentoml.api(**BATCHES)
    def predict(self, rows: list[list[float]]) -> list[list[float]]:
        return self.mlp.lists(rows)


@bentoml.service(**SERVICE)
class Mean:
    @bentoml.api
    def predict(self, image: PILImage.Image, /) -> float:
        import numpy

        return float(numpy.asarray(image.convert("RGB")).mean())


Served = {"w1": Sum, "w2": SlowSum, "w2slow": SlowSum, "w3": Mlp, "w4": Mean}[NAME]
