"""What travels: a job from a gateway to a worker, an outcome back.

    gateway --parcel [Job, ...]--> broker --> worker --Returned [Outcome, ...]--> gateway

Both are array-like msgpack structs: 0.5 us to write, no field names on the wire. Times are Unix
seconds (float); durations are milliseconds and say so in their names.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from headrace.errors import Problem


class Form(IntEnum):
    """The form in which the answer's result is wanted."""

    JSON = 0  # bytes of JSON, passed through to the client as they are
    CANONICAL = 1  # canonical msgpack (see `signature`), for the Open Inference Protocol


class Job(msgspec.Struct, array_like=True, frozen=True):
    """One call on the broker.

    `id` is unique within `reply_to` (the gateway instance that waits). `body` is the input in
    canonical msgpack (see `signature`); it is empty where `ref` names an object that holds it.
    Where `stored` is set the broker carries nothing but this: the id of a job in the database, from
    which the worker that claims it has all the rest, and to which the outcome goes.
    """

    id: int
    reply_to: str
    request_id: str
    deadline: float
    published: float
    form: Form
    body: bytes
    ref: str = ""
    stored: str = ""


class Cancel(msgspec.Struct, array_like=True, frozen=True):
    """The caller of a job is gone: it need not run, where it does not yet."""

    reply_to: str
    id: int


class Outcome(msgspec.Struct, array_like=True, frozen=True):
    """What became of one job: `body` is the result in the job's form, or `problem` says why not.

    `taken` is the Unix time at which the worker got the job, `gathered_ms` the wait for its batch.
    """

    id: int
    taken: float
    gathered_ms: float
    executed_ms: float
    body: bytes = b""
    problem: Problem | None = None


class Returned(msgspec.Struct, array_like=True, frozen=True):
    """One reply message: every outcome of one batch that belongs to one gateway. `workload` ran it
    (`deployments.workload_of`), which callers know as that `version`.

    `sent` is the Unix time at which the worker sent it: what it waits then is the reply side's.
    Where `ref` names an object, that holds the whole message; here are the outcomes without bodies.
    """

    workload: str
    version: str
    worker: str
    sent: float
    outcomes: list[Outcome]
    ref: str = ""


#: No deadline of its own: a stored job's is in the database, by the database's clock.
FAR = 1e12


def stored_job(job_id: str, published: float) -> Job:
    """The message of a stored job."""
    return Job(0, "", job_id, FAR, published, Form.JSON, b"", "", job_id)


#: A parcel is the jobs for one model that a door publishes as one message, because they arrived in
#: the same turn of its loop.
parcel_bytes = msgspec.msgpack.Encoder().encode
read_parcel = msgspec.msgpack.Decoder(list[Job]).decode
cancel_bytes = msgspec.msgpack.Encoder().encode
read_cancel = msgspec.msgpack.Decoder(Cancel).decode
returned_bytes = msgspec.msgpack.Encoder().encode
read_returned = msgspec.msgpack.Decoder(Returned).decode
