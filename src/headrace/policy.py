"""What an operator writes about a model's capacity. Data, and nothing else.

The defaults are one set for all traffic; docs/architecture/10-capacity.md says how they were found.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Clock = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

ALL_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class _Written(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """By a person, in a file or a request."""


class Node(_Written, frozen=True, kw_only=True):
    """What one node carries, as `headrace profile` measured it."""

    #: k: model processes that share it.
    workers: Annotated[int, Meta(ge=1)] = 4
    #: S: mean time of one call in the model.
    service_s: Positive = 1.0
    #: Squared coefficient of variation of S: 0 is constant, 1 exponential.
    service_cv2: Annotated[float, Meta(ge=0)] = 0.0
    #: T_node: the load-tested throughput inside the target, calls a second; none: k / S.
    per_second: Positive | None = None
    #: L: start-up time, from asking for it to its first answer, until some were measured.
    start_s: Positive = 60.0

    @property
    def throughput(self) -> float:
        """Calls a second."""
        return self.per_second or self.workers / self.service_s


class Target(_Written, frozen=True, kw_only=True):
    """The promise: 95 of 100 calls within `slo_s`."""

    slo_s: Positive = 3.0
    #: The model's own p95, and all else that is not waiting: read, enrich, the way home.
    service_p95_s: Positive = 1.0
    overhead_s: Annotated[float, Meta(ge=0)] = 0.0
    #: Share of calls that may wait longer than the promise leaves.
    tail: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    #: Of a node's throughput that is planned for.
    utilisation: Share = 0.94
    #: Squared coefficient of variation between arrivals: 1 is Poisson.
    arrival_cv2: Annotated[float, Meta(ge=0)] = 1.0

    @property
    def wait_s(self) -> float:
        """What a call may wait: 0 or less where the model alone breaks the promise."""
        return self.slo_s - self.service_p95_s - self.overhead_s

    def broken(self) -> str:
        """Why no number of nodes keeps it; "" where enough do."""
        if self.wait_s > 0:
            return ""
        return (
            f"service_p95_s {self.service_p95_s:g} and overhead_s {self.overhead_s:g} leave nothing"
            f" of slo_s {self.slo_s:g} to wait: no number of nodes keeps that promise"
        )


class Margin(_Written, frozen=True, kw_only=True):
    """How far above the forecast is planned: learned from the forecasts that are settled."""

    #: Share of the calls that came at times whose forecast, with margin, was enough.
    quantile: Annotated[float, Meta(gt=0, lt=1)] = 0.92
    #: Errors count that were made at about this time of day, in the last days.
    around_min: Annotated[int, Meta(ge=0)] = 30
    days: Annotated[int, Meta(ge=1)] = 7
    #: Until a day is settled.
    cold: Annotated[float, Meta(ge=1)] = 1.25
    least: Annotated[float, Meta(ge=1)] = 1.0
    most: Annotated[float, Meta(ge=1)] = 2.0


class Guard(_Written, frozen=True, kw_only=True):
    """What follows the traffic that nobody foresaw, every minute; it only raises."""

    gain: Annotated[float, Meta(ge=0)] = 1.0
    #: Of the rise that the last ten minutes promise for the time until a node is there.
    rise: Annotated[float, Meta(ge=0)] = 2.0
    #: What waits is to be worked off in this time.
    drain_s: Positive = 300.0


class Entry(_Written, frozen=True, kw_only=True):
    """A line of the time table: a floor, a cap or both, by the clock of a place."""

    start: Clock
    end: Clock
    zone: str = "UTC"  # IANA, as Asia/Ho_Chi_Minh
    days: tuple[Day, ...] = ALL_DAYS
    floor: Count | None = None
    cap: Count | None = None


class Override(_Written, frozen=True, kw_only=True):
    """A person's hand: it stands above all else until it expires."""

    kind: Literal["set", "floor", "cap"]
    count: Count
    author: str
    reason: str
    expires: float  # Unix time


class Policy(_Written, frozen=True, kw_only=True):
    """How one model is scaled."""

    model: str = "model"
    node: Node = Node()
    target: Target = Target()
    #: Bounds. Scale to zero is opt-in: least = 0.
    least: Count = 1
    most: Count = 1_000
    #: T: what a plan is for, from when a node is there that is asked for now.
    cycle_min: Annotated[int, Meta(ge=1)] = 5
    #: How often a plan is made, and may lower the count; at least once a cycle.
    every_min: Annotated[int, Meta(ge=1)] = 1
    margin: Margin = Margin()
    guard: Guard = Guard()
    schedule: tuple[Entry, ...] = ()
    #: After a raise nothing is lowered for this long.
    cool_down_s: Annotated[float, Meta(ge=0)] = 0.0
    #: Nothing is lowered on figures older than this.
    stale_s: Positive = 150.0
    #: A fall below this share of the last half hour, that the season does not know, is an outage.
    outage_share: Annotated[float, Meta(ge=0, lt=1)] = 0.35
    #: Where nodes may stand. With `spare_zone` the loss of one leaves enough.
    zones: tuple[str, ...] = ()
    spare_zone: bool = False

    def __post_init__(self) -> None:
        if why := self.target.broken():
            raise ValueError(f"target: {why}")
        if self.least > self.most:
            raise ValueError(f"least {self.least} is more than most {self.most}")
