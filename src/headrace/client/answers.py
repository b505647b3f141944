"""What a house answers, typed. Fields that a later house adds are ignored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from headrace.errors import FieldError

T = TypeVar("T")

#: The states of a job that still has something ahead of it.
_OPEN = ("waiting", "running")


class Timings(msgspec.Struct, frozen=True):
    """Milliseconds in each stage of the call's way; they add up to `total_ms`.

    read: the input checked. queued: waited on the broker. gathered: waited for its batch.
    features: feature reads. executed: in the model. returned: on the way home.
    """

    read_ms: float = 0.0
    queued_ms: float = 0.0
    gathered_ms: float = 0.0
    features_ms: float = 0.0
    executed_ms: float = 0.0
    returned_ms: float = 0.0
    total_ms: float = 0.0

    def stages(self) -> dict[str, float]:
        """Stage -> ms, in the order of the way, without the total."""
        names = [field for field in self.__struct_fields__ if field != "total_ms"]
        return {name.removesuffix("_ms"): getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """One result, who gave it, and where the time went."""

    result: T
    timings: Timings
    model: str
    version: str
    request_id: str


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the house serves. `input`, `output`: JSON schemas, None until a worker is up.
    `reason`: why it is not ready."""

    name: str
    version: str = ""
    description: str = ""
    ready: bool = False
    reason: str = ""
    max_size: int = 1
    input: dict[str, Any] | None = None
    output: dict[str, Any] | None = None


class ModelReadiness(msgspec.Struct, frozen=True):
    ready: bool
    reason: str = ""


class Readiness(msgspec.Struct, frozen=True):
    """True where every model is served by a process whose golden call came out right."""

    ready: bool
    models: dict[str, ModelReadiness] = {}

    def __bool__(self) -> bool:
        return self.ready


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. A batch of n takes about `fixed_ms` + n * `per_item_ms`."""

    worker: str
    ready: bool = False
    reason: str = ""
    slots: int = 0
    slots_ready: int = 0
    busy: int = 0
    in_hand: int = 0
    waiting: int = 0
    golden: bool = False
    fixed_ms: float = 0.0
    per_item_ms: float = 0.0
    max_size: int = 1
    metrics_url: str = ""


class ModelStatus(ServedModel, frozen=True, kw_only=True):
    """A served model with its workers. `outstanding`: calls that this gateway waits for;
    `elsewhere`: those of other gateways; `per_second`: items a second in full batches;
    `jobs_waiting`: stored jobs that no worker has claimed, None where that is not known."""

    outstanding: int = 0
    elsewhere: int = 0
    per_second: float = 0.0
    jobs_waiting: int | None = None
    workers: list[WorkerStatus] = []


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one gateway knows of the house."""

    gateway: str = ""
    ready: bool = False
    draining: bool = False
    models: list[ModelStatus] = []


class Problem(msgspec.Struct, frozen=True):
    """A refusal as a house writes it (RFC 9457)."""

    status: int = 0
    code: str = ""
    detail: str = ""
    title: str = ""
    errors: list[FieldError] = []
    retry_after_s: float | None = None


class Loss(msgspec.Struct, frozen=True):
    """A run of a job that came to no result."""

    attempt: int
    worker: str = ""
    at: float = 0.0
    reason: str = ""


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A stored job as the house tells of it. Times are Unix seconds.

    `state`: waiting, running, succeeded, failed, dead, expired or cancelled. `attempt`: runs begun;
    `tries`: those that are held against it, of `max_attempts`. `losses` is told of one job, not in
    lists. Of a job just submitted no more is known than id, model, state and request id.
    """

    id: str
    model: str = ""
    state: str = "waiting"
    priority: str = ""
    attempt: int = 0
    tries: int = 0
    max_attempts: int = 0
    request_id: str = ""
    created: float | None = None
    deadline: float | None = None
    started: float | None = None
    finished: float | None = None
    version: str = ""
    executed_ms: float = 0.0
    problem: Problem | None = None
    losses: list[Loss] = []

    @property
    def ended(self) -> bool:
        return self.state not in _OPEN


class JobPage(msgspec.Struct, frozen=True):
    """`next`: the cursor of the page that follows, None on the last."""

    jobs: list[JobView]
    next: str | None = None
