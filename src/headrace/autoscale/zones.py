"""A count -> nodes in each zone: the odd ones here, the even ones there. Pure."""

from __future__ import annotations

import math


def spared(count: int, zones: int, spare: bool) -> int:
    """With one zone to spare, the others carry `count` alone; grows with `count`."""
    if not spare or zones < 2 or count <= 0:
        return count
    return math.ceil(count / (zones - 1)) * zones


def spread(count: int, zones: tuple[str, ...]) -> dict[str, int]:
    """Node 1 in the first zone, node 2 in the second, and round again."""
    return {
        zone: count // len(zones) + (place < count % len(zones)) for place, zone in enumerate(zones)
    }
