"""What becomes of a stored job that is due. Pure: a decision of what was read, and nothing else.

waiting   too old: expired. Its pause over, or its message lost: published. Looked at again later,
          each time twice as late.
running   its lease is over: the worker is dead, stopped or cut off. Waiting again at once, or dead
          where its tries are used up, or expired.

What runs again stands in a queue that is pulled first: it has waited its turn once. Not for ever:
what has ended some workers, or come to no result, so often is likely to do it again, and waits
behind the others then. There what still waits when it is looked at is taken for lost: those jobs
are few, and a message too many costs a claim that comes to nothing. If that does not help, nobody
pulls there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.errors import Problem
from headrace.records import UNCLAIMED_S, Due, Move, Priority, Queue, State, problem_bytes

LOOK_MOST_S = 300.0
#: Workers that a job may outlive: what it does to its model process does not end a worker, so that
#: a lost lease says little of the job.
LOST_MOST = 10
#: After so many tries a job goes to the end of the queue: a poison one is so often in front.
AGAIN_MOST = 3
LOST = "the worker did not renew its lease: it died, was stopped or was cut off"

#: Looks at a job that runs again before it goes to the end of the other queue: 30 s.
AGAIN_LOOKS = 4
AWAY_S = 0.5  # the broker does not answer: nothing can be published

#: How many messages wait in the queues of workloads. Those are missing that the broker did not
#: answer for.
Queues = Mapping[tuple[str, Queue], int]
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
    workload = workload_of(job.model, job.id)
    tries = job.tries + (job.state is State.RUNNING)
    queue = queue_of(job, tries, now, ageing_s)
    if queue is Queue.AGAIN and (workload, queue) not in queues:
        queue = Queue.INTERACTIVE  # its workers know of no such queue: they are of a version before
    if job.state is State.RUNNING:
        if tries >= max(job.max_attempts, LOST_MOST):
            return Move(State.DEAD, lost=LOST, problem=problem_bytes(_used_up(tries)))
        return Move(State.WAITING, UNCLAIMED_S, publish=queue, lost=LOST, looks=1)
    if queue is Queue.AGAIN and job.looks >= AGAIN_LOOKS:
        queue = Queue.INTERACTIVE
    place = workload, queue
    if place not in queues:
        return Move(State.WAITING, AWAY_S, looks=job.looks)
    later_s = min(UNCLAIMED_S * 2.0 ** min(job.looks, 16), LOOK_MOST_S)
    if queue is Queue.BULK:
        later_s = min(later_s, job.created + ageing_s - now)
    lost = _lost(job, now, place, queues)
    return Move(State.WAITING, later_s, queue if lost else None, looks=job.looks + 1)


def queue_of(job: Due, tries: int, now: float, ageing_s: float) -> Queue:
    """A bulk job that waited long enough stands with the interactive ones; before that it runs
    again behind them, too: a heap of bulk that fails is not to hold up calls."""
    aged = now - job.created >= ageing_s
    if job.priority is Priority.BULK and not aged:
        return Queue.BULK
    return Queue.AGAIN if 0 < tries <= AGAIN_MOST else Queue.INTERACTIVE


def _lost(job: Due, now: float, place: tuple[str, Queue], queues: Queues) -> bool:
    """Is no message of it in the queue? A second one is harmless, a claim is exclusive, but one for
    each job that waits would double the queue, and again. A queue that is empty holds none; in one
    that is not, it is taken for lost after a long time only, unless it runs again."""
    pause_over = job.looks == 0 and job.not_before > job.created
    moved_up = job.priority is Priority.BULK and place[1] is not Queue.BULK
    long_ago = now - job.created > LOOK_MOST_S
    again = place[1] is Queue.AGAIN or (0 < job.tries <= AGAIN_MOST and job.looks == AGAIN_LOOKS)
    return pause_over or moved_up or long_ago or again or not queues.get(place)


def _used_up(tries: int) -> Problem:
    return Problem(500, "job-dead", f"{tries} runs came to no result; the last: {LOST}")
