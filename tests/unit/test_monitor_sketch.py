"""Sketches against the exact figures; merging in any order."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from headrace.monitor.sketch import KINDS_MOST, OTHERS, K, Profile, Sketch

VALUES = some.lists(
    some.one_of(some.none(), some.floats(-1e6, 1e6), some.sampled_from(["a", "b", "c"])),
    max_size=60,
)


def sketch_of(values):
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


def told(sketch):
    return (
        sketch.missing, sketch.numbers, sketch.texts, sketch.counts,
        pytest.approx(sketch.mean, rel=1e-9, abs=1e-6),
        pytest.approx(sketch.square, rel=1e-6, abs=1e-3),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["normal", "lognormal", "uniform"])
def test_quantiles_are_within_the_error_that_is_promised(kind):
    values = getattr(np.random.default_rng(7), kind)(size=20_000)
    sketch = sketch_of(values.tolist())
    ranks = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
    for rank, found in zip(ranks, sketch.quantiles(ranks), strict=True):
        assert abs((values <= found).mean() - rank) < 0.0133 * 200 / K + 0.001
    assert sketch.mean == pytest.approx(values.mean())
    assert sketch.deviation == pytest.approx(values.std(ddof=1))
    assert len(sketch.to_bytes()) < 8_000


@settings(max_examples=60, deadline=None)
@given(VALUES, VALUES, VALUES)
def test_merging_is_associative_and_has_all(one, two, three):
    left = sketch_of(one)
    left.merge(sketch_of(two))
    left.merge(sketch_of(three))
    inner = sketch_of(two)
    inner.merge(sketch_of(three))
    right = sketch_of(one)
    right.merge(inner)
    whole = sketch_of(one + two + three)
    for merged in (left, right):
        assert (merged.missing, merged.numbers, merged.texts, merged.counts, merged.mean,
                merged.square) == told(whole)  # fmt: skip
    numbers = sorted(each for each in one + two + three if isinstance(each, float))
    if numbers:  # so few that nothing is left out
        ranks = [n / 10 for n in range(11)]
        assert left.quantiles(ranks) == right.quantiles(ranks) == whole.quantiles(ranks)
        assert left.mean == pytest.approx(statistics.fmean(numbers), rel=1e-9, abs=1e-6)


def test_large_sketches_merge_within_their_error():
    parts = np.random.default_rng(3).normal(size=(10, 3_000))
    merged = Sketch()
    for part in parts:
        merged.merge(sketch_of(part.tolist()))
    median = merged.quantiles([0.5])[0]
    assert abs((parts <= median).mean() - 0.5) < 0.02
    assert merged.numbers == parts.size


@given(VALUES)
@settings(max_examples=40, deadline=None)
def test_bytes_and_back(values):
    sketch = sketch_of(values)
    again = Sketch.from_bytes(sketch.to_bytes())
    assert told(again) == told(sketch)
    assert again.quantiles([0.1, 0.5, 0.9]) == sketch.quantiles([0.1, 0.5, 0.9])


@pytest.mark.parametrize("damage", [b"", b"no", b"\x97\x00\x01\x00\x00\xc4\x02ab\x00\x80"])
def test_what_is_no_sketch_is_told(damage):
    with pytest.raises(ValueError, match="not a sketch"):
        Sketch.from_bytes(damage)


def test_frequent_texts_survive_a_flood_of_rare_ones():
    draw = np.random.default_rng(5)
    texts = ["often"] * 3_000 + ["sometimes"] * 1_000 + [f"once-{n}" for n in range(2_000)]
    draw.shuffle(texts)
    sketch = sketch_of([str(text) for text in texts])
    assert len(sketch.counts) == KINDS_MOST
    assert sketch.texts == len(texts)
    shares = sketch.shares()
    assert shares["often"] == pytest.approx(0.5, abs=0.02)
    assert shares["sometimes"] == pytest.approx(1 / 6, abs=0.02)
    assert sum(shares.values()) == pytest.approx(1)


def test_what_is_not_counted_is_others():
    sketch = sketch_of([f"kind-{n % 100}" for n in range(1_000)])
    merged = sketch_of([f"more-{n % 50}" for n in range(1_000)])
    merged.merge(sketch)
    assert len(merged.counts) == KINDS_MOST
    assert merged.shares()[OTHERS] > 0.1


def test_a_profile_goes_over_the_wire():
    profile = Profile()
    profile.add(("in.x", "out.y"), (1.5, "a"))
    profile.add(("in.x", "out.y"), (None, "b"))
    again = Profile.from_plain(*profile.to_plain())
    again.merge(profile)
    assert again.calls == 4
    assert again.fields["in.x"].missing_share == 0.5
    assert again.fields["out.y"].shares() == {"a": 0.5, "b": 0.5}
