"""The quickstart's model as a pipeline: trained, judged by its gates, registered.

pip install -e ".[onnx,pipelines]" -r examples/quickstart/requirements-train.in
headrace train -f examples/quickstart/headrace.toml pipeline:Wines
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import pandera.polars as pa
import polars as pl
from models import Wine, WineCultivar
from msgspec import Meta
from skl2onnx import to_onnx
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headrace.pipeline import Gates, Metric, Pipeline

CULTIVARS = ["Barolo", "Grignolino", "Barbera"]
FEATURES = [field.name for field in fields(Wine)]


@dataclass
class Params:
    test_share: Annotated[float, Meta(gt=0, lt=1)] = 0.3
    seed: int = 0
    c: Annotated[float, Meta(gt=0)] = 1.0  # the less, the more regular


@dataclass
class Split:
    train: pl.DataFrame
    test: pl.DataFrame


class Wines(Pipeline[Params]):
    """Which of three Italian cultivars is a wine made of?"""

    model = WineCultivar
    schema = pa.DataFrameSchema(
        {name: pa.Column(float, pa.Check.ge(0)) for name in FEATURES}
        | {"cultivar": pa.Column(str, pa.Check.isin(CULTIVARS))},
        name="wines",
        strict=True,
    )
    gates = Gates(
        metrics=(
            Metric("accuracy", least=0.9, worse_by=0.02),
            Metric("log_loss", most=0.3, worse_by=0.1, better="lower"),
        ),
        latency_p95_ms=50,
    )

    def extract(self) -> pl.DataFrame:
        wines = load_wine()
        return pl.DataFrame(wines.data, schema=FEATURES).with_columns(
            cultivar=pl.Series([CULTIVARS[kind] for kind in wines.target])
        )

    def prepare(self, wines: pl.DataFrame) -> Split:
        rows = train_test_split(
            np.arange(len(wines)),
            test_size=self.params.test_share,
            random_state=self.params.seed,
            stratify=wines["cultivar"].to_numpy(),
        )
        return Split(*(wines[sorted(each)] for each in rows))

    def train(self, wines: Split, folder: Path) -> None:
        classifier = LogisticRegression(C=self.params.c, max_iter=1000)
        fitted = make_pipeline(StandardScaler(), classifier).fit(*arrays(wines.train))
        sample = np.zeros((1, len(FEATURES)), np.float32)
        graph = to_onnx(fitted, sample, options={"zipmap": False}, target_opset=17)
        (folder / "model.onnx").write_bytes(graph.SerializeToString())
        (folder / "model.json").write_text(json.dumps({"cultivars": CULTIVARS}))

    def evaluate(self, wines: Split, model: WineCultivar) -> dict[str, float]:
        answers = model.predict(self.examples(wines))
        truth = wines.test["cultivar"].to_list()
        right = [answer.cultivar == said for answer, said in zip(answers, truth, strict=True)]
        likely = [answer.probabilities[said] for answer, said in zip(answers, truth, strict=True)]
        return {
            "accuracy": float(np.mean(right)),
            "log_loss": float(-np.log(np.maximum(likely, 1e-4)).mean()),
        }

    def examples(self, wines: Split) -> list[Wine]:
        return [Wine(**row) for row in wines.test.select(FEATURES).iter_rows(named=True)]


def arrays(wines: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Measurements, and the number of the cultivar in `CULTIVARS`."""
    kinds = [CULTIVARS.index(name) for name in wines["cultivar"]]
    return wines.select(FEATURES).to_numpy().astype(np.float32), np.array(kinds)
