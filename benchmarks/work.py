"""The work itself, the same code in every peer: a sum, a batch of fixed cost, an MLP, a JPEG.

run.py puts this folder on PYTHONPATH of each server, so a peer only writes `import work`.
"""

import io
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

# W2: 5 ms a batch and 0.2 ms an item, so 32 items take 11.4 ms: 32 / 11.4 ms = 2807 calls/s.
# w2slow (overload.py) is the same, ten times slower: 281 calls/s.
BATCH_MAX = {"w1": 64, "w2": 32, "w2slow": 32, "w3": 64, "w4": 8}
SLOWER = {"w2": 1, "w2slow": 10}


def workload() -> str:
    """The workload that this server serves: w1, w2, w2slow, w3 or w4."""
    return os.environ["BENCH_WORKLOAD"]


def port() -> int:
    return int(os.environ["BENCH_PORT"])


def batch_cost_s(items: int, slower: int = 1) -> float:
    return slower * (0.005 + 0.0002 * items)


def slow_sums(rows: Sequence[Sequence[float]], slower: int = 1) -> list[float]:
    """W2: the sums of the rows, after the time that a batch of this size costs."""
    time.sleep(batch_cost_s(len(rows), slower))
    return [sum(row) for row in rows]


class Mlp:
    """W3: mlp.onnx on one thread; rows of 64 numbers in, rows of 8 scores out."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(DATA / "mlp.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def array(self, rows: Any) -> Any:
        """The scores of a float32 array (n, 64), as a float32 array (n, 8)."""
        return self.session.run(None, {"rows": rows})[0]

    def lists(self, rows: Sequence[Sequence[float]]) -> list[list[float]]:
        import numpy

        scores: list[list[float]] = self.array(numpy.asarray(rows, numpy.float32)).tolist()
        return scores


def mean_of_jpeg(body: bytes) -> float:
    """W4: decode to RGB, mean over all values."""
    import numpy
    from PIL import Image

    return float(numpy.asarray(Image.open(io.BytesIO(body)).convert("RGB")).mean())
