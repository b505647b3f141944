"""Replays: the queue, traces, rivals, scores; the same seed gives the same figures."""

import json
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from headrace.autoscale.forecast import DAY
from headrace.autoscale.replay import Moment, Scene, replay
from headrace.autoscale.rivals import Clairvoyant, Hpa, Keda, Regression, Static, needed, opening
from headrace.autoscale.score import score
from headrace.autoscale.simulate import POLICIES, Simulation, simulate
from headrace.autoscale.traces import BadTrace, Trace, read_csv, shop, trace, world_cup
from headrace.cli.simulate import bars
from headrace.cli.simulate import simulate as command
from headrace.policy import Node, Policy, Target

START = 29_460_000  # a minute


class Always:
    name = "always"

    def __init__(self, *counts: int) -> None:
        self._counts = counts

    def count(self, moment: Moment) -> int:
        return self._counts[min(moment.at, len(self._counts) - 1)]


def scene(*calls: float, boot_min: int = 10) -> Scene:
    return Scene(np.array(calls, dtype=float), START, Node(), Target(), boot_min)


# -- the queue -------------------------------------------------------------------------------------


def test_a_node_serves_240_calls_a_minute():
    assert replay(scene(*[100.0] * 5), Always(1), 1).late.sum() < 1
    late = replay(scene(*[300.0] * 5), Always(1), 1).late
    # 60 more wait each minute; 8 may (2 s of 4 calls/s): reached after 8 s, then all are late.
    assert late[0] == pytest.approx(300 * (1 - 8 / 60))
    assert late[1:].tolist() == [300.0] * 4


def test_what_waited_past_its_deadline_has_left():
    """30 s of 4 calls/s are 120, of the 1,000 that could not be served; half a minute's work."""
    late = replay(scene(1240.0, 0.0, 0.0, 100.0), Always(1), 1).late
    assert late[1] == 0.0 and late[3] < 1.0
    patient = scene(1240.0, 200.0, 200.0, 200.0)._replace(deadline_s=1e9)
    assert replay(patient, Always(1), 1).late[1:].tolist() == [200.0] * 3


def test_a_node_comes_when_it_has_started_and_is_paid_from_the_asking_on():
    run = replay(scene(*[60.0] * 14), Always(3), 1)
    assert run.ready.tolist() == [1] * 10 + [3] * 4
    assert run.present.tolist() == [3] * 14


def test_the_newest_on_their_way_go_first():
    run = replay(scene(*[60.0] * 5, boot_min=3), Always(3, 2, 1), 1)
    assert run.present.tolist() == [3, 2, 1, 1, 1]
    assert run.ready.tolist() == [1] * 5


# -- rivals ----------------------------------------------------------------------------------------


def test_hpa_sees_no_more_than_is_busy_keda_sees_the_queue():
    flood = Moment(at=0, ready=10, pending=0, waiting=400.0, busy=40.0)
    busy = scene(60_000.0)
    assert Hpa(busy).count(flood) == 15  # 40 / 2.8
    assert Keda(busy).count(flood) == 158


def test_neither_goes_above_what_the_busiest_minute_needs():
    flood = Moment(at=0, ready=10, pending=0, waiting=1e6, busy=40.0)
    assert Keda(scene(6_000.0)).count(flood) == needed(scene(6_000.0)).max()


def test_hpa_does_nothing_within_its_tolerance():
    near = Moment(at=0, ready=10, pending=0, waiting=0.0, busy=30.0)
    assert Hpa(scene(6_000.0)).count(near) == 10


def test_they_lower_after_five_minutes():
    keda = Keda(scene(6_000.0))
    counts = [keda.count(Moment(0, 10, 0, 0.0, busy)) for busy in [28.0] + [2.8] * 5]
    assert counts == [10] * 5 + [1]


def test_the_regression_follows_its_line():
    rising = scene(*np.arange(60.0) * 100)
    line = Regression(rising)
    assert line.count(Moment(40, 1, 0, 0.0, 0.0)) == 31  # 5900 a minute at minute 59, 3.2 a node


def test_the_clairvoyant_is_there_in_time_and_static_always():
    calls = [60.0] * 40 + [2400.0] * 20 + [60.0] * 20
    known = replay(scene(*calls), Clairvoyant(scene(*calls)), 1)
    need = needed(scene(*calls))
    assert known.ready.tolist() == need.tolist()
    assert Static(scene(*calls), 0).count(Moment(0, 1, 0, 0.0, 0.0)) == need.max()


def test_the_time_table_of_shops_is_that_of_their_mornings():
    made = trace("shop", days=1, warm_days=7, seed=1, calls_a_day=2e6, from_day=None)
    found = Scene(made.calls, made.start_min, Node(), Target())
    [line] = opening(found, made.warm_min)
    assert line.start == "08:50" and line.floor is not None and 10 < line.floor < 40


# -- traces ----------------------------------------------------------------------------------------


def test_shops_open_at_nine_and_rest_on_sunday():
    week = shop(7, seed=1).reshape(7, DAY)
    assert (week[:, 10 * 60] > 5 * week[:, 8 * 60]).all()
    assert week[6].sum() < 0.5 * week[0].sum()


def test_world_cup_is_what_was_recorded():
    assert world_cup(0, 2)[:3].tolist() == [841.0, 737.0, 690.0]
    with pytest.raises(BadTrace, match="World Cup 98 has 86 days, 90 are asked for"):
        world_cup(80, 10)


@pytest.mark.parametrize("name", ["shop", "worldcup98"])
def test_traces_are_scaled_drawn_and_the_same_for_the_same_seed(name: str):
    def made(seed: int) -> Trace:
        return trace(name, days=2, warm_days=1, seed=seed, calls_a_day=2e6, from_day=None)

    one = made(1)
    assert one.calls[DAY:].sum() == pytest.approx(4e6, rel=0.01)
    assert (one.calls == made(1).calls).all()
    assert not (one.calls == made(2).calls).all()


def test_a_file_of_calls(tmp_path: Path):
    file = tmp_path / "calls.csv"
    file.write_text("minute,count\n" + "".join(f"{m},{m % 7}\n" for m in range(2 * DAY)))
    assert read_csv(file)[:9].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    made = trace(str(file), days=20, warm_days=1, seed=1, calls_a_day=1e5, from_day=None)
    assert made.name == "calls" and len(made.calls) == 2 * DAY


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("count\n1\nmany\n", "expected calls a minute in the last column"),
        ("1\n-1\n", "expected calls a minute of 0 or more"),
        ("1\n2\n", "2 minutes are less than 2 days"),
        ("0\n" * 2 * DAY, "nobody calls"),
        ("", "0 minutes are less"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, why: str):
    file = tmp_path / "calls.csv"
    file.write_text(text)
    with pytest.raises(BadTrace, match=why):
        trace(str(file), days=1, warm_days=1, seed=1, calls_a_day=1e5, from_day=None)


# -- the whole -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def week() -> Simulation:
    made = trace("shop", days=2, warm_days=2, seed=4, calls_a_day=2e6, from_day=None)
    return simulate(made, Policy())


def test_ours_keeps_what_the_others_break(week: Simulation):
    late = {one.policy: one.late_percent for one in week.report.scores}
    cost = {one.policy: one.cost for one in week.report.scores}
    assert late["ours"] < 0.5 < late["HPA, 70 % busy"]
    assert late["ours"] < late["KEDA, queue length"] and cost["ours"] < cost["KEDA, queue length"]
    assert cost["clairvoyant"] == 1.0 and cost["static peak"] > 2
    assert week.report.saved_percent is not None and week.report.saved_percent > 85


def test_the_same_seed_gives_the_same_report_side_by_side_too(week: Simulation):
    made, told = trace("shop", days=2, warm_days=2, seed=4, calls_a_day=2e6, from_day=None), []
    with ThreadPool(2) as pool:
        again = simulate(made, Policy(), told=told.append, each=pool.imap_unordered)
    assert again.report == week.report and sorted(told) == sorted(POLICIES)


def test_scores_are_those_of_the_definition():
    found = scene(*[60.0] * 4)
    need = np.array([2, 2, 4, 4])
    best = replay(found, Always(2), 2)
    run = replay(found, Always(3, 3, 3, 1), 3)
    made = score(run, best, need, found, 0)
    assert (made.theta_over, made.theta_under) == (25.0, 25.0)
    assert (made.tau_over, made.tau_under) == (50.0, 50.0)
    assert made.instability == pytest.approx(200 / 3)
    assert made.cost == pytest.approx(10 / 8)


# -- the command -----------------------------------------------------------------------------------

app = typer.Typer()
app.command()(command)
DAYS = ("--days", "1", "--warm-days", "1", "--policy", "ours")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments])


def test_the_table(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "120")
    told = run(*DAYS)
    assert told.exit_code == 0
    assert "calls in 1 day," in told.stdout and "late %" in told.stdout and "█" in told.stdout
    assert "saved against a static peak with one model process a node: 9" in told.stdout


def test_json_and_plot(tmp_path: Path):
    picture = tmp_path / "day.png"
    told = run(*DAYS, "--json", "--plot", str(picture))
    report = json.loads(told.stdout)
    assert [one["policy"] for one in report["scores"]] == ["ours"]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--policy", "magic"], "expected one of static, hpa"),
        (["--trace", "worldcup98", "--from-day", "80"], "86 days"),
    ],
)
def test_what_cannot_be(arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    told = run(*arguments)
    assert told.exit_code == 2 and why in told.stderr


def test_bars():
    assert bars([0, 4, 8, 8], 1, 8) == " ▄██"
    assert bars([0, 4, 8, 1], 2, 8) == "▄█"
