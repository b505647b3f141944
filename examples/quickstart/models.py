"""Which wine is this? A scikit-learn model, exported to ONNX by `train.py`, as a Headrace model."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
from msgspec import Meta

import headrace


def _field(description: str, least: float, most: float, example: float) -> Meta:
    """A documented number; outside of least..most a call is refused with 422."""
    return Meta(description=description, ge=least, le=most, examples=[example])


@dataclass
class Wine:
    """Thirteen measurements of one wine. Their order is that of the model's input."""

    alcohol: Annotated[float, _field("% by volume; 11.0 to 14.8 in the data", 5, 25, 13.77)]
    malic_acid: Annotated[float, _field("0.7 to 5.8 in the data", 0, 20, 1.9)]
    ash: Annotated[float, _field("1.4 to 3.2 in the data", 0, 10, 2.68)]
    alcalinity_of_ash: Annotated[float, _field("10.6 to 30 in the data", 0, 60, 17.1)]
    magnesium: Annotated[float, _field("70 to 162 in the data", 0, 400, 115)]
    total_phenols: Annotated[float, _field("1.0 to 3.9 in the data", 0, 15, 3.0)]
    flavanoids: Annotated[float, _field("0.3 to 5.1 in the data", 0, 15, 2.79)]
    nonflavanoid_phenols: Annotated[float, _field("0.1 to 0.7 in the data", 0, 5, 0.39)]
    proanthocyanins: Annotated[float, _field("0.4 to 3.6 in the data", 0, 15, 1.68)]
    color_intensity: Annotated[float, _field("1.3 to 13 in the data", 0, 40, 6.3)]
    hue: Annotated[float, _field("0.5 to 1.7 in the data", 0, 5, 1.13)]
    od280_od315: Annotated[
        float, _field("absorbance at 280 nm by that at 315 nm, diluted; 1.3 to 4.0", 0, 10, 2.93)
    ]
    proline: Annotated[float, _field("278 to 1680 in the data", 0, 4000, 1375)]


@dataclass
class Answer:
    """The likeliest cultivar, and how likely each of the three is."""

    cultivar: str
    probability: Annotated[float, Meta(ge=0, le=1)]
    probabilities: dict[str, float]


class WineCultivar(headrace.Model):
    """Which of three Italian cultivars is a wine made of?

    Logistic regression over thirteen chemical measurements, trained on 124 wines of the UCI wine
    data set (Forina et al. 1986). It knows Barolo, Grignolino and Barbera and nothing else: any
    other wine gets one of these names, too.
    """

    batching = headrace.Batching(max_size=64)

    def load(self, files: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a small graph: more threads only wait for each other
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            files / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.cultivars = json.loads((files / "model.json").read_text())["cultivars"]

    def golden(self) -> headrace.model.Golden:
        """A Barolo that training did not see. A model that says otherwise takes no traffic."""
        barolo = Wine(13.77, 1.9, 2.68, 17.1, 115, 3.0, 2.79, 0.39, 1.68, 6.3, 1.13, 2.93, 1375)
        return barolo, lambda answer: answer.cultivar == "Barolo" and answer.probability > 0.99

    def predict(self, wines: list[Wine]) -> list[Answer]:
        rows = np.array([astuple(wine) for wine in wines], np.float32)
        _, probabilities = self.session.run(None, {"X": rows})
        return [self._answer(row) for row in probabilities.tolist()]

    def _answer(self, row: list[float]) -> Answer:
        named = {name: round(p, 4) for name, p in zip(self.cultivars, row, strict=True)}
        best = max(named, key=named.__getitem__)
        return Answer(best, named[best], named)
