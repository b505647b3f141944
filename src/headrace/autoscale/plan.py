"""A demand -> nodes, zones and cost: the cheapest mix that keeps the promise. Pure, by scipy.

N_t nodes of a type carry the rate alone (Erlang C); a node's share s_t of it is what its throughput
is planned for, or 1 / N_t where the tail is what limits so few. `scipy.optimize.milp` finds the
whole numbers, exact for one type, and with a node at most too many for a mix:

    least sum(price_t n_tz)   with   sum(n_tz s_t) >= 1           for all zones z, or, with one to
                                                                  spare, for all but any one of them
                                     |n_z - n_y| <= 1             odd here, even there
                                     n_tz = 0                     where a zone has no GPU, t has one
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Literal

import msgspec
import numpy as np

from headrace.autoscale.capacity import Capacity, Demand, NodeType, Packing
from headrace.autoscale.size import carries, nodes

HOURS_A_MONTH = 365.25 * 24 / 12

Mode = Literal["peak", "follow"]


class NoPlan(ValueError):
    """Nothing keeps the promise; the message says what stands in the way."""


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked to be otherwise than the file says. None: as it says."""

    mode: Mode = "follow"  # the counts of the peak always, or those of each hour
    packing: int | None = None
    node: str | None = None
    slo_s: float | None = None


class Placed(msgspec.Struct, frozen=True):
    node: str
    zone: str
    count: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    what: WhatIf
    #: k of each node type that stands in the plan.
    packing: dict[str, int]
    #: In the busiest hour.
    peak_rate: float
    peak: list[Placed]
    peak_nodes: int
    #: Of each hour of the week, from Monday 00:00.
    hourly: list[int]
    node_hours_month: float
    cost_month: float


class _Offer(msgspec.Struct, frozen=True):
    kind: NodeType
    packing: Packing


def plan(capacity: Capacity, what: WhatIf) -> Plan:
    """Raises NoPlan."""
    if what.slo_s is not None:
        demand = msgspec.structs.replace(capacity.demand, slo_s=what.slo_s)
        capacity = msgspec.structs.replace(capacity, demand=demand)
    offers = _offers(capacity, what)
    rates = capacity.demand.rates()
    solved: dict[float, list[Placed]] = {}
    hours = [_placed(rate, offers, capacity, solved) for rate in rates]
    busiest = hours[rates.index(max(rates))]
    paid = [busiest] * len(rates) if what.mode == "peak" else hours
    lead_h = 0.0 if what.mode == "peak" else capacity.demand.lead_s / 3600
    month = HOURS_A_MONTH / len(rates)
    price = {offer.kind.name: offer.kind.price_hour for offer in offers}
    return Plan(
        what=what,
        packing={o.kind.name: o.packing.workers for o in offers if _of(busiest, o.kind.name)},
        peak_rate=max(rates),
        peak=busiest,
        peak_nodes=sum(place.count for place in busiest),
        hourly=[sum(place.count for place in hour) for hour in paid],
        node_hours_month=month * _sum(paid, dict.fromkeys(price, 1.0), lead_h),
        cost_month=month * _sum(paid, price, lead_h),
    )


def _offers(capacity: Capacity, what: WhatIf) -> list[_Offer]:
    """Of each node type the packing with the greatest throughput inside the promise."""
    demand, refused = capacity.demand, []
    offers = []
    for kind in capacity.nodes:
        if what.node not in (None, kind.name):
            continue
        if demand.needs_gpu and not kind.gpu:
            refused.append(f"{kind.name} has no GPU")
            continue
        wanted = [p for p in kind.packing if what.packing in (None, p.workers)]
        measured = [p for p in wanted if p.keeps(demand.slo_s)]
        inside = [p for p in measured if demand.target(p).wait_s > 0]
        if inside:
            best = max(inside, key=lambda packing: packing.per_second)
            offers.append(_Offer(kind, best))
        elif wanted and not measured:
            refused.append(f"{kind.name} was measured inside {wanted[0].slo_s:g} s")
        elif wanted:
            refused.append(f"{kind.name} has a p95 of {wanted[0].p95_s:g} s and more")
        else:
            refused.append(f"{kind.name} was not measured with k = {what.packing}")
    if not offers:
        known = ", ".join(kind.name for kind in capacity.nodes)
        why = "; ".join(refused) or f"there is no node type {what.node!r}, only {known}"
        raise NoPlan(f"no node type keeps p95 {demand.slo_s:g} s: {why}")
    return offers


def _placed(
    rate: float,
    offers: list[_Offer],
    capacity: Capacity,
    solved: dict[float, list[Placed]],
) -> list[Placed]:
    if rate not in solved:
        solved[rate] = _solve(rate, offers, capacity)
    return solved[rate]


def _share(rate: float, offer: _Offer, demand: Demand) -> float:
    """Of the rate, that one node carries."""
    node, target = offer.packing.node(), demand.target(offer.packing)
    count = max(1, nodes(rate, node, target))
    planned = target.utilisation * node.throughput
    if carries(count, node, target) < count * planned * (1 - 1e-9):
        return 1 / count
    return planned / max(rate, 1e-9)


def _solve(rate: float, offers: list[_Offer], capacity: Capacity) -> list[Placed]:
    from scipy.optimize import Bounds, LinearConstraint, milp  # type: ignore[import-untyped]

    zones, shape = capacity.zones, (len(offers), len(capacity.zones))
    usable = np.array([[zone.gpu or not o.kind.gpu for zone in zones] for o in offers])
    shares = np.array([_share(rate, offer, capacity.demand) for offer in offers])
    share = np.broadcast_to(shares[:, None], shape)
    price = np.broadcast_to(np.array([o.kind.price_hour for o in offers])[:, None], shape)
    quota = [np.inf if zone.most is None else zone.most for zone in zones]
    open_zones = [z for z in range(len(zones)) if usable[:, z].any()]
    rules = [LinearConstraint(_only(shape, z).ravel(), 0, quota[z]) for z in range(len(zones))]
    rules.append(LinearConstraint(np.ones(price.size), capacity.demand.least, np.inf))
    for without in open_zones if capacity.spare_zone and len(open_zones) > 1 else [None]:
        kept = share if without is None else share * (1 - _only(shape, without))
        rules.append(LinearConstraint(kept.ravel(), 1 - 1e-9, np.inf))
    for one, other in combinations(open_zones, 2):
        rules.append(LinearConstraint((_only(shape, one) - _only(shape, other)).ravel(), -1, 1))
    found = milp(
        price.ravel(),
        constraints=rules,
        integrality=np.ones(price.size),
        bounds=Bounds(0, np.where(usable, np.inf, 0).ravel()),
    )
    if found.x is None:
        raise NoPlan(_why_not(shares.tolist(), offers, capacity, open_zones))
    counts = np.rint(found.x).astype(int).reshape(shape)
    return [
        Placed(offer.kind.name, zone.name, int(counts[t, z]))
        for t, offer in enumerate(offers)
        for z, zone in enumerate(zones)
        if counts[t, z]
    ]


def _only(shape: tuple[int, int], zone: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    mask = np.zeros(shape)
    mask[:, zone] = 1.0
    return mask


def _why_not(
    shares: list[float], offers: list[_Offer], capacity: Capacity, open_zones: list[int]
) -> str:
    if not open_zones:
        return "no zone has a GPU, and every node type that keeps the promise has one"
    alone = [math.ceil(1 / share - 1e-9) for share in shares]
    names = [f"{n} of {o.kind.name}" for n, o in zip(alone, offers, strict=True)]
    spare = ", and a zone to spare," if capacity.spare_zone else ""
    return f"the peak needs {' or '.join(names)}{spare}: the zones allow fewer (zones.most)"


def _of(placed: list[Placed], name: str) -> int:
    return sum(place.count for place in placed if place.node == name)


def _sum(hours: list[list[Placed]], price: dict[str, float], lead_h: float) -> float:
    """Over the week; what the next hour needs more is there, and paid, `lead_h` earlier."""
    total = 0.0
    for at, hour in enumerate(hours):
        following = hours[(at + 1) % len(hours)]
        for name, each in price.items():
            now, then = _of(hour, name), _of(following, name)
            total += each * (now + max(0, then - now) * lead_h)
    return total
