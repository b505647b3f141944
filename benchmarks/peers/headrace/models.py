"""Headrace's four models; each workload's house is the toml of its name, here.

headrace up -f benchmarks/peers/headrace/w1.toml
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np

import headrace

sys.path.append(str(Path(__file__).parents[2]))  # so that a house of these models starts by itself
import work

Row = Annotated[np.ndarray, headrace.Tensor("float32", (64,))]
Scores = Annotated[np.ndarray, headrace.Tensor("float32", (8,))]


class Sum(headrace.Model):
    """W1: the sum of a row."""

    name = "sum"
    version = "1"
    batching = headrace.Batching(max_size=64, max_wait_ms=0)

    def predict(self, rows: list[list[float]]) -> list[float]:
        return [sum(row) for row in rows]


class SlowSum(headrace.Model):
    """W2: 5 ms a batch, 0.2 ms an item."""

    name = "sum"
    version = "1"
    batching = headrace.Batching(max_size=work.BATCH_MAX["w2"])
    slower = work.SLOWER["w2"]

    def predict(self, rows: list[list[float]]) -> list[float]:
        return work.slow_sums(rows, self.slower)


class OverloadedSum(SlowSum):
    """The model of overload.py: W2, ten times slower."""

    slower = work.SLOWER["w2slow"]


class Mlp(headrace.Model):
    """W3: an ONNX MLP, 64 numbers in, 8 scores out."""

    name = "mlp"
    version = "1"
    batching = headrace.Batching(max_size=work.BATCH_MAX["w3"])

    def load(self, files: Any) -> None:
        self.mlp = work.Mlp()

    def predict(self, rows: list[Row]) -> list[Scores]:
        return list(self.mlp.array(np.stack(rows)))


class Mean(headrace.Model):
    """W4: the mean of a decoded JPEG."""

    name = "mean"
    version = "1"

    def predict(self, images: list[headrace.Image]) -> list[float]:
        return [float(image.array().mean()) for image in images]
