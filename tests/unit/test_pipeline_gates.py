"""Gates are data: what they let pass, and what they say."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.gates import (
    BadGates,
    Evaluation,
    Gates,
    Metric,
    Production,
    Verdict,
    bare,
    judge,
    read,
)

SCHEMAS = {"input": {"type": "number"}, "output": {"type": "string"}}


def found(production: Production | None = None, **more: Any) -> Evaluation:
    return Evaluation(
        **({"metrics": {"f1": 0.9}, "schemas": SCHEMAS, "production": production} | more)
    )


def live(f1: float | None = 0.92, measured: bool = True, **more: Any) -> Production:
    metrics = {} if f1 is None else {"f1": f1}
    return Production(
        **({"version": "3", "metrics": metrics, "measured": measured, "schemas": SCHEMAS} | more)
    )


def only(gates: Gates, of: Evaluation) -> Verdict:
    [verdict] = [v for v in judge(gates, of) if not v.gate.startswith("same schema")]
    return verdict


@pytest.mark.parametrize(
    ("metric", "passed"),
    [
        (Metric("f1", least=0.9), True),
        (Metric("f1", least=0.901), False),
        (Metric("f1", most=0.9), True),
        (Metric("f1", most=0.899), False),
        (Metric("recall", least=0.0), False),
    ],
)
def test_bounds(metric: Metric, passed: bool):
    verdict = only(Gates(metrics=(metric,)), found())
    assert verdict.passed is passed
    assert ("was not measured" in verdict.why) == (metric.name == "recall")


@pytest.mark.parametrize(
    ("worse_by", "better", "theirs", "passed"),
    [
        (0.02, "higher", 0.92, True),  # just so, whatever floats make of the subtraction
        (0.019, "higher", 0.92, False),
        (0.0, "higher", 0.8, True),
        (0.05, "lower", 0.86, True),
        (0.03, "lower", 0.86, False),
        (0.0, "lower", 0.95, True),
    ],
)
def test_not_worse_than_production(worse_by: float, better: Any, theirs: float, passed: bool):
    gates = Gates(metrics=(Metric("f1", worse_by=worse_by, better=better),))
    assert only(gates, found(live(theirs))).passed is passed


def test_it_says_with_what_it_was_compared():
    gates = Gates(metrics=(Metric("f1", worse_by=0.1),))
    assert only(gates, found()).why == "f1: nothing is in production yet"
    assert only(gates, found(live())).why == (
        "f1 is 0.9, 0.02 worse than version 3's 0.92 on the same data; 0.1 worse is allowed"
    )
    old = live(measured=False, why="KeyError: 'x'")
    assert "as registered (KeyError: 'x')" in only(gates, found(old)).why
    unknown = only(gates, found(live(None)))
    assert not unknown.passed and "version 3 in production is not known" in unknown.why


def test_latency():
    gates = Gates(latency_p95_ms=5)
    assert only(gates, found(latency_p95_ms=5.0)).passed
    assert not only(gates, found(latency_p95_ms=5.1)).passed
    assert "not measured" in only(gates, found()).why and not only(gates, found()).passed


def test_a_golden_call_that_is_wrong_shuts_it_whatever_the_gates_are():
    assert [v.passed for v in judge(Gates(same_schema=False), found(golden="right"))] == [True]
    [verdict] = judge(Gates(same_schema=False), found(golden="wrong: it answers 3"))
    assert not verdict.passed and verdict.why == "the golden call is wrong: it answers 3"


def test_the_schema_may_change_its_words_and_nothing_else():
    def verdict(theirs: dict[str, Any]) -> Verdict:
        return judge(Gates(), found(live(schemas=theirs)))[-1]

    described = {"input": {"type": "number", "description": "metres"}, "output": SCHEMAS["output"]}
    assert verdict(described).passed
    changed = verdict({"input": {"type": "integer"}, "output": SCHEMAS["output"]})
    assert not changed.passed and changed.why == "input differ from version 3's"
    assert not verdict({}).passed


def test_a_field_may_be_called_title():
    schema = {"title": "A", "properties": {"title": {"type": "string", "title": "B"}}}
    assert bare(schema) == {"properties": {"title": {"type": "string"}}}
    assert bare([schema]) == [bare(schema)]


def test_each_gate_is_judged_also_behind_one_that_is_shut():
    gates = Gates(metrics=(Metric("f1", least=1.0, most=0.1, worse_by=0.0),), latency_p95_ms=1)
    verdicts = judge(gates, found(live(), golden="right"))
    assert [v.passed for v in verdicts] == [True, False, False, False, False, True]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_better_version_is_never_refused(value: float, theirs: float, worse_by: float):
    gates = Gates(metrics=(Metric("f1", worse_by=worse_by),))
    passed = only(gates, found(live(theirs), metrics={"f1": value})).passed
    assert passed or value < theirs


def test_a_file_of_gates(tmp_path: Path):
    path = tmp_path / "gates.toml"
    path.write_text('latency_p95_ms = 5\n[[metrics]]\nname = "f1"\nleast = 0.9\nworse_by = 0.02\n')
    assert read(path) == Gates(metrics=(Metric("f1", least=0.9, worse_by=0.02),), latency_p95_ms=5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("metrics = 3", "metrics"),
        ('[[metrics]]\nname = "f1"\n', "expected least, most or worse_by"),
        ('[[metrics]]\nname = "f1"\nworse_by = -1\n', "worse_by"),
        ("latency = 3", "unknown field `latency`"),
        ("[", "gates.toml"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, why: str):
    (tmp_path / "gates.toml").write_text(text)
    with pytest.raises(BadGates, match=why):
        read(tmp_path / "gates.toml")
