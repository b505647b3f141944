"""Ten times more than can be answered: what can be is, the rest is told so at once."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from square import right

from headrace.testing.house import TestHouse, patience
from headrace.testing.load import Ledger, Load, quantile

MODELS = """
    import time
    import headrace

    class Slow(headrace.Model):
        batching = headrace.Batching(max_size=32)

        def golden(self):
            return 3, 10

        def predict(self, items: list[int]) -> list[int]:
            time.sleep(0.050 + 0.002 * len(items))
            return [n * n + 1 for n in items]
"""
TOML = """
    [models.slow]
    class = "models:Slow"
"""
IDEAL = 32 / 0.114  # items a second
DEADLINE_MS = 1000


async def load_for(
    house: TestHouse, seconds: float, connections: int, deadline_ms: int = 10_000
) -> Ledger:
    async with Load(
        house.port, "slow", itertools.count(), right=right, connections=connections,
        deadline_ms=deadline_ms, pause_refused_s=0.06,
    ) as load:  # fmt: skip
        await asyncio.sleep(seconds)
        load.stop()
    return load.ledger


async def test_goodput_and_refusals(tmp_path: Path) -> None:
    """Peak: as many callers as four batches, nobody refused. Overload: 400 callers, each back
    60 ms after a refusal, which offers ten times the peak (five on a busy machine).

    The client is no bottleneck: a process of its own, and it uses less than 70 % of a core (the
    ledger measures its CPU time), so what it measures of a refusal is the house's time and not its
    own queue."""
    async with TestHouse(MODELS, TOML, tmp_path) as house:
        await load_for(house, 1.0, 128)  # the pace is learned
        peak = await load_for(house, 4.0, 128)
        peak.all_right()
        assert peak.per_second > 0.75 * IDEAL, peak.per_second
        executed = await house.total("headrace_worker_jobs_total", end="answered")
        over = await load_for(house, 8.0, 400, DEADLINE_MS)
        executed = await house.total("headrace_worker_jobs_total", end="answered") - executed

        shown = (
            f"peak {peak.per_second:.0f}/s; over: {over.sent / over.wall_s:.0f}/s offered, "
            f"{over.per_second:.0f}/s right, {dict(over.refused)}, refused in "
            f"p50 {quantile(over.refused_in_s, 0.5) * 1e3:.1f} "
            f"p99 {quantile(over.refused_in_s, 0.99) * 1e3:.1f} ms, client {over.busy:.0%} of a "
            f"core, executed {executed:.0f}"
        )
        print(shown)
        assert over.sent > 5 * peak.per_second * over.wall_s, shown
        assert over.busy < 0.7, shown
        assert not over.failed and not over.wrong, shown
        assert over.per_second >= 0.8 * peak.per_second, shown
        assert over.no_retry_after == 0
        assert quantile(over.refused_in_s, 0.5) < 0.05 * patience(), shown
        assert quantile(over.refused_in_s, 0.99) < 0.2 * patience(), shown
        late = over.refused["504 deadline-exceeded"]
        assert set(over.refused) <= {"503 overloaded", "504 deadline-exceeded"}, shown
        assert late <= 0.1 * over.ok, shown
        # What was run was answered: expired jobs are dropped before the model.
        assert executed - over.ok <= 0.1 * over.ok + 32, shown
        # And it is over when it is over.
        after = await load_for(house, 2.0, 128)
        after.all_right()
        assert after.per_second >= 0.6 * peak.per_second  # two seconds, and the last calls' end


async def test_expired_jobs_never_reach_the_model(tmp_path: Path) -> None:
    """Callers with 80 ms behind callers with a second: admitted, as the wait is a mean, or not;
    either way nothing that is too late is run."""
    async with TestHouse(MODELS, TOML, tmp_path) as house:
        async with Load(
            house.port, "slow", range(128), right=right, connections=128, deadline_ms=10_000
        ) as patient:
            await asyncio.sleep(0.05)
            async with Load(
                house.port, "slow", range(64), right=right, connections=64, deadline_ms=150
            ) as hasty:
                pass
        patient.ledger.all_right(128)
        refused = hasty.ledger.refused
        assert hasty.ledger.ok + sum(refused.values()) == 64
        expired = await house.total("headrace_worker_jobs_total", end="expired")
        assert expired == refused["504 deadline-exceeded"]
        answered = await house.total("headrace_worker_jobs_total", end="answered")
        assert answered == 128 + hasty.ledger.ok
