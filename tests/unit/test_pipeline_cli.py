"""Runs on the command line: what is typed, what is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli.run_tables import compare, show_end
from headrace.cli.run_view import Shown
from headrace.cli.runs import runs
from headrace.cli.train import misuse_told, pairs, train
from headrace.pipeline.entry import CodeChanged
from headrace.pipeline.gates import Verdict
from headrace.pipeline.run import Code, Resumed, Run, Step
from headrace.pipeline.track import Point
from headrace.pipeline.track_file import FileTracker

app = typer.Typer()
app.command()(train)
app.add_typer(runs, name="runs")

SHUT = Verdict("f1 at least 0.9", False, "f1 is 0.5 [tests], at least 0.9 is wanted", 0.5)
OPEN = Verdict("golden", True, "the golden call came out right")


def a_run(id: str, **more: Any) -> Run:
    given: dict[str, Any] = {
        "id": id, "pipeline": "wines", "target": "pipeline:Wines", "folder": "/x", "model": "wine",
        "params": {"seed": 3, "c": 1.0}, "code": Code("5" * 64, "c0ffee" * 7, True),
        "created": 1700000000.0, "began": 1700000000.0,
    }  # fmt: skip
    return Run(**(given | more))


DONE = a_run(
    "20261122-193201-4f2a",
    state="succeeded",
    version="3",
    metrics={"f1": 0.95},
    verdicts=[OPEN],
    data="d" * 64,
    artifacts={"model.onnx": "a" * 64},
    steps=[Step("extract", 1700000000.0, 0.5, "d" * 64, "178 rows, 14 columns")],
    resumed=[Resumed(1700000100.0, "train", Code("6" * 64))],
)
REFUSED = a_run(
    "20261123-193201-77c1",
    state="refused",
    created=1700086400.0,
    params={"seed": 4, "c": 1.0},
    metrics={"f1": 0.5},
    verdicts=[OPEN, SHUT],
)
FAILED = a_run(
    "20261124-193201-0000",
    state="failed",
    created=1700172800.0,
    step="train",
    problem="ValueError: no",
    trace="Traceback\n" * 20,
)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    tracker = FileTracker(tmp_path / ".headrace" / "runs")
    for run in (DONE, REFUSED, FAILED):
        tracker.create(run)
    tracker.report(DONE, Point(1700000050.0, "train", {"loss": 0.25}))
    return tmp_path


def told(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["runs", *arguments])


def test_the_newest_first_with_what_came_of_each(house: Path):
    lines = told("list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [FAILED.id, REFUSED.id, DONE.id]
    assert "failed at train" in lines[1] and "f1 0.5" in lines[2] and "c0ffeec0ff+" in lines[2]
    assert [run["id"] for run in json.loads(told("list", "--limit", "1", "--json").stdout)] == [
        FAILED.id
    ]
    assert "no runs yet" in told("list", "--pipeline", "others").stdout


def test_one_with_all_that_is_known(house: Path):
    shown = told("show", "20261122").stdout
    for said in (
        "wine, version 3", "c0ffeec0ff+", "seed=3, c=1.0", "178 rows, 14 columns",
        "dddddddddddd", "1 reports, the last of train: loss 0.25", "aaaaaaaaaaaa  model.onnx",
        "f1  0.95", "✓ the golden call came out right", "at train, code source 6666666666",
    ):  # fmt: skip
        assert said in shown, said
    assert json.loads(told("show", "last", "--json").stdout)["problem"] == "ValueError: no"
    failed = told("show", "last")
    assert "train: ValueError: no" in failed.stderr and failed.stderr.count("Traceback") == 12


def test_side_by_side(house: Path):
    found = compare([DONE, REFUSED])
    assert found["parameters"] == {"seed": [3, 4], "c": [1.0, 1.0]}
    assert found["gates"]["f1 at least 0.9"] == [None, False]
    shown = told("compare", DONE.id, REFUSED.id).stdout
    assert "open" in shown and "shut" in shown and "0.95" in shown
    assert told("compare", DONE.id).exit_code == 2
    assert json.loads(told("compare", DONE.id, "last", "--json").stdout)["runs"][1] == FAILED.id


@pytest.mark.parametrize("word", ["2026", "x"])
def test_which_run_is_that(word: str, house: Path):
    shown = told("show", word)
    assert shown.exit_code == 2 and shown.stderr.startswith("error: " + word)


def test_resume_says_why_not(house: Path):
    assert "has succeeded, with version 3" in told("resume", DONE.id).stderr


def test_what_train_takes():
    assert pairs(["a=1", "b==", 'c={"d": [1]}', "e="]) == {
        "a": "1", "b": "=", "c": {"d": [1]}, "e": "",
    }  # fmt: skip
    for text in ("a", "=1", "a=[1"):
        with pytest.raises(typer.BadParameter):
            pairs([text])


def test_the_last_lines(capsys: pytest.CaptureFixture[str]):
    show_end(REFUSED)
    out = capsys.readouterr().out
    assert "✗ f1 is 0.5 [tests], at least" in out and "refused: 1 of 2 gates are shut" in out
    show_end(DONE)
    assert "headrace promote wine 3 --reason" in capsys.readouterr().out
    show_end(FAILED)
    assert f"headrace runs resume {FAILED.id} --changed" in capsys.readouterr().err


def test_changed_code_teaches(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(typer.Exit) as ended, misuse_told():
        raise CodeChanged("other code")
    assert ended.value.exit_code == 2 and "--changed" in capsys.readouterr().err


def test_step_by_step(capsys: pytest.CaptureFixture[str]):
    with Shown(quiet=False) as shown:
        shown.begins(DONE, "extract")
        shown.ends(DONE, DONE.steps[0], repeated=True)
        shown.begins(DONE, "train")
        shown.reports(DONE, Point(0.0, "train", {"loss": 0.25}))
        assert shown.table().row_count == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"run {DONE.id} of pipeline:Wines"
    assert lines[1].split(maxsplit=3) == ["·", "extract", "kept", "178 rows, 14 columns"]
    assert lines[2].startswith("✗ train") and lines[2].endswith("loss 0.25")


def test_nothing_of_it_costs_the_command_line(house: Path):
    """Listing runs imports no DBOS, and training none before it trains."""
    code = "import sys, headrace.cli.runs, headrace.pipeline.place; print('dbos' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
