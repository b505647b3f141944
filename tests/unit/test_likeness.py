"""What counts as the answer that was expected."""

from dataclasses import dataclass

import numpy as np
import pytest

from headrace.likeness import close


@dataclass
class Score:
    value: float


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1.0001, 1.0),
        (1, 1.0),
        (np.float32(1.0001), 1.0),
        ([1.0, {"a": 2.0}], [1.0, {"a": 2.0001}]),
        ((1.0,), [1.0]),
        (np.array([1.0, 2.0]), [1.0, 2.0]),
        ([1.0, 2.0], np.array([1.0, 2.0001])),
        (Score(1.0001), Score(1.0)),
        ("a", "a"),
        (None, None),
    ],
)
def test_alike(got, expected):
    assert close(got, expected)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1.01, 1.0),
        ([1.0], [1.0, 2.0]),
        (np.array([1.0]), np.array([1.0, 2.0])),
        (Score(1.01), Score(1.0)),
        ({"a": 1}, {"b": 1}),
        ("a", "b"),
        # Of another kind altogether.
        ("1", 1.0),
        (None, 1.0),
        ("a", ["a"]),
        ({"a": 1}, ["a"]),
        (None, [1.0]),
        ([1], {"a": 1}),
        ({"value": 1.0}, Score(1.0)),
    ],
)
def test_not_alike(got, expected):
    assert not close(got, expected)


def test_how_close_is_said():
    assert close([{"a": 1.05}], [{"a": 1.0}], 0.1) and not close([{"a": 1.05}], [{"a": 1.0}], 0.01)
    assert close(np.array([1.05]), np.array([1.0]), 0.1)
