"""How long a batch takes by itself: inputs sent together in one call, nothing else to do.

Jobs of one batch have the same time in the model, to the microsecond: so its size is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import msgspec

from headrace.client.write import many_of
from headrace.profiling.apart import Apart
from headrace.profiling.wire import post

REPEATS = 5
LIMIT_S = 60.0


class _Times(msgspec.Struct):
    executed_ms: float = 0.0


class _Result(msgspec.Struct):
    timings: _Times | None = None


class _Answer(msgspec.Struct):
    results: list[_Result] = []


async def probe(
    apart: Apart, inputs: Sequence[Any], max_size: int, budget_s: float
) -> list[tuple[int, float]]:
    """Size and milliseconds of batches, from single inputs to full batches. Within the budget,
    but for the first call of all."""
    points: list[tuple[int, float]] = []
    end_at = time.monotonic() + budget_s
    for _ in range(REPEATS):
        for size in sizes(max_size):
            if points and time.monotonic() > end_at:
                return points
            points += await _together(apart, list(islice(cycle(inputs), size)), max_size)
    return points


def sizes(most: int) -> list[int]:
    """1, 2, 4, ... and the most."""
    return [*(1 << power for power in range(most.bit_length()) if 1 << power < most), most]


async def _together(apart: Apart, inputs: list[Any], max_size: int) -> list[tuple[int, float]]:
    gateway, body = apart.settings.gateway, many_of(inputs)
    if len(body.data) > gateway.max_body_bytes or len(inputs) > gateway.max_many:
        return []
    path = f"/models/{apart.model}/predict-many"
    with contextlib.suppress(OSError, TimeoutError, msgspec.DecodeError):
        async with asyncio.timeout(LIMIT_S):
            said = await post(apart.port, path, body, LIMIT_S)
        return batches(msgspec.json.decode(said, type=_Answer), max_size)
    return []


def batches(answer: _Answer, max_size: int) -> list[tuple[int, float]]:
    times = Counter(one.timings.executed_ms for one in answer.results if one.timings)
    return [(size, took) for took, size in times.items() if size <= max_size]
