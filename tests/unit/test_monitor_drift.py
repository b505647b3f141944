"""A change is found, and chance is not taken for one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from headrace.monitor.adwin import Adwin
from headrace.monitor.drift import (
    judge,
    judge_field,
    kinds_chance,
    ks,
    ks_chance,
    psi,
    psi_noise,
)
from headrace.monitor.sketch import Profile, Sketch
from headrace.monitoring import Drift

LIMITS = Drift()


def sketch_of(values):
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


def numbers(seed, size=1_000, shift=0.0, spread=1.0):
    return sketch_of(np.random.default_rng(seed).normal(shift, spread, size).tolist())


def texts(seed, shares, size=1_000):
    draw = np.random.default_rng(seed)
    return sketch_of([str(t) for t in draw.choice(list(shares), size, p=list(shares.values()))])


def said(before, now, least=100, limits=LIMITS):
    return judge_field("in.x", before, now, limits, limits.chance, least)


def test_the_same_sketch_is_the_same():
    one = numbers(1)
    verdict = said(one, one)
    assert verdict.verdict == "same"
    assert verdict.psi == 0 and verdict.ks == 0


@pytest.mark.parametrize("size", [100, 500, 5_000])
def test_false_alarms_are_rare(size):
    """200 pairs of streams without a change: less than one in a hundred."""
    wrong = sum(
        said(numbers(2 * n, size), numbers(2 * n + 1, size)).verdict == "changed"
        for n in range(200 if size < 5_000 else 20)
    )
    assert wrong == 0


def test_false_alarms_over_texts_are_rare():
    shares = {f"k{n}": 1 / 12 for n in range(12)}
    for size in (100, 1_000):
        wrong = sum(
            said(texts(2 * n, shares, size), texts(2 * n + 1, shares, size)).verdict == "changed"
            for n in range(100)
        )
        assert wrong == 0


@pytest.mark.parametrize("change", [{"shift": 1.0}, {"shift": -1.0}, {"spread": 2.5}])
def test_a_change_of_numbers_is_found(change):
    verdict = said(numbers(1), numbers(2, **change))
    assert verdict.verdict == "changed"
    assert "mean" in verdict.text and "limit" in verdict.text


def test_what_is_small_is_no_change_however_sure():
    verdict = said(numbers(1, 20_000), numbers(2, 20_000, shift=0.1))
    assert verdict.verdict == "same"
    assert verdict.chance is not None and verdict.chance < 1


def test_a_change_of_kinds_is_found():
    before, now = texts(1, {"a": 0.7, "b": 0.3}), texts(2, {"a": 0.3, "b": 0.5, "c": 0.2})
    verdict = said(before, now)
    assert verdict.verdict == "changed"
    assert "'a'" in verdict.text


def test_a_field_that_goes_missing_is_a_change():
    before = sketch_of([1.0] * 500)
    verdict = said(before, sketch_of([1.0] * 300 + [None] * 200))
    assert verdict.verdict == "changed"
    assert "missing in 40%" in verdict.text
    assert said(before, sketch_of([1.0] * 480 + [None] * 20)).verdict == "same"


def test_a_number_that_is_nearly_always_the_same():
    before, now = sketch_of([0.0] * 900 + [1.0] * 100), sketch_of([0.0] * 500 + [1.0] * 500)
    assert said(before, now).verdict == "changed"
    assert said(before, before).verdict == "same"
    assert said(sketch_of([0.0] * 500), sketch_of([5.0] * 500)).verdict == "changed"


def test_few_say_nothing():
    before, now = Profile(), Profile()
    for n in range(200):
        before.add(("in.x",), (float(n),))
    now.add(("in.x",), (1e9,))
    assert judge(before, now, LIMITS, least=100).verdict == "few"
    assert judge(before, before, LIMITS, least=100, complete=False).verdict == "few"
    assert judge(before, before, LIMITS, least=100).verdict == "same"


def test_so_many_fields_have_to_change():
    draw = np.random.default_rng(1)
    before, now = Profile(), Profile()
    for a, b in draw.normal(size=(500, 2)).tolist():
        before.add(("in.x", "in.y"), (a, b))
        now.add(("in.x", "in.y"), (a + 2, b))
    found = judge(before, now, LIMITS, least=100, version="3", segment="north")
    assert found.verdict == "changed"
    assert "version 3, segment north" in found.text and "in.x" in found.text
    assert judge(before, now, Drift(fields=2), least=100).verdict == "same"


def test_psi_by_hand():
    assert psi([0.5, 0.5], [0.5, 0.5]) == 0
    assert psi([0.5, 0.5], [0.9, 0.1]) == pytest.approx(0.4 * np.log(1.8) - 0.4 * np.log(0.2))
    assert psi([1.0, 0.0], [0.0, 1.0]) > 10
    assert psi_noise(10, 100, 100) > psi_noise(10, 10_000, 10_000)


def test_ks_is_that_of_scipy():
    draw = np.random.default_rng(9)
    one, two = draw.normal(size=3_000), draw.normal(0.1, 1, 2_000)
    exact = stats.ks_2samp(one, two, method="asymp")
    found = ks(sketch_of(one.tolist()), sketch_of(two.tolist()))
    assert found == pytest.approx(exact.statistic, abs=0.03)
    assert ks_chance(exact.statistic, 3_000, 2_000) == pytest.approx(exact.pvalue, rel=0.2)
    assert ks_chance(0.0, 3_000, 2_000) == 1.0
    assert ks_chance(0.1, 0, 5) == 1.0


def test_kinds_are_judged_as_by_scipy():
    was, are = [300, 200, 100], [250, 260, 90]
    exact = stats.chi2_contingency([was, are])
    found = kinds_chance([w / 600 for w in was], [a / 600 for a in are], 600, 600)
    assert found == pytest.approx(exact.pvalue, rel=0.15)
    assert kinds_chance([1.0], [1.0], 10, 10) == 1.0


def test_adwin_finds_a_step_soon_and_its_new_mean():
    draw = np.random.default_rng(2)
    stream = [*(draw.random(2_000) < 0.1), *(draw.random(2_000) < 0.4)]
    adwin = Adwin()
    found = [n for n, each in enumerate(stream) if adwin.add(float(each))]
    assert found and 2_000 < found[0] < 2_300
    assert adwin.mean == pytest.approx(0.4, abs=0.06)
    assert adwin.width < 2_400


def test_adwin_is_quiet_where_nothing_changes():
    """Eight streams of 5,000: the published bound is `chance` for each look at the worst."""
    draw = np.random.default_rng(4)
    wrong = 0
    for _ in range(8):
        adwin = Adwin()
        wrong += sum(adwin.add(each) for each in draw.normal(size=5_000).tolist())
    assert wrong <= 1


def test_adwin_has_the_mean_of_its_window():
    adwin = Adwin()
    values = np.random.default_rng(6).random(500).tolist()
    assert not any(adwin.add(value) for value in values)
    assert adwin.width == 500
    assert adwin.mean == pytest.approx(np.mean(values))
    assert adwin._variance(adwin._buckets()) == pytest.approx(np.var(values))
