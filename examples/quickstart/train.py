"""Trains the quickstart's model in seconds and writes `model.onnx` and `model.json` beside itself.

178 Italian wines, 13 measurements each, three cultivars; the data comes with scikit-learn.
    pip install -r requirements-train.in && python train.py
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

#: What scikit-learn calls class_0, class_1 and class_2 (Forina et al. 1986).
CULTIVARS = ["Barolo", "Grignolino", "Barbera"]
#: The names of `models.Wine`, in the order of the data's columns.
FEATURES = [
    "alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols",
    "flavanoids", "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue",
    "od280_od315", "proline",
]  # fmt: skip
OPSET = 17
SEED = 0


def main(folder: Path) -> None:
    wines = load_wine()
    rows = wines.data.astype(np.float32)
    train, test, train_truth, test_truth = train_test_split(
        rows, wines.target, test_size=0.3, random_state=SEED, stratify=wines.target
    )
    pipeline = new_pipeline().fit(train, train_truth)
    right = int((pipeline.predict(test) == test_truth).sum())
    folds = cross_val_score(new_pipeline(), rows, wines.target, cv=10)
    print(f"trained on {len(train)} wines; {right} of {len(test)} unseen ones right")
    print(f"10-fold cross-validation: accuracy {folds.mean():.3f}")
    facts = {
        "features": FEATURES,
        "cultivars": CULTIVARS,
        "test": {"right": right, "of": len(test)},
        "cross_validation_accuracy": round(float(folds.mean()), 4),
        "made_with": {name: version(name) for name in ("scikit-learn", "skl2onnx")},
    }
    write(pipeline, facts, folder)


def new_pipeline() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def write(pipeline: Pipeline, facts: dict[str, object], folder: Path) -> None:
    graph = to_onnx(
        pipeline,
        np.zeros((1, len(FEATURES)), np.float32),
        options={"zipmap": False},  # probabilities as one array, not as a list of maps
        target_opset=OPSET,
    )
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    (folder / "model.json").write_text(json.dumps(facts, indent=2) + "\n")
    size = (folder / "model.onnx").stat().st_size
    print(f"wrote model.onnx ({size} bytes) and model.json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    main(parser.parse_args().out)
