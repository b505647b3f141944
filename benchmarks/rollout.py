"""What callers see of a rollout: how long until a promoted version answers, and the p99 meanwhile.

    python benchmarks/rollout.py                 3 rounds of 300 calls/s, about 3 min
    python benchmarks/rollout.py --quick         1 round of 100 calls/s, to see that it runs

A round is a house of its own. Version 1 is promoted after the settings' own files (first), 2 comes
by a canary of three steps, 3 is started by hand, blue-green. Before each the house is left alone
for some seconds; the times of those calls stand beside those from the promotion until the rollout
is done. The loop is open: what a call takes counts from when it was due. A p99 is taken of each
second: the figure is the median of the seconds, the worst second stands beside it. Medians of the
rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench import machine

from headrace.testing.house import TestHouse
from headrace.testing.load import quantile

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "journeys"))
from versions import BATCH_S, MODELS, TINY, Scene, Told, calls, marks, write

TOML = (
    TINY
    + """
    [models.tiny.deploy]
    steps = [10, 25, 50]
    hold_s = {hold_s}
    keep_s = 2

    [models.tiny.deploy.gates]
    least_calls = 20
"""
)
MARKS = marks(3)
KINDS = ("first", "canary", "blue-green")
#: Of the two spans of each rollout, in ms; of the promotion in s.
COLUMNS = (
    "p50 before", "p50 during", "p99 before", "p99 during", "times", "worst second",
    "promote to first answer, s", "to the end, s",
)  # fmt: skip


def of(told: Told, since: float, to: float) -> tuple[float, float, float]:
    """p50 of all, the p99 of the median second and that of the worst one, in ms."""
    seconds: dict[int, list[float]] = {}
    for at, _, took_s in told.between(since, to):
        seconds.setdefault(int(at - since), []).append(took_s * 1e3)
    p99 = [quantile(each, 0.99) for each in seconds.values()]
    everything = [ms for each in seconds.values() for ms in each]
    return quantile(everything, 0.5), statistics.median(p99), max(p99)


async def one(on: Scene, kind: str, calm_s: float) -> list[float]:
    calm = time.monotonic()
    await asyncio.sleep(calm_s)
    number = await on.register()
    if kind == "blue-green":
        at = time.monotonic()
        given = {"version": number, "strategy": kind, "author": "bench", "reason": "to measure"}
        await on.deploying.order("tiny", "start", at=time.time(), **given)
    else:
        at = await on.promote(number)
    rollout, _ = await on.ended(number, 120)
    if rollout.state != "done":
        raise SystemExit(f"{kind}: {rollout.state}, {rollout.why}")
    to = time.monotonic()
    p50, p99, _ = of(on.told, calm, calm + calm_s)
    p50_then, p99_then, worst = of(on.told, at, to)
    first = on.told.first(str(number)) - at
    return [p50, p50_then, p99, p99_then, p99_then / p99, worst, first, to - at]


async def a_round(per_second: float, calm_s: float, hold_s: float) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory(prefix="headrace-rollout-") as name:
        folder = Path(name)
        write(folder / "ours", {"mark": 0, "s": BATCH_S})
        async with TestHouse(MODELS, TOML.format(hold_s=hold_s), folder) as house:
            async with calls(house, MARKS, per_second) as told:
                on = Scene(house, told)
                await asyncio.sleep(2)  # warm
                found = {kind: await one(on, kind, calm_s) for kind in KINDS}
            told.all_right()
            await on.close()
    return found


async def measure(rounds: int, per_second: float, calm_s: float, hold_s: float) -> None:
    rows: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        stolen = machine.Stolen()
        for kind, row in (await a_round(per_second, calm_s, hold_s)).items():
            rows[kind].append(row)
        print(f"round {number + 1}: stolen {stolen.share():.0%}", flush=True)
    print(f"\n{per_second:g} calls/s, none failed; ms; medians of {rounds} rounds")
    print(f"| | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for kind, found in rows.items():
        middle = [statistics.median(column) for column in zip(*found, strict=True)]
        print(f"| {kind} | {' | '.join(f'{each:.2f}' for each in middle)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=300.0, help="calls a second")
    parser.add_argument("--calm", type=float, default=8.0, help="seconds before each rollout")
    parser.add_argument("--hold", type=float, default=4.0, help="seconds of a canary's step")
    parser.add_argument("--quick", action="store_true", help="1 round, 100 calls/s, short spans")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.rate, given.calm, given.hold = 1, 100.0, 2.0, 1.0
    asyncio.run(measure(given.rounds, given.rate, given.calm, given.hold))


if __name__ == "__main__":
    main()
