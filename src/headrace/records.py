"""A stored job: its states, its legal moves, and what the store is told of it. Words, no I/O.

    submit --> waiting <-----------------------+
                | | |                          |
                | | +--claim--> running --+----+  given back, lease over, retry later
                | |                |      |
                | +---> expired <--+      +--> succeeded   the result is committed
                |                  |      +--> failed      the input is to blame, says the model
                +-----> cancelled <+      +--> dead        tries used up, or poison

    dead --replay--> waiting

`attempt` counts claims and is the fencing token: it only grows, and whoever writes with an older
one is refused. `tries` counts the runs that are held against the job: not those of a worker that
left in peace. Times are Unix seconds of the database's clock.
"""

from __future__ import annotations

import secrets
import time
from enum import IntEnum, StrEnum
from typing import NamedTuple

import msgspec

from headrace.errors import Problem


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD = "dead"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


#: From a state to those that may follow it.
MOVES: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.RUNNING, State.EXPIRED, State.CANCELLED}),
    State.RUNNING: frozenset({
        State.WAITING, State.SUCCEEDED, State.FAILED, State.DEAD, State.EXPIRED, State.CANCELLED,
    }),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.DEAD: frozenset({State.WAITING}),
    State.EXPIRED: frozenset(),
    State.CANCELLED: frozenset(),
}  # fmt: skip

#: A job in one of these has no lease and no further run ahead; `dead` alone can be replayed.
TERMINAL = frozenset(State) - {State.WAITING, State.RUNNING}

#: What a webhook may be told of; "*" is all of it.
EVENTS = frozenset(f"job.{state}" for state in TERMINAL) | {"*"}


class Priority(IntEnum):
    INTERACTIVE = 0
    BULK = 1


class Queue(IntEnum):
    """Of a workload on the broker: that of its priority, or of jobs that run again, whichever
    worker or pause they waited for, and are pulled before all others."""

    INTERACTIVE = Priority.INTERACTIVE
    BULK = Priority.BULK
    AGAIN = 2


class Submission(msgspec.Struct, frozen=True):
    """A job as a gateway submits it. `input` is canonical msgpack, as it rests (sealed, where keys
    are set), or empty where `input_ref` names an object. `key` is the client's Idempotency-Key, ""
    for none; `fingerprint` says what the call was, so that the key cannot be used for another."""

    id: str
    tenant: str
    model: str
    priority: Priority
    request_id: str
    ttl_s: float
    input: bytes
    input_ref: str
    input_digest: str
    key: str
    fingerprint: str
    max_attempts: int


class Claim(msgspec.Struct, frozen=True):
    """A job that a worker owns until its lease is over. `attempt` is the token of all it writes;
    it expires in `left_s`."""

    id: str
    attempt: int
    tries: int
    max_attempts: int
    tenant: str
    left_s: float
    input: bytes
    input_ref: str


class Ending(msgspec.Struct, frozen=True):
    """What a worker writes of a job it owns. `state` is where the job goes; waiting: once more,
    `wait_s` from now, `charged` if the run is held against it."""

    id: str
    attempt: int
    state: State
    version: str = ""
    result: bytes = b""
    result_ref: str = ""
    problem: Problem | None = None
    executed_ms: float = 0.0
    wait_s: float = 0.0
    charged: bool = True


class Record(msgspec.Struct, frozen=True):
    """What the store knows of a job."""

    id: str
    tenant: str
    model: str
    state: State
    priority: Priority
    attempt: int
    tries: int
    max_attempts: int
    request_id: str
    created: float
    deadline: float
    started: float | None
    finished: float | None
    worker: str
    version: str
    executed_ms: float
    result: bytes
    result_ref: str
    problem: Problem | None
    fingerprint: str
    input_gone: bool

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


#: A published job is looked after when it has not been claimed for so long.
UNCLAIMED_S = 2.0


class Due(NamedTuple):
    """A job that somebody must look at now."""

    id: str
    model: str
    tenant: str
    priority: Priority
    state: State
    attempt: int
    tries: int
    max_attempts: int
    looks: int
    created: float
    deadline: float
    not_before: float
    worker: str


class Move(NamedTuple):
    """What the clerk does with a job that is due: where it goes, when it is looked at again, on
    which queue it is published, if at all, and what is said of the run that was lost. `looks`: how
    many there were then since it began to wait; the more, the later is the next."""

    state: State
    look_again_s: float = 0.0
    publish: Queue | None = None
    lost: str = ""
    problem: bytes | None = None
    looks: int = 0


class Lost(msgspec.Struct, frozen=True):
    """A run that came to no result: who ran, and why it ended."""

    attempt: int
    worker: str
    at: float
    reason: str


def new_id() -> str:
    """32 hex digits that sort by the time of their making: new rows lie together in an index."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def new_job_id(place: int) -> str:
    """One that ends in its job's bucket (`deployments.bucket`), so that whoever publishes the job,
    now or when it runs again, gives it to the same version."""
    return f"{new_id()[:-4]}{place:04x}"


def made(job_id: str) -> float:
    """When an id was made, in Unix seconds; infinity for what is none."""
    try:
        return int(job_id[:12], 16) / 1000 if len(job_id) == 32 else float("inf")
    except ValueError:
        return float("inf")


def retry_wait_s(tries: int, base_s: float, most_s: float, chance: float) -> float:
    """Pause after so many failed runs: doubled each time, spread over its upper half by `chance`
    (0 to 1), so that what failed together does not come back together."""
    pause_s = min(base_s * 2.0 ** min(max(0, tries - 1), 64), most_s)
    return pause_s * (0.5 + chance / 2)


problem_bytes = msgspec.msgpack.Encoder().encode
read_problem = msgspec.msgpack.Decoder(Problem).decode


_SUFFIXES: dict[int, str] = {Queue.INTERACTIVE: "", Queue.BULK: "+bulk", Queue.AGAIN: "+again"}


def queue_name(workload: str, queue: Queue | Priority) -> str:
    """On the broker. The queue of bulk jobs is pulled only while nothing interactive waits."""
    return workload + _SUFFIXES[queue]
