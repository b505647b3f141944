"""Versions come and go under load: promoted, broken in every way, rolled back. No call is lost
(F16), every answer names who gave it, and a bad version never has more than its share."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from versions import BATCH_S, MODELS, TINY, Scene, calls, marks, write

from headrace.deployments import Rollout
from headrace.testing.house import Crowd, TestHouse, patience

TOML = (
    TINY
    + """
    [models.tiny.deploy]
    steps = [10, 50]
    hold_s = 2
    wait_s = 10
    ready_s = 25
    keep_s = 1

    [models.tiny.deploy.gates]
    least_calls = 40
"""
)
PER_SECOND = 300.0
CALLS = 20_000
CALM_S = 5.0
#: What is wrong with a version, in the order of their coming, from 3 on.
BAD: dict[str, dict[str, Any]] = {
    "loading": {"ends": "loading"},
    "predicting": {"ends": "predicting"},
    "slow": {"s": 5 * BATCH_S},
    "tampered": {},
}
MARKS = marks(8)


async def zero_failed(on: Scene) -> None:
    """Good ones come through, bad ones do not, and nobody who calls is told of either."""
    told = on.told
    took = {}

    first = await on.register()
    at = await on.promote(first)
    await on.serves(first)
    took["first"] = told.first("1") - at

    async with Crowd() as beside_calm:
        calm = time.monotonic()
        await asyncio.sleep(CALM_S)
    good = await on.register()
    async with Crowd() as beside_good:
        at = await on.promote(good)
        rollout, _ = await on.ended(good, 60)
    assert rollout.state == "done", rollout.why
    took["good"] = told.first("2") - at
    before, during = told.p99(calm, calm + CALM_S), told.p99(at, time.monotonic())

    bad: dict[str, tuple[Rollout, float, float, float]] = {}
    for name, what in BAD.items():
        number = await on.register(**what)
        if name == "tampered":
            of = on.state / "registry" / "tiny" / str(number) / "files" / "w.safetensors"
            of.chmod(0o644)
            of.write_bytes(of.read_bytes()[:-1] + b"x")
        at = await on.promote(number)
        rollout, seconds = await on.ended(number, 60)
        bad[name] = rollout, seconds, at, time.monotonic()
        assert rollout.state == "rolled-back", (name, rollout)
        await on.names(good)
    by_hand = await on.register()
    await on.promote(by_hand)
    await on.at_step(by_hand)
    await on.deploying.order("tiny", "rollback", author="ops", reason="a hunch", at=time.time())
    rollout, seconds = await on.ended(by_hand, 30)
    assert (rollout.state, seconds < 30 * patience()) == ("rolled-back", True), rollout
    await on.serves(good)

    while told.sent < CALLS:
        await asyncio.sleep(0.1)
    print(f"first answer of a promoted version after {took}")
    crowd = beside_good.patience() / beside_calm.patience()
    print(f"p99: {before * 1000:.0f} ms before, {during * 1000:.0f} ms while a good one came, "
          f"{crowd:.1f} times as many processes beside it")  # fmt: skip
    for name, (rollout, seconds, since, to) in bad.items():
        by = Counter(version for _, version, _ in told.between(since, to))
        share = by[str(rollout.to_version)] / sum(by.values())
        print(f"{name}: back after {seconds:.1f} s, {share:.1%} of the calls; {rollout.why}")
        assert seconds < 30 * patience()
        assert share <= 0.1 * 1.5
    assert {version for _, version, _ in told.answers} == {"ours", "1", "2", "5", "7"}
    assert took["first"] < 10 * patience() and took["good"] < 10 * patience()
    assert during <= 1.5 * before * max(1.0, crowd) + 0.05, "benchmarks/rollout.py measures it"


async def jobs(on: Scene, every_s: float = 0.25) -> None:
    """Stored ones, until it is cancelled: they go the way of the calls."""
    desk = Desk(on.house.port)
    try:
        for number in itertools.count():
            await desk.submit("tiny", number)
            await asyncio.sleep(every_s)
    except asyncio.CancelledError:
        views = await desk.all_ended(60 * patience())
        states = Counter(view["state"] for view in views.values())
        assert states == {"succeeded": len(desk.promised)}, states
        print(f"stored jobs: {Counter(view['version'] for view in views.values())}")


async def raising(on: Scene) -> None:
    """What a version refuses, nobody else can answer: its share of the callers bears it."""
    async with calls(on.house, MARKS, PER_SECOND) as told:
        number = await on.register(raises=3)
        await on.promote(number)
        rollout, seconds = await on.ended(number, 60)
        assert rollout.state == "rolled-back" and rollout.why.startswith("errors"), rollout.why
        await on.serves(2)
    assert not told.failed and not told.wrong and seconds < 30 * patience()
    assert set(told.refused) == {"500 model-failed"}, told.refused
    assert sum(told.refused.values()) < told.sent * 0.1 * 0.3 * 2


@pytest.mark.timeout(400)
async def test_no_call_fails_whatever_is_rolled_out(tmp_path: Path) -> None:
    write(tmp_path / "ours", {"mark": 0, "s": BATCH_S})
    async with TestHouse(MODELS, TOML, tmp_path) as house:
        async with calls(house, MARKS, PER_SECOND) as told:
            on = Scene(house, told)
            stored = asyncio.create_task(jobs(on))
            try:
                await zero_failed(on)
            finally:
                stored.cancel()
                await stored
        told.all_right()
        await raising(on)
        await on.close()
