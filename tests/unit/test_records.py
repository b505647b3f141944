"""The words of stored jobs: ids, pauses, states."""

import time

import pytest

from headrace.deployments import WHOLE, place_of
from headrace.errors import Problem
from headrace.records import (
    MOVES,
    TERMINAL,
    Priority,
    Queue,
    State,
    made,
    new_id,
    new_job_id,
    problem_bytes,
    queue_name,
    read_problem,
    retry_wait_s,
)


def test_ids_sort_by_their_time_and_are_never_the_same():
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000 and all(len(job) == 32 and int(job, 16) for job in ids)
    time.sleep(0.002)
    assert new_id() > max(ids)
    assert made(ids[0]) == pytest.approx(time.time(), abs=5)


def test_an_id_of_a_job_says_its_bucket():
    ids = [new_job_id(place) for place in (0, 1, 9_999)]
    assert [place_of(job) for job in ids] == [0, 1, 9_999]
    before = {place_of(new_id()) for _ in range(1000)}
    assert max(before) < WHOLE and len(before) > 900, "of a release before: spread, and a bucket"
    assert all(len(job) == 32 and made(job) == pytest.approx(time.time(), abs=5) for job in ids)
    assert len({new_job_id(7) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("text", ["", "x" * 32, "01a2", "-" * 32])
def test_what_is_no_id_was_made_never(text):
    assert made(text) == float("inf")


def test_pauses_double_up_to_the_most_and_are_spread_over_their_upper_half():
    longest = [retry_wait_s(tries, 1.0, 60.0, 1.0) for tries in range(1, 9)]
    assert longest == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [retry_wait_s(tries, 1.0, 60.0, 0.0) for tries in (1, 2, 9)] == [0.5, 1.0, 30.0]
    assert retry_wait_s(0, 1.0, 60.0, 1.0) == 1.0, "before the first failure as after it"
    assert retry_wait_s(10_000, 1.0, 60.0, 1.0) == 60.0, "no overflow"


def test_from_an_end_nothing_follows_but_a_replay():
    for state in State:
        assert (state in TERMINAL) == (MOVES[state] <= {State.WAITING} and state != "waiting")
    assert [state for state in TERMINAL if MOVES[state]] == [State.DEAD]


def test_a_queue_for_bulk_is_no_models():
    """Names of models are of a-z, 0-9, - and _: no model can be called like it."""
    assert queue_name("iris", Priority.BULK) == "iris+bulk"
    assert queue_name("iris", Priority.INTERACTIVE) == "iris"
    assert queue_name("iris", Queue.AGAIN) == "iris+again"
    assert [queue_name("iris", Queue(each)) for each in Priority] == [
        queue_name("iris", each) for each in Priority
    ]  # fmt: skip


def test_a_problem_comes_back_as_it_was():
    problem = Problem(500, "model-failed", "\U0001f4a3 \0", [], 3)
    assert read_problem(problem_bytes(problem)) == problem
