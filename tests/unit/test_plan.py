"""Nodes, zones and cost for a demand, against what can be counted by hand."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from headrace.autoscale.capacity import (
    BadCapacity,
    Capacity,
    Demand,
    NodeType,
    Packing,
    Zone,
    read,
)
from headrace.autoscale.plan import HOURS_A_MONTH, NoPlan, Plan, WhatIf, plan
from headrace.autoscale.size import nodes
from headrace.cli.plan import asked, title, zones
from headrace.cli.plan import plan as command

EXAMPLE = Path(__file__).parents[2] / "examples" / "capacity" / "ekyc.toml"


def packing(workers: int = 4, p95_s: float = 1.0, **more: Any) -> Packing:
    return Packing(workers=workers, service_s=1.0, p95_s=p95_s, per_second=float(workers), **more)


def kind(name: str = "gpu", price: float = 2.0, gpu: bool = True, *packed: Packing) -> NodeType:
    return NodeType(name=name, price_hour=price, gpu=gpu, packing=packed or (packing(),))


def capacity(*kinds: NodeType, zones: str = "a", spare: bool = False, **demand: Any) -> Capacity:
    wanted = {"calls_a_day": 86_400 * 100.0, "slo_s": 3.0} | demand
    return Capacity(
        demand=Demand(**wanted),
        nodes=kinds or (kind(),),
        zones=tuple(Zone(name=name.lower(), gpu=name.islower()) for name in zones),
        spare_zone=spare,
    )


def placed(found: Plan) -> dict[tuple[str, str], int]:
    return {(place.node, place.zone): place.count for place in found.peak}


PEAK = WhatIf(mode="peak")


def test_one_kind_in_one_zone_is_erlangs_count():
    found = plan(capacity(), PEAK)
    demand = capacity().demand
    wanted = nodes(100.0, packing().node(), demand.target(packing()))
    assert placed(found) == {("gpu", "a"): wanted}
    assert found.cost_month == pytest.approx(wanted * 2.0 * HOURS_A_MONTH)


def test_odd_here_even_there():
    found = plan(capacity(zones="ab"), PEAK)
    assert found.peak_nodes == 28 and placed(found) == {("gpu", "a"): 14, ("gpu", "b"): 14}


def test_none_where_a_zone_has_no_gpu():
    found = plan(capacity(zones="aBc"), PEAK)
    assert set(placed(found)) == {("gpu", "a"), ("gpu", "c")}


def test_a_zone_to_spare():
    one = plan(capacity(zones="abc"), PEAK).peak_nodes
    found = placed(plan(capacity(zones="abc", spare=True), PEAK))
    assert sum(found.values()) - max(found.values()) >= one
    assert sum(found.values()) <= one * 3 / 2 + 3


def test_the_cheaper_a_call_is_taken_and_a_mix_where_it_pays():
    big, small = kind("big", 8.0, True, packing(16)), kind("small", 2.5)
    assert {node for node, _ in placed(plan(capacity(big, small), PEAK))} == {"big"}
    some = plan(capacity(big, small, calls_a_day=86_400 * 31.0), PEAK)
    assert placed(some) == {("big", "a"): 2, ("small", "a"): 1}


def test_cpu_nodes_only_where_the_model_needs_no_gpu():
    cheap = kind("cpu", 0.5, False)
    assert {n for n, _ in placed(plan(capacity(kind(), cheap, zones="A"), PEAK))} == {"cpu"}
    needs = capacity(kind(), cheap, needs_gpu=True)
    assert {n for n, _ in placed(plan(needs, PEAK))} == {"gpu"}


def test_the_best_packing_inside_the_promise():
    slow = packing(8, p95_s=3.5)
    tried = capacity(kind("gpu", 2.0, True, packing(1), packing(4), slow))
    assert plan(tried, PEAK).packing == {"gpu": 4}
    assert plan(tried, WhatIf(slo_s=5.0)).packing == {"gpu": 8}
    assert plan(tried, WhatIf(packing=1)).packing == {"gpu": 1}


def test_counts_follow_the_hours_and_starting_is_paid():
    hours = (0.0,) * 12 + (2.0,) * 12
    found = plan(capacity(hours=hours, lead_s=1800.0), WhatIf())
    night, day = found.hourly[0], found.hourly[12]
    assert night == 1 and day > 50
    a_day = 12 * night + 12 * day + 0.5 * (day - night)
    assert found.node_hours_month == pytest.approx(a_day * HOURS_A_MONTH / 24)


@pytest.mark.parametrize(
    ("tried", "what", "why"),
    [
        (capacity(), WhatIf(slo_s=1.0), "gpu has a p95 of 1 s and more"),
        (capacity(), WhatIf(packing=3), "gpu was not measured with k = 3"),
        (capacity(), WhatIf(node="tpu"), "no node type 'tpu', only gpu"),
        (capacity(zones="A"), PEAK, "no zone has a GPU"),
        (capacity(kind("cpu", 1.0, False), needs_gpu=True), PEAK, "cpu has no GPU"),
        (
            msgspec.structs.replace(capacity(), zones=(Zone(name="a", most=5),)),
            PEAK,
            "the peak needs 28 of gpu: the zones allow fewer",
        ),
    ],
)
def test_what_cannot_be_says_why(tried: Capacity, what: WhatIf, why: str):
    with pytest.raises(NoPlan, match=why):
        plan(tried, what)


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 300), st.floats(1, 3), st.sampled_from(["a", "ab", "aBc"]), st.booleans())
def test_more_calls_never_cost_less(rate, by, names, spare):
    few = plan(capacity(zones=names, spare=spare, calls_a_day=86_400 * rate), PEAK)
    many = plan(capacity(zones=names, spare=spare, calls_a_day=86_400 * rate * by), PEAK)
    assert many.cost_month >= few.cost_month - 1e-6


# -- the file and the command ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("demand = 3", r"Expected `object`, got `int` - at `\$.demand`"),
        ("[demand]\ncalls = 3", "unknown field `calls`"),
        ("[demand", "Expected|expected"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, why: str):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(BadCapacity, match=why):
        read(tmp_path / "c.toml")


def test_names_are_unique(tmp_path: Path):
    text = EXAMPLE.read_text() + '\n[[zones]]\nname = "a"\n'
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(BadCapacity, match="each name once, found a, b, c, a"):
        read(tmp_path / "c.toml")


def test_nobody_calls_at_all():
    with pytest.raises(BadCapacity, match="no hour"):
        plan(capacity(hours=(0.0,) * 24), PEAK)


def test_the_arithmetic_of_the_model_system():
    """A predicted bill of a hundred thousand a month came down to ten, four times by packing."""
    given = read(EXAMPLE)
    alone = plan(given, WhatIf(mode="peak", packing=1)).cost_month
    packed = plan(given, PEAK).cost_month
    follows = plan(given, WhatIf()).cost_month
    assert 90_000 < alone < 110_000
    assert alone / packed == pytest.approx(4, rel=0.05)
    assert follows < 10_000 and follows < 0.1 * alone


app = typer.Typer()
app.command()(command)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments])


def test_the_table(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "140")
    told = run(str(EXAMPLE), "--what-if", "slo=2,packing=1")
    assert told.exit_code == 0
    assert "following the hours, k = 1, p95 2 s" in told.stdout
    assert "gpu in a, " in told.stdout and "91%" in told.stdout


def test_json_and_plot(tmp_path: Path):
    picture = tmp_path / "plan.png"
    told = run(str(EXAMPLE), "--json", "--plot", str(picture))
    assert [one["packing"]["gpu"] for one in json.loads(told.stdout)] == [1, 4, 4]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["size=3", "packing", "packing=many", "mode=never"])
def test_a_what_if_that_is_none(text: str):
    assert run(str(EXAMPLE), "--what-if", text).exit_code == 2


def test_no_plan_is_told_in_one_line():
    told = run(str(EXAMPLE), "--what-if", "slo=0.5")
    assert told.exit_code == 1 and "no node type keeps p95 0.5 s" in told.stderr


def test_titles_and_places():
    assert asked("packing=1,slo=2") == WhatIf(packing=1, slo_s=2.0)
    assert title(WhatIf(mode="peak", node="gpu")) == "the peak, always, gpu"
    assert zones(plan(capacity(zones="ab"), PEAK)) == "14 gpu in a, 14 in b"
