"""The runs that CI makes: every broker with every database, in the middle of kills and pauses by
chance. The long ones are `make faults`."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from .run import Asked, Outcome, run, table

RATE = 2000.0  # more than the house takes: how fast it goes is up to the machine
AT_WORK = {"work_ms": 10.0, "at_work": True}


async def good(folder: Path, asked: Asked) -> Outcome:
    outcome = await run(asked, folder)
    Console(width=110).print(table(outcome))  # pytest shows it with a failure
    verdict = outcome.verdict
    assert verdict.good, verdict.told()
    assert verdict.counts["accepted"] == asked.jobs
    kills = sum(n for what, n in verdict.counts.items() if what.startswith("kill "))
    assert kills == asked.kills
    return outcome


@pytest.mark.timeout(900)
async def test_20000_jobs_under_50_kills(tmp_path: Path) -> None:
    asked = Asked(jobs=20_000, kills=50, seed=7, rate=RATE, **AT_WORK)
    outcome = await good(tmp_path, asked)
    assert len(outcome.verdict.requeue_s) > 50, "the kills found nobody at work"


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("broker", "database"),
    [("rabbitmq", "sqlite"), ("nats", "postgresql"), ("rabbitmq", "postgresql")],
)
async def test_3000_jobs_under_10_kills(broker: str, database: str, tmp_path: Path) -> None:
    asked = Asked(
        jobs=3_000, kills=10, seed=7, broker=broker, database=database, rate=RATE, **AT_WORK
    )
    await good(tmp_path, asked)
