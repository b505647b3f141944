"""What is written of a run, how it is found again, which code and parameters it had."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

import headrace
from headrace.pipeline import Pipeline
from headrace.pipeline.author import params_type
from headrace.pipeline.entry import CodeChanged, RunError, check
from headrace.pipeline.run import Code, Run, gone, id_of, new_id, process, seen
from headrace.pipeline.target import TargetError, code, find, params, plain
from headrace.pipeline.track import Point, RunUnknown, one
from headrace.pipeline.track_file import FileTracker


class Any1(headrace.Model):
    def predict(self, xs: list[float]) -> list[float]:
        return xs


@dataclass
class Optimiser:
    rate: float = 0.1


@dataclass
class Values:
    seed: int = 0
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.3
    names: list[str] = field(default_factory=list)
    optimiser: Optimiser = field(default_factory=Optimiser)


class WithValues(Pipeline[Values]):
    model = Any1


class Inherits(WithValues):
    pass


class Without(Pipeline[None]):
    model = Any1


class Empty(msgspec.Struct):
    depth: int = 3


class WithStruct(Pipeline[Empty]):
    model = Any1
    name = "trees"


def a_run(id: str = "20261122-193201-4f2a", **more: Any) -> Run:
    given: dict[str, Any] = {
        "id": id, "pipeline": "wines", "target": "t:P", "folder": "/x", "model": "wine",
        "params": {"seed": 3}, "code": Code("s"),
    }  # fmt: skip
    return Run(**(given | more))


# -- ids and processes -----------------------------------------------------------------------------


def test_ids_sort_by_time_and_keys_have_one():
    assert new_id(0.0).startswith("19700101-000000-") and new_id(0.0) < new_id(1.0)
    assert id_of("a", "t:P") == id_of("a", "t:P") != id_of("a", "t:Q")
    assert id_of("a", "t:P") != id_of("b", "t:P")


def test_a_process_is_gone_when_it_has_ended():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    host, _, start = process().rsplit(":", 2)
    its = f"{host}:{child.pid}"
    assert not gone(process()) and gone(f"{its}:1")
    child.communicate(b"\n")
    assert gone(f"{its}:{start}")
    assert not gone("another-machine:1:1") and not gone("") and not gone("x")


def test_interrupted_is_what_is_seen():
    host = process().split(":")[0]
    assert seen(a_run(state="running", process=process())) == "running"
    assert seen(a_run(state="running", process=f"{host}:{os.getpid()}:1")) == "interrupted"
    assert seen(a_run(state="failed", process=f"{host}:{os.getpid()}:1")) == "failed"


# -- what may go on --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "step", "why"),
    [
        (a_run(state="running", process=process()), "", "is running"),
        (a_run(state="succeeded", version="3"), "", "has succeeded, with version 3"),
        (a_run(state="refused"), "", "was refused by its gates"),
        (a_run(state="failed", step="train"), "evaluate", "came to train"),
        (a_run(state="failed", step="train"), "bake", "expected one of extract"),
    ],
)
def test_what_may_not_go_on_says_why(run: Run, step: str, why: str):
    with pytest.raises(RunError, match=why):
        check(run, step, changed=False)


def test_changed_code_does_not_go_on_by_itself():
    folder = str(Path(__file__).parent)
    run = a_run(state="failed", step="train", target=f"{__name__}:WithValues", folder=folder)
    with pytest.raises(CodeChanged, match="not that which"):
        check(run, "", changed=False)
    check(run, "", changed=True)
    run.code = code(WithValues, Path(folder))
    check(run, "train", changed=False)


# -- targets and parameters ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("nothing", 'expected "module:Class"'),
        ("nowhere_at_all:X", "no module 'nowhere_at_all'"),
        (f"{__name__}:Nope", "has no headrace.pipeline.Pipeline Nope"),
        (f"{__name__}:Any1", "has no headrace.pipeline.Pipeline Any1"),
        ("headrace.pipeline:Pipeline", "`model` is not set"),
    ],
)
def test_no_such_pipeline(target: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    with pytest.raises(TargetError, match=why):
        find(target, tmp_path)


def test_names_are_of_the_class_or_said():
    assert (WithValues.name, WithStruct.name) == ("with-values", "trees")


def test_parameters_are_found_in_the_brackets():
    assert params_type(Inherits) is Values and params_type(WithStruct) is Empty
    assert Without().params is not None


def test_values_come_as_text_and_are_written_down_whole():
    found = params(WithValues, {"seed": "3", "names": ["a"]})
    assert plain(found) == {
        "seed": 3, "share": 0.3, "names": ["a"], "optimiser": {"rate": 0.1},
    }  # fmt: skip
    assert plain(params(WithStruct, {"depth": "4"})) == {"depth": 4}
    assert plain(params(Without, {})) == {}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"sed": "3"}, "has no parameter 'sed', only: seed, share"),
        ({"seed": "x"}, "Expected `int`, got `str` - at `[$].seed`"),
        ({"share": "1"}, "share"),
    ],
)
def test_values_that_are_none(given: dict[str, Any], why: str):
    with pytest.raises(TargetError, match=why):
        params(WithValues, given)


def test_the_commit_and_what_was_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            cwd=tmp_path, check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    text = (
        "import headrace\nfrom headrace.pipeline import Pipeline\n"
        "class M(headrace.Model):\n    def predict(self, x: list[int]) -> list[int]: return x\n"
        "class P(Pipeline):\n    model = M\n"
    )
    (tmp_path / "gitted_pipeline.py").write_text(text)
    kind = find("gitted_pipeline:P", tmp_path)
    outside = code(kind, tmp_path)
    assert (outside.commit, outside.dirty) == ("", False)
    git("init", "-q")
    (tmp_path / "other.txt").write_text("x")
    git("add", "other.txt")
    git("commit", "-qm", "a")
    untracked = code(kind, tmp_path)
    assert untracked.commit == git("rev-parse", "HEAD") and untracked.dirty
    git("add", "gitted_pipeline.py")
    git("commit", "-qm", "b")
    assert not code(kind, tmp_path).dirty and code(kind, tmp_path).source == outside.source
    (tmp_path / "gitted_pipeline.py").write_text(text + "#")
    changed = code(kind, tmp_path)
    assert changed.dirty and changed.source != outside.source


# -- records as files ------------------------------------------------------------------------------


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path: Path):
    tracker = FileTracker(tmp_path)
    with pytest.raises(RunUnknown, match="there are no runs yet"):
        one(tracker, "last")
    for n, name in enumerate(("20261122-1-a", "20261122-2-b", "key-3")):
        tracker.create(a_run(name, created=float(n)))
    assert one(tracker, "last").id == "key-3" and one(tracker, "20261122-1").id == "20261122-1-a"
    with pytest.raises(RunUnknown, match="2 runs begin so, among them 20261122-2-b"):
        one(tracker, "2026")
    for word in ("x", "../x", ""):
        with pytest.raises(RunUnknown):
            tracker.get(word)


def test_a_series_that_a_crash_cut_off(tmp_path: Path):
    tracker = FileTracker(tmp_path)
    run = a_run()
    tracker.create(run)
    tracker.report(run, Point(1.0, "train", {"loss": 0.5}))
    with (tmp_path / run.id / "series.jsonl").open("ab") as file:
        file.write(b'[2.0,"tra')
    assert tracker.series(run.id) == [Point(1.0, "train", {"loss": 0.5})]
