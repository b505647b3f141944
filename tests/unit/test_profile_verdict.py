"""Which packing to use and why, the stored profile, and what reads it."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from headrace.autoscale import profile as stored
from headrace.autoscale.capacity import BadCapacity, read
from headrace.autoscale.plan import NoPlan, WhatIf, plan
from headrace.autoscale.profile import BadProfile, Point, Profile, Try, best
from headrace.cli.profile import counts
from headrace.cli.profile_shown import show, warnings
from headrace.policy import Policy
from headrace.profiling.run import Wanted
from headrace.profiling.verdict import judged, no_verdict
from headrace.settings import load


def tried(workers: int, per_second: float, **more: Any) -> Try:
    given = {"max_size": 1, "service_s": 0.1, "p95_s": 0.12, "confirmed": True} | more
    return Try(workers=workers, per_second=per_second, **given)


def profiled(*tries: Try, **more: Any) -> Profile:
    given: dict[str, Any] = {
        "model": "ocr", "version": "1", "node": "c2", "gpu": False, "devices": 1, "cores": 2,
        "slo_s": 3.0, "arrivals": "steady", "made": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    found = Profile(**(given | more), tries=tries)
    return replace(found, use=judged(found))


def test_the_smaller_packing_where_it_is_as_good():
    found = profiled(
        tried(1, 22), tried(2, 41, memory_mb=900), tried(4, 43, memory_mb=3000, start_s=(2.0, 4.0))
    )
    assert found.use and found.use.workers == 2
    assert found.use.why == (
        "use k = 2: 41 calls/s inside 3 s against 22 with k = 1 and 43 with k = 4, "
        "which costs 2.1 GB more"
    )
    assert found.start_s == 4.0


def test_the_greater_packing_where_it_pays_and_batches_by_the_same_measure():
    found = profiled(
        tried(1, 20, max_size=1), tried(1, 60, max_size=8), tried(1, 61, max_size=32),
        tried(2, 90, max_size=8, confirmed=False), tried(4, 0),
    )  # fmt: skip
    assert found.use and (found.use.workers, found.use.max_size) == (2, 8)
    assert found.use.why == (
        "use k = 2 with batches of up to 8: 90 calls/s inside 3 s against 60 with k = 1; "
        "nothing was sustained with k = 4; a second look did not confirm it in the time given"
    )
    assert best(list(found.tries[:3])) == found.tries[1]


def test_no_packing_keeps_the_promise():
    late = Point(rate=2.0, seconds=5.0, calls=10, answered=10, p50_s=4.0, p95_s=4.1, batch=1.0,
                 sustained=False, why="p95 4.1 s")  # fmt: skip
    found = profiled(tried(1, 0, windows=(late, replace(late, rate=9.0, why="the queue grew"))))
    assert found.use is None
    assert no_verdict(found) == "no rate was sustained inside 3 s: at 2 calls/s p95 4.1 s"
    assert "did not start" in no_verdict(profiled(tried(1, 0, why="it did not start")))


# -- the file, and what reads it -------------------------------------------------------------------

DEMAND = "[demand]\ncalls_a_day = 8_640_000\nslo_s = 3.0\n"


def written(folder: Path, profile: Profile, text: str = "") -> Path:
    stored.write(profile, folder / "p" / "ocr.c2.json")
    (folder / "plan.toml").write_text(f'profiles = ["p/ocr.c2.json"]\n{text}\n{DEMAND}')
    return folder / "plan.toml"


def test_a_plan_from_a_profile(tmp_path: Path):
    found = profiled(tried(1, 9), tried(2, 19), price_hour=0.1)
    capacity = read(written(tmp_path, found))
    assert stored.read(tmp_path / "p" / "ocr.c2.json") == found
    [kind] = capacity.nodes
    assert (kind.name, kind.price_hour, [p.workers for p in kind.packing]) == ("c2", 0.1, [1, 2])
    made = plan(capacity, WhatIf(mode="peak"))
    assert made.packing == {"c2": 2} and 5 <= made.peak_nodes <= 8
    with pytest.raises(NoPlan, match="c2 was measured inside 3 s"):
        plan(capacity, WhatIf(slo_s=2.0))


def test_a_price_from_the_plan(tmp_path: Path):
    path = written(tmp_path, profiled(tried(2, 19)), "prices = {c2 = 0.5}")
    assert read(path).nodes[0].price_hour == 0.5


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        (profiled(tried(1, 9)), "has no price: write prices = {c2 = ...}"),
        (profiled(tried(1, 0), price_hour=1.0), "no rate was sustained inside 3 s"),
    ],
)
def test_a_profile_that_no_plan_can_use(tmp_path: Path, profile: Profile, why: str):
    with pytest.raises(BadCapacity, match=why):
        read(written(tmp_path, profile))


def test_no_profile_and_no_nodes(tmp_path: Path):
    (tmp_path / "plan.toml").write_text(DEMAND)
    with pytest.raises(BadCapacity, match="found neither"):
        read(tmp_path / "plan.toml")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(BadProfile, match="no profile"):
        stored.read(tmp_path / "x.json")


def test_the_lines_for_the_settings_are_settings(tmp_path: Path):
    found = profiled(tried(1, 9), tried(2, 19, max_size=4))
    lines = stored.toml(found).replace("[models.ocr]", '[models.ocr]\nclass = "models:Ocr"')
    (tmp_path / "headrace.toml").write_text(lines)
    model = load(tmp_path / "headrace.toml", environment={}).models["ocr"]
    assert (model.slots, model.max_size) == (2, 4) and isinstance(model.scale, Policy)
    assert model.scale.node.per_second == 19 and model.scale.target.wait_s == pytest.approx(2.88)
    assert stored.toml(profiled(tried(1, 0))) == ""


# -- the command -----------------------------------------------------------------------------------


def test_the_table_and_its_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    noisy = Point(rate=9.0, seconds=5.0, calls=45, answered=45, p50_s=0.1, p95_s=0.2, batch=1.0,
                  sustained=True, stolen=0.2, driver_busy=0.9)  # fmt: skip
    found = profiled(
        tried(1, 9, windows=(noisy,), start_s=(1.5,)), tried(2, 19, gpu_mb=700), load_before=2.0
    )
    show(found, tmp_path / "x.json")
    out = capsys.readouterr().out
    assert "700 MB" in out and "1.50 s" in out and "use k = 2" in out and "slots = 2" in out
    load, stolen, busy = warnings(found)
    few = profiled(tried(1, 9, windows=(replace(noisy, calls=3, stolen=0.0, driver_busy=0.1),)))
    assert warnings(few) == [
        "only 3 calls came in a window: the model is slow, give more --seconds"
    ]
    assert "2.0 processes a core" in load and "20% of the machine" in stolen and "90%" in busy


def test_a_plot(tmp_path: Path):
    from headrace.cli.profile_plots import draw_profile

    shown = Point(rate=9.0, seconds=5.0, calls=45, answered=45, p50_s=0.1, p95_s=0.2, batch=1.0,
                  sustained=True)  # fmt: skip
    late = replace(shown, rate=12.0, p95_s=3.4, sustained=False)
    lost = replace(late, rate=15.0, p95_s=None)
    draw_profile(
        profiled(tried(1, 9, windows=(shown, late, lost)), tried(2, 0)), tmp_path / "p.png"
    )
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_counts():
    assert counts("4,1,2,2", "--k") == (1, 2, 4)
    for text in ("", "0,1", "two"):
        with pytest.raises(Exception, match="expected whole numbers from 1 on"):
            counts(text, "--k")


def test_time_for_slow_models():
    wanted = Wanted(model="m", node="n")
    assert [wanted.seconds_at(rate) for rate in (1000.0, 5.0, 0.5)] == [60.0, 120.0, 300.0]
    assert Wanted(model="m", node="n", seconds=9.0).seconds_at(0.5) == 9.0
    assert list(Wanted(model="m", node="n", max_sizes=(1, 8)).cells())[3] == (1, 8)


def test_the_stored_file_is_json_of_plain_words(tmp_path: Path):
    written(tmp_path, profiled(tried(1, 9)))
    found = json.loads((tmp_path / "p" / "ocr.c2.json").read_text())
    assert found["tries"][0]["per_second"] == 9 and found["use"]["workers"] == 1
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["ocr.c2.json"]
