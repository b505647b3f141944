"""Who brought the process down? Played against a process that dies of known jobs."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.worker.isolate import CRASHES_TO_BLAME, isolate


@dataclass(eq=False)
class Job:
    poison: bool
    crashes: int = 0


def play(jobs: list[Job]) -> tuple[list[Job], list[Job], int]:
    """Runs until nothing is left. Gives who was answered, who was blamed, and the crashes."""
    queue, answered, blamed, crashes = [jobs], [], [], 0
    while queue:
        batch = queue.pop(0)
        if not any(job.poison for job in batch):
            answered += batch
            continue
        crashes += 1
        parts, guilty = isolate(batch)
        queue = parts + queue
        blamed += guilty
    return answered, blamed, crashes


def test_one_poison_job_in_32_costs_six_crashes():
    jobs = [Job(poison=number == 13) for number in range(32)]
    answered, blamed, crashes = play(jobs)
    assert blamed == [jobs[13]]
    assert len(answered) == 31
    assert crashes == 6  # 32, 16, 8, 4, 2 and alone


@pytest.mark.parametrize("size", [1, 2])
def test_nobody_is_blamed_for_fewer_than_three_crashes(size):
    jobs = [Job(poison=True)] + [Job(poison=False)] * (size - 1)
    _, blamed, crashes = play(jobs)
    assert crashes == CRASHES_TO_BLAME
    assert blamed == [jobs[0]]


def test_a_process_that_was_merely_killed_costs_nobody():
    batch = [Job(poison=False) for _ in range(8)]
    parts, guilty = isolate(batch)
    assert guilty == []
    assert [job for part in parts for job in part] == batch


@given(st.lists(st.booleans(), min_size=1, max_size=64))
def test_the_guilty_and_only_they_are_blamed(poison):
    jobs = [Job(poison=p) for p in poison]
    answered, blamed, _ = play(jobs)
    assert [job for job in jobs if job.poison] == sorted(blamed, key=jobs.index)
    assert len(answered) + len(blamed) == len(jobs)
