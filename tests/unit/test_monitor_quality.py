"""Predictions against labels: the figures of others, intervals that hold, nothing said of few."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from headrace.monitor.quality import (
    Pair,
    as_text,
    auc,
    calibration,
    judge,
    number,
    truth,
    wilson,
)
from headrace.monitoring import Monitor, Quality

CLASS = Quality(prediction="y", kind="class", accuracy_least=0.9, least=50)
CHANCE = Quality(prediction="p", kind="probability", auc_least=0.8, calibration_most=0.1, least=50)
NUMBER = Quality(prediction="n", kind="number", error_most=2.0, least=50)


def classes(right, of):
    return [Pair("a", "a" if n < right else "b") for n in range(of)]


def foretold(size, seed=0, turned=False):
    draw = np.random.default_rng(seed)
    chances = draw.random(size)
    came = draw.random(size) < (1 - chances if turned else chances)
    return [Pair(float(p), str(bool(c)).lower()) for p, c in zip(chances, came, strict=True)]


def figures(verdict):
    return {figure.name: figure for figure in verdict.figures}


@pytest.mark.parametrize(
    ("right", "of", "verdict"),
    [(49, 49, "few"), (100, 100, "good"), (80, 100, "bad"), (86, 100, "good"), (860, 1_000, "bad")],
)
def test_accuracy_is_bad_only_where_that_is_sure(right, of, verdict):
    assert judge(classes(right, of), CLASS).verdict == verdict


def test_it_is_told_in_a_sentence():
    text = judge(classes(800, 1_000), CLASS, version="4", segment="north").text
    assert text.startswith("version 4, segment north: accuracy 0.8 (0.774 to 0.824), limit 0.9")
    assert text.endswith("of 1000 labels")


def test_wilson_as_published():
    low, high = wilson(81, 263)  # Newcombe 1998, table I
    assert (low, high) == (pytest.approx(0.2553, abs=5e-4), pytest.approx(0.3662, abs=5e-4))
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1
    assert wilson(0, 0) == (0, 1)


def test_auc_is_that_of_scikit_learn():
    draw = np.random.default_rng(1)
    scores = draw.random(500).round(1)  # with many equals
    came = draw.random(500) < scores
    exact = roc_auc_score(came, scores)
    assert auc(list(zip(scores.tolist(), came.tolist(), strict=True))) == pytest.approx(exact)
    assert auc([(0.5, True)]) is None


def test_probabilities():
    good = judge(foretold(2_000), CHANCE)
    assert good.verdict == "good"
    assert figures(good)["calibration"].value < 0.05
    assert 0.8 < figures(good)["auc"].value < 0.88
    bad = judge(foretold(2_000, turned=True), CHANCE)
    assert bad.verdict == "bad"
    assert "auc 0.1" in bad.text and "calibration" in bad.text


def test_the_interval_of_auc_holds_what_is_true():
    """Of 100 draws nearly 95 have the truth in it: with p even in 0 to 1 it is 5/6."""
    held = 0
    for seed in range(100):
        figure = figures(judge(foretold(200, seed), CHANCE))["auc"]
        held += figure.low <= 5 / 6 <= figure.high
    assert held >= 88


def test_numbers():
    draw = random.Random(3)
    pairs = [Pair(n + draw.gauss(0, 1), float(n)) for n in range(500)]
    found = figures(judge(pairs, NUMBER))
    assert found["error"].value == pytest.approx(0.8, abs=0.1)
    assert found["rmse"].value == pytest.approx(1.0, abs=0.1)
    assert found["bias"].low < 0 < found["bias"].high
    assert judge([Pair(p + 5.0, label) for p, label in pairs], NUMBER).verdict == "bad"


def test_labels_that_say_nothing():
    assert judge([], CLASS).verdict == "few"
    assert judge([Pair(0.5, "maybe")] * 100, CHANCE).verdict == "few"
    assert judge([Pair(0.5, "true")] * 100, CHANCE).verdict == "few", "no AUC of one kind"
    assert judge([Pair("x", "y")] * 100, NUMBER).verdict == "few"


def test_readings():
    assert as_text(1.0) == as_text("1") == "1"
    assert number("2.5") == 2.5 and number("x") is None and number(float("nan")) is None
    assert truth("Yes") is True and truth(0) is False and truth("2") is None
    assert calibration([(0.7, n < 7) for n in range(10)]) == pytest.approx(0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": ["a"], "quality": {"prediction": "y"}},
        {"outputs": ["y"], "quality": {"prediction": "y", "error_most": 1.0}},
        {},
        {"inputs": ["a b"]},
        {"outputs": ["y"], "unknown": 1},
    ],
)
def test_a_policy_that_cannot_be_is_refused(wrong):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Monitor)
