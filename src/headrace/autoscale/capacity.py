"""What `headrace plan` reads: what nodes carry and cost, where they may stand, the demand."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from headrace.autoscale import profile
from headrace.autoscale.profile import BadProfile, Profile
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
    #: The promise inside which it was measured: of a stricter one it says nothing. None: of any.
    slo_s: Positive | None = None

    def keeps(self, slo_s: float) -> bool:
        return self.slo_s is None or self.slo_s <= slo_s

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
    nodes: tuple[NodeType, ...] = ()
    #: Files of `headrace profile`, beside this one: each is a node type.
    profiles: tuple[Text, ...] = ()
    #: Of node types that were profiled without one, an hour.
    prices: dict[str, Positive] = {}
    zones: Annotated[tuple[Zone, ...], Meta(min_length=1)] = (Zone(name="one"),)
    #: N+1: the loss of any zone leaves enough.
    spare_zone: bool = False


def read(path: Path) -> Capacity:
    """With the profiles that it names. Raises BadCapacity, OSError."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text()), Capacity)
        kinds = [_profiled(path.parent / name, found.prices) for name in found.profiles]
    except (
        msgspec.ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError, BadProfile
    ) as error:  # fmt: skip
        raise BadCapacity(f"{path}: {error}") from None
    found = replace(found, nodes=(*found.nodes, *kinds))
    if not found.nodes:
        raise BadCapacity(f"{path}: expected [[nodes]] or profiles, found neither")
    for names in ([n.name for n in found.nodes], [z.name for z in found.zones]):
        if len(set(names)) < len(names):
            raise BadCapacity(f"{path}: expected each name once, found {', '.join(names)}")
    return found


def _profiled(path: Path, prices: dict[str, float]) -> NodeType:
    """A profile as a node type. Raises BadProfile, OSError."""
    found = profile.read(path)
    price = prices.get(found.node) or found.price_hour
    if price is None:
        raise BadProfile(
            f"{path} has no price: write prices = {{{found.node} = ...}}, or profile it with"
            " --price-per-hour"
        )
    packing = packed(found)
    if not packing:
        raise BadProfile(f"{path}: no rate was sustained inside {found.slo_s:g} s")
    return NodeType(name=found.node, price_hour=price, gpu=found.gpu, packing=packing)


def packed(found: Profile) -> tuple[Packing, ...]:
    """The packings of a profile, by k."""
    return tuple(
        Packing(
            workers=one.workers,
            service_s=one.service_s,
            service_cv2=one.service_cv2,
            p95_s=one.p95_s,
            per_second=one.per_second,
            slo_s=found.slo_s,
        )
        for one in found.packings()
    )
