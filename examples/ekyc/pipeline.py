"""Calibrates face match: labelled pairs of photos -> what a cosine means as a score.

pip install -e ".[images,onnx,pipelines]" -r examples/ekyc/requirements.in
python examples/ekyc/fetch.py
headrace train -f examples/ekyc/headrace.toml pipeline:ScoreCalibration

Seven photos of three people are what lies here: with yours in their place, this is the pipeline.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
import pandera.polars as pa
import polars as pl
from ekyc.calibration import Calibration
from ekyc.embeddings import Embedder
from ekyc.face_match import FaceMatch
from ekyc.faces import FaceFinder, the_one_face
from ekyc.graphs import Floats, Pixels
from msgspec import Meta

import headrace
from headrace.pipeline import Gates, Metric, Pipeline

WEIGHTS = Path(__file__).resolve().parent / "weights"
#: What face match is given beside the calibration: its graphs, and the photos of its golden call.
FILES = (
    "fr_detect.onnx", "fr_feature.onnx", "fr_landmark.onnx", "images/obama.jpg",
    "images/obama2.jpg",
)  # fmt: skip
PEOPLE = {
    "obama.jpg": "obama", "obama2.jpg": "obama", "obama3.jpg": "obama",
    "obama_partial_face.jpg": "obama", "obama_partial_face2.jpg": "obama",
    "biden.jpg": "biden", "astronaut.png": "collins",
}  # fmt: skip
#: Photos that are tested with, and not one of which was trained with.
FOLDS = (
    ("obama3.jpg", "obama_partial_face2.jpg", "astronaut.png"),
    ("obama2.jpg", "obama_partial_face.jpg", "biden.jpg"),
    ("obama.jpg", "obama3.jpg", "biden.jpg"),
)
LEAST_LIKELY = 1e-9  # a score of 0 that is wrong is not infinitely wrong


@dataclass
class Params:
    fold: Annotated[int, Meta(ge=0, lt=len(FOLDS))] = 0


@dataclass
class Split:
    train: pl.DataFrame
    test: pl.DataFrame


class ScoreCalibration(Pipeline[Params]):
    """Which score is a cosine? Platt's sigmoid over labelled pairs of photos, worn ones too."""

    model = FaceMatch
    schema = pa.DataFrameSchema(
        {
            "left": pa.Column(str, pa.Check.isin(list(PEOPLE))),
            "right": pa.Column(str, pa.Check.isin(list(PEOPLE))),
            "worn": pa.Column(str),
            "same": pa.Column(bool),
            "cosine": pa.Column(float, pa.Check.in_range(-1.001, 1.001)),
        },
        name="pairs",
        strict=True,
    )
    gates = Gates(
        metrics=(
            # Beside the constants that were chosen by hand, and beside production.
            Metric("gain", least=0.0),
            Metric("log_loss", worse_by=0.0, better="lower"),
            Metric("errors", most=0.0),
        )
    )

    def extract(self) -> pl.DataFrame:
        vectors = embedded()
        rows = [
            {
                "left": left, "right": right, "worn": f"{worn_left}, {worn_right}",
                "same": PEOPLE[left] == PEOPLE[right], "cosine": float(one @ other),
            }
            for ((left, worn_left), one), ((right, worn_right), other)
            in combinations(vectors.items(), 2)
            if left != right  # two copies of one photo are no pair
        ]  # fmt: skip
        return pl.DataFrame(rows)

    def prepare(self, pairs: pl.DataFrame) -> Split:
        """A pair with one photo of either side would teach what it is tested with: left out."""
        held = list(FOLDS[self.params.fold])
        left, right = pl.col("left").is_in(held), pl.col("right").is_in(held)
        return Split(pairs.filter(~left & ~right), pairs.filter(left & right))

    def train(self, pairs: Split, folder: Path) -> dict[str, float]:
        for name in FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(WEIGHTS / name, folder / name)
        found = platt(*columns(pairs.train))
        found.write(folder)
        return {"slope": found.slope, "middle": found.middle, "pairs": float(len(pairs.train))}

    def evaluate(self, pairs: Split, model: FaceMatch) -> dict[str, float]:
        cosines, same = columns(pairs.test)
        loss = log_loss(model.calibration, cosines, same)
        scores = np.array([model.calibration.score(cosine) for cosine in cosines])
        return {
            "log_loss": loss,
            "gain": log_loss(Calibration(), cosines, same) - loss,
            "brier": float(((scores - same) ** 2).mean()),
            "errors": float(((scores >= 0.5) != same).mean()),
            "tested": float(len(same)),
        }


# -- photos, as they come and as they are sent -----------------------------------------------------


def worn(image: Pixels) -> dict[str, Pixels]:
    """One photo as phones and forms make it."""
    noise = np.random.default_rng(0).normal(0, 30, image.shape)
    return {
        "as it is": image,
        "small": shrunk(image, 0.33),
        "tiny": shrunk(image, 0.15),
        "blurred": cv2.GaussianBlur(image, (0, 0), 4),
        "noisy": np.clip(image + noise, 0, 255).astype(np.uint8),
    }


def shrunk(image: Pixels, share: float) -> Pixels:
    """Its details lost, its size kept."""
    small = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (image.shape[1], image.shape[0]))


def embedded() -> dict[tuple[str, str], Floats]:
    """The vector of each photo in each state in which its face is found."""
    finder, embedder = FaceFinder(WEIGHTS, "cpu"), Embedder(WEIGHTS, "cpu")
    found = {}
    for name in PEOPLE:
        photo = headrace.Image((WEIGHTS / "images" / name).read_bytes()).array()
        for state, image in worn(photo).items():
            face = the_one_face(finder.find([image])[0])[1]
            if face is not None:
                found[name, state] = embedder.embed([(image, face)])[0]
    return found


# -- Platt's sigmoid -------------------------------------------------------------------------------

Cosines = npt.NDArray[np.float64]
Same = npt.NDArray[np.bool_]


def columns(pairs: pl.DataFrame) -> tuple[Cosines, Same]:
    return pairs["cosine"].to_numpy(), pairs["same"].to_numpy()


def platt(cosines: Cosines, same: Same) -> Calibration:
    """By Newton's method, towards targets short of 0 and 1: with few pairs, few are sure (Platt,
    1999). Raises ValueError where a kind of pair is missing."""
    ones, others = int(same.sum()), int((~same).sum())
    if not ones or not others:
        raise ValueError(f"{ones} pairs of one person, {others} of two: both are needed")
    targets = np.where(same, (ones + 1) / (ones + 2), 1 / (others + 2))
    rows = np.column_stack([cosines, np.ones_like(cosines)])
    weights = np.zeros(2)
    for _ in range(100):
        scores = 1 / (1 + np.exp(-rows @ weights))
        curve = (rows * (scores * (1 - scores))[:, None]).T @ rows
        step = np.linalg.solve(curve + 1e-9 * np.eye(2), rows.T @ (scores - targets))
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    slope, offset = weights.tolist()
    return Calibration(slope, -offset / slope)


def log_loss(calibration: Calibration, cosines: Cosines, same: Same) -> float:
    scores = np.array([calibration.score(cosine) for cosine in cosines])
    likely = np.maximum(np.where(same, scores, 1 - scores), LEAST_LIKELY)
    return float(-np.log(likely).mean())
