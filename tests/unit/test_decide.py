"""What the clerk makes of a job that is due."""

import pytest

from headrace.clerk.decide import AGAIN_LOOKS, AGAIN_MOST, AWAY_S, LOOK_MOST_S, LOST_MOST, decide
from headrace.records import MOVES, UNCLAIMED_S, Due, Priority, Queue, State, read_problem

NOW, AGEING_S = 1_000_000.0, 60.0
EMPTY = {("iris", queue): 0 for queue in Queue}
FULL = {("iris", queue): 9 for queue in Queue}
SOON, BULK, AGAIN = Queue.INTERACTIVE, Queue.BULK, Queue.AGAIN


def due(**more):
    given = {
        "id": "j", "model": "iris", "tenant": "acme", "priority": Priority.INTERACTIVE,
        "state": State.WAITING, "attempt": 0, "tries": 0, "max_attempts": 3, "looks": 0,
        "created": NOW - 10.0, "deadline": NOW + 600.0, "not_before": 0.0, "worker": "",
    }  # fmt: skip
    return Due(**(given | more))


def look(job, queues=EMPTY):
    move = decide(job, NOW, queues, AGEING_S)
    assert move.state is job.state or move.state in MOVES[job.state]
    return move


def test_a_lost_message_is_published_again_each_time_twice_as_late():
    moves = [look(due(looks=looks)) for looks in (0, 1, 2, 50)]
    assert [move.publish for move in moves] == [SOON] * 4
    assert [move.look_again_s for move in moves] == [2, 4, 8, LOOK_MOST_S]


def test_what_stands_in_a_queue_is_not_published_twice():
    assert look(due(), FULL).publish is None
    assert look(due(created=NOW - LOOK_MOST_S - 1), FULL).publish is SOON, "but after a long time"


def test_a_pause_that_is_over_is_published_whatever_waits():
    assert look(due(not_before=NOW - 1), FULL).publish is SOON
    assert look(due(not_before=NOW - 1, looks=1), FULL).publish is None, "once"


def test_too_late_is_too_late():
    for state in (State.WAITING, State.RUNNING):
        move = look(due(state=state, deadline=NOW, tries=2))
        assert move.state is State.EXPIRED and move.publish is None
        assert bool(move.lost) == (state is State.RUNNING)


@pytest.mark.parametrize(
    ("tries", "most", "state"),
    [(0, 3, State.WAITING), (2, 3, State.WAITING), (8, 1, State.WAITING), (9, 3, State.DEAD),
     (9, 12, State.WAITING), (11, 12, State.DEAD)],
)  # fmt: skip
def test_a_lease_that_is_over_is_held_against_the_job(tries, most, state):
    move = look(due(state=State.RUNNING, attempt=7, tries=tries, max_attempts=most), FULL)
    assert move.state is state and move.lost
    if state is State.DEAD:
        problem = read_problem(move.problem)
        assert problem.code == "job-dead" and f"{tries + 1} runs" in problem.detail
    else:
        queue = AGAIN if tries < AGAIN_MOST else SOON
        assert move.publish is queue and move.look_again_s == UNCLAIMED_S, "at once"


def test_bulk_ages_into_the_other_queue_on_time():
    young = look(due(priority=Priority.BULK, created=NOW - 50, looks=10))
    assert young.publish is BULK and young.look_again_s == 10.0, "looked at when it is old enough"
    old = look(due(priority=Priority.BULK, created=NOW - 60), FULL)
    assert old.publish is SOON
    lost = look(due(priority=Priority.BULK, created=NOW - 61, state=State.RUNNING), FULL)
    assert lost.publish is AGAIN


def test_what_runs_again_is_pulled_before_what_never_ran():
    assert look(due(state=State.RUNNING, attempt=1), FULL).publish is AGAIN
    assert look(due(not_before=NOW - 1, tries=1), FULL).publish is AGAIN, "a pause is over"
    assert look(due(tries=1, looks=3)).publish is AGAIN, "its message was lost"
    only_there = EMPTY | {("iris", AGAIN): 1}
    assert look(due(), only_there).publish is SOON, "one whose first message was lost never ran"
    assert look(due(attempt=4)).publish is SOON, "nor did one that leaving workers gave back"


def test_the_message_of_what_runs_again_is_soon_taken_for_lost_and_then_the_queue_for_dead():
    job, told = due(state=State.RUNNING, attempt=1, looks=9), []
    for _ in range(8):
        move = look(job, FULL)
        told.append((move.publish, move.look_again_s))
        job = job._replace(state=move.state, tries=1, looks=move.looks)
    assert told == [
        (AGAIN, 2), (AGAIN, 4), (AGAIN, 8), (AGAIN, 16), (SOON, 32), (None, 64), (None, 128),
        (None, 256),
    ]  # fmt: skip
    behind = due(tries=AGAIN_MOST + 1, looks=AGAIN_LOOKS)
    assert look(behind, FULL).publish is None, "that waits its turn"


def test_what_ends_workers_is_in_front_a_few_times_and_then_waits_behind_the_others():
    job, queues = due(state=State.RUNNING, attempt=1), []
    while (move := look(job, FULL)).state is State.WAITING:
        queues.append(move.publish)
        job = job._replace(tries=job.tries + 1, attempt=job.attempt + 1)
    assert queues == [AGAIN] * AGAIN_MOST + [SOON] * (LOST_MOST - 1 - AGAIN_MOST)


def test_bulk_runs_again_behind_what_is_interactive_until_it_is_old():
    for job in (
        due(priority=Priority.BULK, state=State.RUNNING),
        due(priority=Priority.BULK, tries=2, not_before=NOW - 1),
    ):
        assert look(job, FULL).publish is BULK
        assert look(job._replace(created=NOW - 60), FULL).publish is AGAIN


def test_workers_of_a_version_before_have_no_such_queue():
    known = {place: count for place, count in FULL.items() if place[1] is not AGAIN}
    assert look(due(state=State.RUNNING), known).publish is SOON
    assert look(due(not_before=NOW - 1, tries=1), known).publish is SOON


def test_with_the_broker_away_nothing_is_published_and_soon_looked_at_again():
    for job in (due(), due(looks=16), due(priority=Priority.BULK), due(not_before=NOW - 1)):
        move = look(job, {})
        assert (move.state, move.publish) == (State.WAITING, None)
        assert move.look_again_s == AWAY_S and move.looks == job.looks, "as if nobody had looked"
    assert look(due(deadline=NOW), {}).state is State.EXPIRED
    lost = look(due(state=State.RUNNING), {})
    assert lost.state is State.WAITING, "the books are kept all the same"


def test_every_waiting_job_is_looked_at_again():
    for looks in range(40):
        for priority in Priority:
            for age in (0.0, 59.999, 60.0, 1e6):
                move = look(due(looks=looks, priority=priority, created=NOW - age), FULL)
                assert 0 < move.look_again_s <= LOOK_MOST_S


def test_a_job_is_looked_for_in_the_queue_of_its_version():
    def third(model, _):
        return f"{model}@3"

    queues = FULL | {("iris@3", SOON): 0}
    assert decide(due(), NOW, queues, AGEING_S, third).publish is SOON
    queues = EMPTY | {("iris@3", SOON): 9}
    assert decide(due(), NOW, queues, AGEING_S, third).publish is None
    assert decide(due(), NOW, EMPTY, AGEING_S, third).look_again_s == AWAY_S
