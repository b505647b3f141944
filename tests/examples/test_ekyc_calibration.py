"""The score of face match, calibrated: beats its constants on unseen pairs, or stays out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from ekyc.calibration import Calibration, read

from headrace.pipeline.gates import Evaluation, judge
from headrace.registry.inspect import inspect
from headrace.registry.rules import Rules
from headrace.registry.version import MANIFEST

EKYC = Path(__file__).resolve().parents[2] / "examples" / "ekyc"
needs_weights = [
    pytest.mark.ekyc,
    pytest.mark.skipif(
        not (EKYC / "weights" / "fr_feature.onnx").is_file(),
        reason="no weights: run python examples/ekyc/fetch.py",
    ),
]


@pytest.fixture(scope="module")
def pipeline() -> ModuleType:
    """Under a name of its own: another example has a module `pipeline`, too."""
    spec = importlib.util.spec_from_file_location("ekyc_pipeline", EKYC / "pipeline.py")
    assert spec and spec.loader
    module = sys.modules["ekyc_pipeline"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pairs(pipeline: ModuleType) -> Any:
    """All 35 photos embedded, once: they take some seconds."""
    extracting = pipeline.ScoreCalibration()
    return extracting.validate(extracting.extract())


def trained(pipeline: ModuleType, pairs: Any, fold: int, folder: Path) -> dict[str, float]:
    """Its metrics, by the model that would serve it."""
    made = pipeline.ScoreCalibration(pipeline.Params(fold=fold))
    split = made.prepare(pairs)
    held = set(pipeline.FOLDS[fold])
    for part, inside in ((split.train, False), (split.test, True)):
        photos = {*part["left"], *part["right"]}
        assert photos and all((photo in held) is inside for photo in photos)
        assert part["same"].any() and not part["same"].all()
    made.train(split, folder)
    model = pipeline.FaceMatch()
    model.load(folder)
    assert model.calibration == read(folder) != Calibration()
    given, expected = model.golden()
    [answer] = model.predict([given])
    assert expected(answer)
    assert answer.score == pytest.approx(model.calibration.score(answer.cosine), abs=1e-3)
    metrics: dict[str, float] = made.evaluate(split, model)
    return metrics


class TestOnPhotos:
    pytestmark = needs_weights

    def test_it_beats_the_constants_on_unseen_pairs_and_may_be_registered(
        self, pipeline, pairs, tmp_path
    ):
        metrics = trained(pipeline, pairs, 0, tmp_path)
        assert metrics["gain"] > 0 and metrics["errors"] == 0
        assert metrics["log_loss"] < 0.022  # measured: 0.0203; by the constants 0.0227
        verdicts = judge(pipeline.ScoreCalibration.gates, Evaluation(metrics, {}))
        assert all(verdict.passed for verdict in verdicts)
        manifest = msgspec.json.encode({"model": "face-match", "format": "onnx"})
        (tmp_path / MANIFEST).write_bytes(manifest)
        folder = inspect(tmp_path, Rules())
        assert "calibration.json" in str(folder)

    def test_where_it_is_worse_than_the_constants_it_stays_out(self, pipeline, pairs, tmp_path):
        metrics = trained(pipeline, pairs, 2, tmp_path)
        assert metrics["gain"] < 0
        verdicts = judge(pipeline.ScoreCalibration.gates, Evaluation(metrics, {}))
        assert [v.gate for v in verdicts if not v.passed] == ["gain at least 0"]


def test_platt_finds_the_sigmoid_that_made_the_labels(pipeline):
    rng = np.random.default_rng(1)
    truth = Calibration(slope=12.0, middle=0.3)
    cosines = rng.uniform(-0.2, 0.9, 20_000)
    same = rng.uniform(size=len(cosines)) < [truth.score(each) for each in cosines]
    found = pipeline.platt(cosines, same)
    assert found.slope == pytest.approx(12.0, rel=0.05)
    assert found.middle == pytest.approx(0.3, abs=0.01)
    assert pipeline.log_loss(found, cosines, same) < pipeline.log_loss(Calibration(), cosines, same)


def test_pairs_that_are_told_apart_do_not_make_it_sure_of_everything(pipeline):
    """Without Platt's targets the slope would have no bound."""
    found = pipeline.platt(np.array([0.0, 0.1, 0.7, 0.8]), np.array([False, False, True, True]))
    assert 0.2 < found.middle < 0.6 and 0.6 < found.score(0.9) < 0.95
    with pytest.raises(ValueError, match="both are needed"):
        pipeline.platt(np.array([0.7, 0.8]), np.array([True, True]))


def test_without_a_file_the_constants_hold_and_a_broken_one_is_told(tmp_path):
    assert read(tmp_path) == Calibration(14.0, 0.42)
    assert Calibration().score(0.42) == 0.5
    Calibration(9.5, 0.3).write(tmp_path)
    assert read(tmp_path) == Calibration(9.5, 0.3)
    for wrong in ('{"slope": -1, "middle": 0.3}', '{"slope": 9, "middle": 3}'):
        (tmp_path / "calibration.json").write_text(wrong)
        with pytest.raises(ValueError, match="no calibration of cosines"):
            read(tmp_path)
