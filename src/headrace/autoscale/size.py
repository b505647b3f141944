"""Calls a second -> nodes: the smallest N that keeps the promise.

    a = rate * S, c = N * k                       Erlang C by the B recursion, then its tail:
    P(W > x) = C exp(-(c-a) x/S * 2/(ca2+cs2))    at most `tail`, and rate <= u N T_node

A node's limit is found once for each N; a rate is then looked up among the limits.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache

from headrace.policy import Node, Target

_HALVINGS = 40
_ROUNDING = 1e-9


class Unreachable(ValueError):
    """The model alone takes longer than the promise: no number of nodes keeps it."""


def nodes(rate: float, node: Node, target: Target) -> int:
    """`rate` in calls a second; 0 for none. Raises Unreachable."""
    if rate <= 0:
        return 0
    limits = _limits(node, target)
    while limits[-1] < rate - _ROUNDING:
        limits.append(max(_limit(len(limits) + 1, node, target), limits[-1]))
    return bisect_left(limits, rate - _ROUNDING) + 1


def carries(count: int, node: Node, target: Target) -> float:
    """The greatest rate for which `count` nodes are enough, in calls a second."""
    if count <= 0:
        return 0.0
    limits = _limits(node, target)
    while len(limits) < count:
        limits.append(max(_limit(len(limits) + 1, node, target), limits[-1]))
    return limits[count - 1]


@lru_cache(maxsize=256)
def _limits(node: Node, target: Target) -> list[float]:
    if why := target.broken():
        raise Unreachable(why)
    return [_limit(1, node, target)]


def _limit(count: int, node: Node, target: Target) -> float:
    throughput = min(node.throughput, node.workers / node.service_s)
    high = target.utilisation * count * throughput
    if late(high, count, node, target) <= target.tail:
        return high
    low = 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if late(middle, count, node, target) <= target.tail:
            low = middle
        else:
            high = middle
    return low


def late(rate: float, count: int, node: Node, target: Target) -> float:
    """P(W > wait_s): the share of calls that wait longer than the promise leaves."""
    offered, servers = rate * node.service_s, count * node.workers
    if offered >= servers:
        return 1.0
    decay = 2.0 / max(target.arrival_cv2 + node.service_cv2, 1e-9)
    left = (servers - offered) * target.wait_s / node.service_s * decay
    return erlang_c(servers, offered) * math.exp(-left)


def erlang_c(servers: int, offered: float) -> float:
    """The share of calls that wait at all; 1 where the servers cannot keep up."""
    if offered >= servers:
        return 1.0
    blocked = 1.0
    for busy in range(1, servers + 1):
        blocked = offered * blocked / (busy + offered * blocked)
    used = offered / servers
    return blocked / (1.0 - used * (1.0 - blocked))
