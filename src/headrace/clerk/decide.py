"""What becomes of a stored job that is due. Pure: a decision of what was read, and nothing else.

waiting   too old: expired. Its pause over, or its message lost: published. Looked at again later,
          each time twice as late.
running   its lease is over: the worker is dead, stopped or cut off. Waiting again at once, or dead
          where its tries are used up, or expired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.errors import Problem
from headrace.records import UNCLAIMED_S, Due, Move, Priority, State, problem_bytes

LOOK_MOST_S = 300.0
#: Workers that a job may outlive: what it does to its model process does not end a worker, so that
#: a lost lease says little of the job.
LOST_MOST = 10
LOST = "the worker did not renew its lease: it died, was stopped or was cut off"

AWAY_S = 0.5  # the broker does not answer: nothing can be published

#: How many messages wait in the queue of a workload and priority. Without those that the broker did
#: not answer for.
Queues = Mapping[tuple[str, Priority], int]
#: The workload that gets a job of that model and id.
WorkloadOf = Callable[[str, str], str]


def decide(
    job: Due,
    now: float,
    queues: Queues,
    ageing_s: float,
    workload_of: WorkloadOf = lambda model, _: model,
) -> Move:
    if job.deadline <= now:
        return Move(State.EXPIRED, lost=LOST if job.state is State.RUNNING else "")
    queue = queue_of(job, now, ageing_s)
    if job.state is State.RUNNING:
        if job.tries + 1 >= max(job.max_attempts, LOST_MOST):
            return Move(State.DEAD, lost=LOST, problem=problem_bytes(_used_up(job.tries + 1)))
        return Move(State.WAITING, UNCLAIMED_S, publish=queue, lost=LOST)
    place = workload_of(job.model, job.id), queue
    if place not in queues:
        return Move(State.WAITING, AWAY_S, counts=False)
    later_s = min(UNCLAIMED_S * 2.0 ** min(job.looks, 16), LOOK_MOST_S)
    if queue is Priority.BULK:
        later_s = min(later_s, job.created + ageing_s - now)
    return Move(State.WAITING, later_s, queue if _lost(job, now, place, queues) else None)


def queue_of(job: Due, now: float, ageing_s: float) -> Priority:
    """A bulk job that waited long enough stands with the interactive ones."""
    aged = now - job.created >= ageing_s
    return Priority.INTERACTIVE if aged else job.priority


def _lost(job: Due, now: float, place: tuple[str, Priority], queues: Queues) -> bool:
    """Is no message of it in the queue? A second one is harmless, a claim is exclusive, but one for
    each job that waits would double the queue, and again. A queue that is empty holds none; in one
    that is not, it is taken for lost after a long time only."""
    pause_over = job.looks == 0 and job.not_before > job.created
    moved_up = place[1] is not job.priority
    long_ago = now - job.created > LOOK_MOST_S
    return pause_over or moved_up or long_ago or not queues.get(place)


def _used_up(tries: int) -> Problem:
    return Problem(500, "job-dead", f"{tries} runs came to no result; the last: {LOST}")
