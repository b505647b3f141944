"""What `headrace plan` reads: what nodes carry and cost, where they may stand, the demand."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace.policy import Node, Positive, Share, Target

Text = Annotated[str, Meta(min_length=1)]
Weight = Annotated[float, Meta(ge=0)]
HOURS, DAYS = 24, 7


class BadCapacity(ValueError):
    """The file is wrong: the message names the key, and what was expected."""


class _Written(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """By a person, in a file."""


class Packing(_Written, frozen=True, kw_only=True):
    """T(k) and p95(k): what was measured with k model processes on a node."""

    workers: Annotated[int, Meta(ge=1)]
    service_s: Positive
    p95_s: Positive
    per_second: Positive
    service_cv2: Annotated[float, Meta(ge=0)] = 0.0

    def node(self) -> Node:
        return Node(
            workers=self.workers,
            service_s=self.service_s,
            service_cv2=self.service_cv2,
            per_second=self.per_second,
        )


class NodeType(_Written, frozen=True, kw_only=True):
    name: Text
    price_hour: Positive
    gpu: bool = False
    packing: Annotated[tuple[Packing, ...], Meta(min_length=1)]


class Zone(_Written, frozen=True, kw_only=True):
    name: Text
    gpu: bool = True
    #: Nodes that the quota allows.
    most: Annotated[int, Meta(ge=0)] | None = None


class Demand(_Written, frozen=True, kw_only=True):
    calls_a_day: Positive  # as a mean over the week
    slo_s: Positive  # p95
    overhead_s: Annotated[float, Meta(ge=0)] = 0.0
    #: Weights of the hours of a day, and of the days of a week from Monday.
    hours: Annotated[tuple[Weight, ...], Meta(min_length=HOURS, max_length=HOURS)] = (1.0,) * HOURS
    week: Annotated[tuple[Weight, ...], Meta(min_length=DAYS, max_length=DAYS)] = (1.0,) * DAYS
    #: The busiest minute of an hour to its mean.
    peak_factor: Annotated[float, Meta(ge=1)] = 1.0
    needs_gpu: bool = False
    least: Annotated[int, Meta(ge=1)] = 1
    #: L: until a node that is asked for answers; paid.
    lead_s: Annotated[float, Meta(ge=0)] = 600.0
    tail: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    utilisation: Share = 0.91

    def rates(self) -> list[float]:
        """Calls a second in the busiest minute of each hour of the week, from Monday 00:00."""
        weights = [day * hour for day in self.week for hour in self.hours]
        if not any(weights):
            raise BadCapacity("demand: hours and week leave no hour in which anybody calls")
        mean = self.calls_a_day / 86_400
        scale = mean * len(weights) / sum(weights) * self.peak_factor
        return [weight * scale for weight in weights]

    def target(self, packing: Packing) -> Target:
        return Target(
            slo_s=self.slo_s,
            service_p95_s=packing.p95_s,
            overhead_s=self.overhead_s,
            tail=self.tail,
            utilisation=self.utilisation,
        )


class Capacity(_Written, frozen=True, kw_only=True):
    demand: Demand
    nodes: Annotated[tuple[NodeType, ...], Meta(min_length=1)]
    zones: Annotated[tuple[Zone, ...], Meta(min_length=1)] = (Zone(name="one"),)
    #: N+1: the loss of any zone leaves enough.
    spare_zone: bool = False


def read(path: Path) -> Capacity:
    """Raises BadCapacity, OSError."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text()), Capacity)
    except (msgspec.ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadCapacity(f"{path}: {error}") from None
    for names in ([n.name for n in found.nodes], [z.name for z in found.zones]):
        if len(set(names)) < len(names):
            raise BadCapacity(f"{path}: expected each name once, found {', '.join(names)}")
    return found
