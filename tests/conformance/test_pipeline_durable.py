"""Runs on DBOS, in real processes that are killed: what has finished is not run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS

from headrace.pipeline.durable import Engine
from headrace.pipeline.entry import CodeChanged
from headrace.pipeline.place import Place, place
from headrace.pipeline.run import STEPS, seen
from headrace.pipeline.seam import (
    SeamError,
    schedule,
    schedules,
    status,
    trigger,
    unschedule,
)
from headrace.pipeline.serve import command_for, serve
from headrace.pipeline.steps import Steps
from headrace.settings import load
from headrace.testing.services import Postgres

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
ONNX = ROOT / "examples" / "quickstart" / "model.onnx"

#: Each step leaves a line in `ran`; `broken` and `slow` are files that say so.
PIPELINE = """
import os, shutil, time
from dataclasses import dataclass
from pathlib import Path
import headrace
from headrace.pipeline import Pipeline

HERE = Path(__file__).parent

class Doubled(headrace.Model):
    def load(self, files):
        assert (files / "model.onnx").is_file()

    def predict(self, xs: list[float]) -> list[float]:
        return [2 * x for x in xs]

@dataclass
class Params:
    by: float = 2.0

def ran(step):
    with (HERE / "ran").open("a") as file:
        file.write(step + "\\n")

class Doubles(Pipeline[Params]):
    model = Doubled

    def extract(self) -> list[float]:
        ran("extract")
        return [1.0, 2.0]

    def prepare(self, xs: list[float]) -> list[float]:
        ran("prepare")
        return xs

    def train(self, xs: list[float], folder: Path) -> None:
        ran("train")
        if (HERE / "broken").exists():
            raise RuntimeError("out of memory")
        shutil.copy(HERE / "model.onnx", folder / "model.onnx")

    def evaluate(self, xs: list[float], model: Doubled) -> dict[str, float]:
        ran("evaluate")
        return {"error": abs(model.predict(xs)[0] - self.params.by)}
"""

#: The command line with a failpoint: dies behind the step of this number; 0 for none.
CHILD = """
import signal, sys, typer
from headrace import failpoints
from headrace.cli.runs import runs
from headrace.cli.told import told_plainly
from headrace.cli.train import train
if int(sys.argv[1]):
    failpoints._armed["pipeline.stepped"] = (signal.SIGKILL, int(sys.argv[1]))
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(train)
app.add_typer(runs, name="runs")
with told_plainly():
    app(sys.argv[2:], prog_name="headrace")
"""

#: What a server starts, killed behind the second step.
KILLED = """
import signal, sys
from headrace import failpoints
from headrace.pipeline.serve import main
failpoints._armed["pipeline.stepped"] = (signal.SIGKILL, 2)
main(sys.argv[1:])
"""

AUTHORS = ["extract", "prepare", "train", "evaluate"]


class Scene:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "doubles.py").write_text(PIPELINE)
        (folder / "model.onnx").write_bytes(ONNX.read_bytes())
        (folder / "headrace.toml").write_text("")

    def settings(self, database: str = "") -> None:
        (self.folder / "headrace.toml").write_text(f"[database]\nurl = '{database}'\n")

    def place(self) -> Place:
        return place(load(self.folder / "headrace.toml", environment={}))

    def headrace(self, *arguments: str, dies_behind: int = 0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", CHILD, str(dies_behind), *arguments],
            cwd=self.folder, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip

    def ran(self) -> list[str]:
        path = self.folder / "ran"
        lines = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    before = sys.path.copy()
    yield Scene(tmp_path)
    sys.path[:] = before
    sys.modules.pop("doubles", None)


def test_a_killed_run_goes_on_behind_what_has_finished(scene: Scene):
    killed = scene.headrace("train", "doubles:Doubles", "-p", "by=2.5", dies_behind=2)
    assert killed.returncode == -signal.SIGKILL and scene.ran() == ["extract"]
    [left] = scene.place().tracker.runs(10)
    assert (left.state, seen(left), left.step) == ("running", "interrupted", "validate")

    resumed = scene.headrace("runs", "resume", "last", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert scene.ran() == ["prepare", "train", "evaluate"]
    run = json.loads(resumed.stdout)
    assert (run["id"], run["state"], run["version"]) == (left.id, "succeeded", "1")
    assert run["params"] == {"by": 2.5} and run["metrics"] == {"error": 0.5}
    assert [step["name"] for step in run["steps"]] == list(STEPS)
    assert run["steps"][0]["began"] == left.steps[0].began and len(run["resumed"]) == 1


def on(scene: Scene, *, queue: str = "run-test") -> Engine:
    return Engine(scene.place(), queue=queue)


def fail_and_mend(scene: Scene) -> None:
    (scene.folder / "broken").touch()
    with on(scene, queue="").open() as engine:
        run = engine.run("doubles:Doubles", scene.folder, {})
    assert (run.state, run.step, run.problem) == ("failed", "train", "RuntimeError: out of memory")
    assert scene.ran() == ["extract", "prepare", "train"]
    (scene.folder / "broken").unlink()
    with on(scene).open() as engine:
        run = engine.resume(run)
        assert run.state == "succeeded" and scene.ran() == ["train", "evaluate"]
        # Code that has changed goes on only where somebody says so.
        run.state, run.step = "failed", "evaluate"
        source = scene.folder / "doubles.py"
        source.write_text(source.read_text() + "# other")
        with pytest.raises(CodeChanged):
            engine.resume(run)
        run = engine.resume(run, "evaluate", changed=True)
        assert run.state == "succeeded" and scene.ran() == ["evaluate"]
        assert run.code_now() != run.code and len(run.resumed) == 2


def test_a_failed_run_goes_on_at_its_step(scene: Scene):
    fail_and_mend(scene)


def test_so_it_does_on_postgresql(scene: Scene, postgres: Postgres):
    scene.settings(postgres.database())
    fail_and_mend(scene)
    assert not list(scene.folder.glob(".headrace/*.db"))


def test_the_same_files_are_not_registered_twice(scene: Scene):
    """As by a process that was killed when it had registered them and before it could say so."""
    at = scene.place()
    with on(scene, queue="").open() as engine:
        run = engine.run("doubles:Doubles", scene.folder, {})
    kind: Any = sys.modules["doubles"].Doubles
    steps = Steps(kind(), run, at.kept, at.shelf, at.work)
    assert steps.do("register").value.number == 1
    version = at.shelf.production("doubled")
    assert version is None and run.version == "1"


def test_what_is_triggered_runs_once_for_each_key(scene: Scene):
    at = scene.place()
    first = trigger(at, "doubles:Doubles", scene.folder, {"by": "3"}, key="night 1")
    assert (first.state, first.asked_by, first.params) == ("waiting", "trigger", {"by": "3"})
    assert trigger(at, "doubles:Doubles", scene.folder, {"by": "3"}, key="night 1") == first
    with pytest.raises(SeamError, match="whose parameters are others"):
        trigger(at, "doubles:Doubles", scene.folder, {"by": 4}, key="night 1")
    wrong = trigger(at, "doubles:Doubles", scene.folder, {"of": 4})
    # A schedule asks for a run of its own each time, by the clock of its zone.
    wanted = schedule(
        at, "nightly", "doubles:Doubles", scene.folder, {"by": 5},
        cron="0 3 * * *", zone="Europe/London",
    )  # fmt: skip
    assert schedules(at) == [wanted]

    ask = command_for(str(scene.folder / "headrace.toml"))
    asked: list[str] = []

    def command(run: str) -> list[str]:
        """The first process is killed behind its second step."""
        asked.append(run)
        return ask(run) if len(asked) > 1 else [sys.executable, "-c", KILLED, *ask(run)[3:]]

    nightly = ""

    def done() -> bool:
        nonlocal nightly
        if not nightly and len(asked) >= 3:
            handle: Any = DBOS.trigger_schedule("nightly")
            nightly = handle.get_result(polling_interval_sec=0.05)
        return bool(nightly) and seen(status(at, nightly)) in ("succeeded", "failed")

    with Engine(at).open() as engine:
        serve(engine, command, done, every_s=0.05)
    assert asked == [first.id, first.id, wrong.id, nightly]
    assert scene.ran() == [*AUTHORS, *AUTHORS]
    first, wrong, last = (status(at, run) for run in (first.id, wrong.id, nightly))
    assert (first.state, first.params, len(first.resumed)) == ("succeeded", {"by": 3.0}, 1)
    assert (wrong.state, wrong.problem) == ("failed", "doubles has no parameter 'of', only: by")
    assert (last.state, last.asked_by, last.params) == ("succeeded", "nightly", {"by": 5.0})
    assert trigger(at, "doubles:Doubles", scene.folder, {"by": "3"}, key="night 1") == first
    unschedule(at, "nightly")
    assert schedules(at) == []


def test_a_process_that_cannot_start_does_not_do_so_for_ever(scene: Scene):
    at = scene.place()
    run = trigger(at, "doubles:Doubles", scene.folder, {})
    with Engine(at).open() as engine:
        serve(engine, lambda run: ["false"], lambda: status(at, run.id).state == "failed", 0.05)
    assert "ended with status 1 before" in status(at, run.id).problem


@pytest.mark.parametrize(
    ("cron", "zone", "why"),
    [
        ("0 3 * *", "UTC", "expected minute, hour"),
        ("61 3 * * *", "UTC", "expected minute, hour"),
        ("0 3 * * *", "Europe/Atlantis", "expected a time zone"),
        ("0 3 * * *", "../etc/passwd", "expected a time zone"),
    ],
)
def test_times_that_are_none(cron: str, zone: str, why: str, scene: Scene):
    with pytest.raises(SeamError, match=why):
        schedule(scene.place(), "n", "doubles:Doubles", scene.folder, {}, cron=cron, zone=zone)


def test_the_code_of_a_frame_that_does_not_fit_is_told_by_row(scene: Scene):
    (scene.folder / "doubles.py").write_text(
        PIPELINE.replace("[1.0, 2.0]", "pl.DataFrame({'x': [1.0, -2.0], 'y': ['a', 'b']})")
        .replace(
            '-> list[float]:\n        ran("extract")', "-> pl.DataFrame:\n        ran('extract')"
        )
        .replace("    model = Doubled\n", "    model = Doubled\n    schema = SCHEMA\n")
        .replace(
            "HERE =",
            "import polars as pl\nimport pandera.polars as pa\n"
            "SCHEMA = pa.DataFrameSchema({'x': pa.Column(float, pa.Check.ge(0)),"
            " 'y': pa.Column(int)})\nHERE =",
        )
    )
    with on(scene, queue="").open() as engine:
        run = engine.run("doubles:Doubles", scene.folder, {})
    assert (run.state, run.step) == ("failed", "validate")
    assert run.problem.splitlines() == [
        "the data do not fit the schema",
        "x: greater_than_or_equal_to(0), found -2.0 in row 1",
        "y: dtype('Int64'), found String",
    ]
    assert run.steps[0].note == "2 rows, 2 columns"


def test_an_interrupted_command_says_how_to_go_on(scene: Scene):
    source = scene.folder / "doubles.py"
    source.write_text(
        source.read_text().replace('ran("train")\n', 'ran("train"); time.sleep(60)\n')
    )
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, "0", "train", "doubles:Doubles"],
        cwd=scene.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(1200):
        if (scene.folder / "ran").exists() and "train" in (scene.folder / "ran").read_text():
            break
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130 and "interrupted; headrace runs resume" in said
