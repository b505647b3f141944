"""Which strikes explain which second runs, and how long those took to begin."""

from __future__ import annotations

import pytest

from .ledger import Event
from .models import Run
from .repeats import LATE_S, requeues, unexplained

# Workers 9 and 19 with a model process each, 10 and 20.
FIRST, SECOND = Run(7, 10, 9, 2.0, "1"), Run(7, 20, 19, 5.0, "1")


def fault(what: str, at: float, *pids: int) -> Event:
    return Event("fault", at, what=what, pids=list(pids), proof="gone")


def lifted(what: str, at: float, *pids: int) -> Event:
    return Event("lifted", at, what=what, pids=list(pids), proof="goes on")


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([fault("kill worker", 3.0, 9, 10)], id="its worker was killed"),
        pytest.param([fault("kill model", 3.0, 10)], id="its model was killed"),
        pytest.param([fault("pause worker", 3.0, 9, 10)], id="its worker was paused"),
        pytest.param([fault("pause model", 1.0, 10)], id="it began after a pause that goes on"),
        pytest.param(
            [fault("pause worker", 0.5, 19, 20), lifted("pause worker", 4.5, 19)],
            id="the second one goes on, and runs what it had fetched",
        ),
        pytest.param(
            [fault("pause worker", 0.5, 9, 10), lifted("pause worker", 1.5, 9)],
            id="the first had gone on, and its lease was over",
        ),
    ],
)
def test_explained(events: list[Event]) -> None:
    assert unexplained(events, [SECOND, FIRST]) == []


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([], id="nothing happened"),
        pytest.param([fault("kill worker", 1.0, 9, 10)], id="struck before the first"),
        pytest.param([fault("kill worker", 5.1, 9, 10)], id="struck after the second"),
        pytest.param([fault("kill worker", 3.0, 8, 18)], id="somebody else was struck"),
        pytest.param([fault("kill clerk", 3.0, 30)], id="a clerk was struck"),
        pytest.param([fault("drain worker", 3.0, 9, 10)], id="it finishes what it began"),
        pytest.param(
            [fault("pause worker", -5.0, 9, 10), lifted("pause worker", 2.0 - LATE_S - 0.1, 9)],
            id="had gone on long before",
        ),
    ],
)
def test_unexplained(events: list[Event]) -> None:
    assert unexplained(events, [FIRST, SECOND]) == [SECOND]


def test_each_second_run_needs_a_strike_of_its_own() -> None:
    third = Run(7, 10, 9, 8.0, "1")
    assert unexplained([fault("kill worker", 3.0, 9, 10)], [FIRST, SECOND, third]) == [third]
    other = Run(8, 10, 9, 2.0, "1")
    assert unexplained([], [FIRST, other, Run(0, 10, 9, 1.0, "1"), Run(0, 10, 9, 1.5, "1")]) == []


@pytest.mark.parametrize("what", ["cut database", "kill everything", "fill disk"])
def test_nobody_can_say(what: str) -> None:
    assert unexplained([fault(what, 3.0)], [FIRST, SECOND]) is None


def test_requeue_is_from_the_strike_to_the_next_run_elsewhere() -> None:
    events = [fault("kill worker", 2.5, 9, 10)]
    runs = [FIRST, SECOND, Run(2, 10, 9, 1.0, "1"), Run(2, 20, 19, 2.2, "1")]
    assert requeues(events, runs) == [2.5]


def test_requeue_of_a_process_that_was_paused_and_later_killed() -> None:
    events = [fault("pause worker", 2.5, 9, 10), fault("kill worker", 4.0, 9, 10)]
    assert requeues(events, [FIRST, SECOND]) == [2.5]
    assert requeues(events, [FIRST._replace(number=0), SECOND._replace(number=0)]) == []
