"""What a dead worker had runs again before the rest of a long queue."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from .models import read_runs
from .nemesis import becomes, children, kill
from .play import Play

JOBS = 240  # 30 batches, of two workers: some 6 s
WORK_MS = 400.0
BEHIND = 40  # jobs that had never run and began later, at least


async def test_what_a_dead_worker_had_goes_before_the_rest(tmp_path: Path) -> None:
    """On RabbitMQ: NATS delivers what a dead worker had taken before the rest by itself."""
    few: dict[str, Any] = {"gateways": 1, "workers": 2, "clerks": 1}
    async with Play(tmp_path, broker="rabbitmq", work_ms=WORK_MS, **few) as play:
        load = play.load(range(1, JOBS + 1), rate=2000.0, connections=16)
        submitting = asyncio.create_task(load.submit_all())  # and follows some to their ends
        assert await becomes(lambda: len(load.acked) == JOBS, 20.0)
        struck: list[int] = []

        def at_work() -> bool:
            struck[:] = filter(None, [play.scene.at_work("worker")])
            return bool(struck)

        assert await becomes(at_work, 10.0)
        [worker] = struck
        kin = [worker, *children(worker)]
        play.fault("kill worker", await kill(worker), *kin)
        await submitting
    assert play.verdict.good, play.verdict.told()
    began: dict[int, list[float]] = {}
    for run in read_runs(play.scene.runs):
        if run.number:  # 0: the golden call
            began.setdefault(run.number, []).append(run.at)
    again = [times[1] for times in began.values() if len(times) > 1]
    firsts = [times[0] for times in began.values()]
    assert again, "nobody was struck at work"
    behind = sum(first > max(again) for first in firsts)
    assert behind >= BEHIND, (behind, len(again), play.verdict.requeue_s)
