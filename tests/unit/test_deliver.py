"""When a webhook is tried again."""

import pytest

from headrace.clerk.deliver import PAUSES_S, pause_s


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_the_tries_of_three_days(chance):
    """At 0 s, 5 s, 5 min, 35 min, 2.6, 7.6, 17.6, 31.6 and 51.6 h, and once more at the end."""
    at, tries = 0.0, 0
    while at < 72 * 3600:
        at += pause_s(tries, chance)
        tries += 1
    assert tries == 9


def test_pauses_grow_and_spread_upwards():
    assert [pause_s(tries, 0.0) for tries in range(9)] == list(PAUSES_S)
    assert pause_s(99, 0.0) == PAUSES_S[-1]
    for tries, base_s in enumerate(PAUSES_S):
        assert base_s <= pause_s(tries, 0.7) <= base_s * 1.2
