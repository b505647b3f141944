"""Where runs are written down: files, and a real MLflow server, by the same questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.errors import Unavailable
from headrace.house import free_port
from headrace.pipeline.gates import Verdict
from headrace.pipeline.run import Code, Run, Step
from headrace.pipeline.track import Point, RunUnknown, Tracker, one
from headrace.pipeline.track_file import FileTracker
from headrace.pipeline.track_mlflow import MlflowTracker
from headrace.testing.services.mlflow import Mlflow

pytestmark = pytest.mark.timeout(180)

Maker = Callable[[], Tracker]


@pytest.fixture(params=["file", "mlflow"])
def maker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    """A tracker each time it is called, as other processes have one."""
    made: list[Tracker] = []
    url = "" if request.param == "file" else request.getfixturevalue("mlflow").url

    def make() -> Tracker:
        made.append(MlflowTracker(url) if url else FileTracker(tmp_path))
        return made[-1]

    yield make
    for tracker in made:
        tracker.close()


def a_run(id: str, pipeline: str, **more: Any) -> Run:
    given: dict[str, Any] = {
        "id": id, "pipeline": pipeline, "target": "t:P", "folder": "/x", "model": "wine",
        "params": {"seed": 3, "long": "é" * 9000}, "code": Code("s", "c0ffee", True),
        "created": 1700000000.0,
    }  # fmt: skip
    return Run(**(given | more))


def test_a_run_is_read_as_it_was_written_last(maker: Maker):
    tracker = maker()
    run = a_run("r-1", "one")
    assert tracker.create(run) and maker().get("r-1") == run
    assert not maker().create(a_run("r-1", "one", state="failed"))
    assert maker().get("r-1").state == "waiting"
    run.state, run.step, run.process = "running", "train", "host:1:2"
    run.steps = [Step("extract", 1.0, 0.5, "d" * 64, "178 rows")]
    tracker.write(run)
    assert maker().get("r-1") == run
    run.state, run.ended, run.version = "succeeded", 1700000009.0, "3"
    run.metrics = {"f1": 0.5}
    run.verdicts = [Verdict("f1 at least 0.9", False, "f1 is 0.5", 0.5)]
    run.artifacts = {"model.onnx": "a" * 64}
    run.trace = "x" * 8000  # several tags
    maker().write(run)
    assert tracker.get("r-1") == run


def test_what_was_never_written_is_not_there(maker: Maker):
    tracker = maker()
    for word in ("r-0", "", "' OR 1=1", "../run"):
        with pytest.raises(RunUnknown):
            tracker.get(word)
    assert tracker.series("r-0") == [] and tracker.runs(5, "none") == []
    tracker.write(a_run("r-2", "two"))
    assert tracker.get("r-2").pipeline == "two"


def test_runs_are_listed_the_newest_first(maker: Maker):
    tracker = maker()
    for number in range(3):
        tracker.create(a_run(f"r-3{number}", "three", created=1700000000.0 + number))
    tracker.create(a_run("r-39", "four", created=1700000001.5))
    assert [run.id for run in tracker.runs(10, "three")] == ["r-32", "r-31", "r-30"]
    assert [run.id for run in tracker.runs(2, "three")] == ["r-32", "r-31"]
    newest = [run.id for run in tracker.runs(4)]
    assert [word for word in newest if word.startswith("r-3")][:3] == ["r-32", "r-39", "r-31"]
    assert one(tracker, "r-39").pipeline == "four"


def test_reports_are_a_series(maker: Maker):
    tracker = maker()
    run = a_run("r-4", "five")
    tracker.create(run)
    points = [
        Point(1700000000.0 + number, "train", {"loss": 1 / (1 + number), "rate": 0.1})
        for number in range(3)
    ]
    for point in points[:2]:
        tracker.report(run, point)
    maker().report(run, points[2])  # after a crash
    assert maker().series("r-4") == points


def test_mlflow_shows_a_run_like_any_other(mlflow: Mlflow):
    tracker = MlflowTracker(mlflow.url)
    run = a_run("r-5", "six", metrics={"f1": 0.5}, state="failed", ended=1700000009.0,
                began=1700000001.0)  # fmt: skip
    run.data = "d" * 64
    tracker.create(run)
    run.params["seed"] = 4  # resumed with other code: the first value stays in sight
    tracker.close()
    other = MlflowTracker(mlflow.url)
    other.write(run)
    assert other.get("r-5").params["seed"] == 4
    other.close()
    base = mlflow.url.replace("mlflow://", "http://") + "/api/2.0/mlflow/"
    found = httpx.post(base + "experiments/search", json={"filter": "name = 'headrace/six'",
                                                          "max_results": 9}).json()  # fmt: skip
    ids = [each["experiment_id"] for each in found["experiments"]]
    [seen] = httpx.post(base + "runs/search", json={"experiment_ids": ids}).json()["runs"]
    assert (seen["info"]["run_name"], seen["info"]["status"]) == ("r-5", "FAILED")
    assert {"key": "seed", "value": "3"} in seen["data"]["params"]
    assert seen["data"]["metrics"][0]["value"] == 0.5
    tags = {tag["key"]: tag["value"] for tag in seen["data"]["tags"]}
    assert tags["headrace.data"] == run.data and tags["mlflow.source.git.commit"] == "c0ffee"


def test_a_server_that_is_gone_is_told_so():
    tracker = MlflowTracker(f"mlflow://user:secret@127.0.0.1:{free_port()}", timeout_s=2)
    with pytest.raises(Unavailable) as told:
        tracker.runs(1)
    assert "tracking at mlflow://127.0.0.1" in told.value.detail
    assert "secret" not in told.value.detail
    tracker.close()
    with pytest.raises(ValueError, match="names no host"):
        MlflowTracker("mlflow://")
