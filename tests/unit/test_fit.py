"""The fit of batch times: exact on lines, quick to forget, never absurd."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.fit import Fit


def test_learns_a_line_exactly():
    fit = Fit()
    for size in (1, 8, 32, 4, 16):
        fit.learn(size, 5 + 0.2 * size)
    fixed, per_item = fit.line()
    assert fixed == pytest.approx(5, abs=1e-6)
    assert per_item == pytest.approx(0.2, abs=1e-6)
    assert fit.took_ms(64) == pytest.approx(5 + 0.2 * 64)


def test_knows_nothing_before_the_first_batch():
    assert not Fit().known
    assert Fit().line() == (0.0, 0.0)


def test_batches_of_one_size_are_all_per_item():
    fit = Fit()
    for _ in range(10):
        fit.learn(4, 20.0)
    assert fit.line() == (0.0, pytest.approx(5.0))


def test_a_model_that_turns_ten_times_slower_is_known_within_twenty_batches():
    fit = Fit()
    for number in range(200):
        fit.learn(1 + number % 32, 5 + 0.2 * (1 + number % 32))
    for number in range(20):
        size = 1 + number % 32
        fit.learn(size, 50 + 2 * size)
    assert fit.took_ms(32) == pytest.approx(114, rel=0.2)


@given(st.lists(st.tuples(st.integers(1, 256), st.floats(0.01, 10_000)), min_size=1, max_size=60))
def test_neither_part_is_ever_negative(batches):
    fit = Fit()
    for size, took_ms in batches:
        fit.learn(size, took_ms)
    fixed, per_item = fit.line()
    assert fixed >= -1e-9
    assert per_item >= 0
