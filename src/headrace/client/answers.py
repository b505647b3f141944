"""What a house answers, typed. Fields that a later house adds are ignored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


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
    `elsewhere`: those of other gateways; `per_second`: items a second in full batches."""

    outstanding: int = 0
    elsewhere: int = 0
    per_second: float = 0.0
    workers: list[WorkerStatus] = []


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one gateway knows of the house."""

    gateway: str = ""
    ready: bool = False
    draining: bool = False
    models: list[ModelStatus] = []
