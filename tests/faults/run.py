"""`python -m tests.faults.run --jobs 20000 --kills 50 --seed 7`: a house under load and kills,
judged from ledgers. Ends with 1 where an invariant is broken, with 2 where the run says nothing.

    scene -> load + nemesis -> quiet -> API, house stopped, database -> checker -> table
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .checker import Verdict, quantile
from .load import JobLoad
from .nemesis import PAUSES_A_KILL, ROLES, Nemesis, Strike, Void, plan
from .play import QUIET_S, Play
from .scene import BROKERS, DATABASES


@dataclass
class Asked:
    """What a run is to be; the same again gives the same plan of strikes."""

    jobs: int = 20_000
    kills: int = 50
    seed: int = 1
    broker: str = "nats"
    database: str = "sqlite"
    rate: float = 500.0
    connections: int = 64
    bug: str = ""
    old: str = ""
    gateways: int = 2
    workers: int = 3
    clerks: int = 2
    work_ms: float = 2.0  # of a batch
    quiet_s: float = QUIET_S
    follow: int = 10  # one in so many is followed to its end while others are submitted
    pauses_a_kill: float = PAUSES_A_KILL
    apart_s: float = 0.0  # from strike to strike, at least
    at_work: bool = False  # workers and models are struck in the middle of a batch alone
    roles: dict[str, int] = field(default_factory=lambda: dict(ROLES))


@dataclass
class Outcome:
    asked: Asked
    verdict: Verdict
    sha256: str
    wall_s: float
    quiet_s: float
    acted: set[str]  # of the bugs, and of other releases

    def record(self) -> dict[str, Any]:
        """For the books of all runs."""
        verdict = self.verdict
        times = {"accept": verdict.accept_s, "refusal": verdict.refusal_s,
                 "requeue": verdict.requeue_s}  # fmt: skip
        return {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.release()}",
            "commit": _commit(),
            "asked": asdict(self.asked),
            "good": verdict.good,
            "broken": {kind: found[:20] for kind, found in verdict.broken.items()},
            "counts": dict(verdict.counts),
            "ms": {
                name: {f"p{share:g}": round(quantile(values, share / 100) * 1000, 2)
                       for share in (50, 99, 100)}
                for name, values in times.items()
            },
            "bound_95": 3 / max(1, verdict.counts["accepted"]),
            "wall_s": round(self.wall_s, 1),
            "quiet_s": round(self.quiet_s, 2),
            "ledger_sha256": self.sha256,
        }  # fmt: skip


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


class Nobody:
    """Told of the progress, and silent."""

    def accepted(self, count: int) -> None: ...

    def struck(self, strike: Strike) -> None: ...

    def stage(self, what: str) -> None: ...


class Lines(Nobody):
    """For a log."""

    EVERY_S = 10.0

    def __init__(self, asked: Asked) -> None:
        self._asked, self._began, self._told_at, self._strikes = asked, time.monotonic(), 0.0, 0

    def accepted(self, count: int) -> None:
        now = time.monotonic()
        if now - self._told_at > self.EVERY_S:
            self._told_at = now
            after_s = f"{now - self._began:.0f} s"
            line = f"{after_s}: {count} of {self._asked.jobs} accepted, {self._strikes} strikes"
            print(line, flush=True)

    def struck(self, strike: Strike) -> None:
        self._strikes += 1

    def stage(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:.0f} s: {what}", flush=True)


class Bars(Nobody):
    def __init__(self, progress: Progress, asked: Asked) -> None:
        self._progress = progress
        self._jobs = progress.add_task("starting", total=asked.jobs)
        self._strikes = progress.add_task("strikes", total=len(_strikes(asked)))

    def accepted(self, count: int) -> None:
        self._progress.update(self._jobs, completed=count)

    def struck(self, strike: Strike) -> None:
        self._progress.advance(self._strikes)

    def stage(self, what: str) -> None:
        self._progress.update(self._jobs, description=what)


def _strikes(asked: Asked) -> list[Strike]:
    return plan(asked.seed, asked.kills, asked.jobs, asked.roles, asked.pauses_a_kill)


async def run(
    asked: Asked,
    folder: Path,
    watcher: Nobody | None = None,
    *,
    strikes: list[Strike] | None = None,
    environment: dict[str, str] | None = None,
) -> Outcome:
    """One run. `strikes`: in place of a plan by chance; they come when the model has begun so many
    runs. Raises Void where a strike did not act."""
    watcher, began = watcher or Nobody(), time.monotonic()
    play = Play(
        folder, quiet_s=asked.quiet_s, stage=watcher.stage, broker=asked.broker,
        database=asked.database, bug=asked.bug, old=asked.old, gateways=asked.gateways,
        workers=asked.workers, clerks=asked.clerks, work_ms=asked.work_ms, environment=environment,
    )  # fmt: skip
    async with play:
        scene, ledger = play.scene, play.ledger
        load = play.load(
            range(1, asked.jobs + 1), run=f"s{asked.seed}", rate=asked.rate,
            connections=asked.connections, follow=asked.follow,
        )  # fmt: skip
        watcher.stage("accepted")
        submitting = asyncio.create_task(load.submit_all())
        if strikes is None:
            nemesis = Nemesis(
                scene, ledger, lambda: len(load.acked), submitting.done, at_work=asked.at_work,
                apart_s=asked.apart_s,
            )  # fmt: skip
            acting = nemesis.carry_out(_strikes(asked), watcher.struck)
        else:
            nemesis = Nemesis(
                scene, ledger, scene.runs_begun, lambda: scene.runs_begun() >= asked.jobs,
                at_work=asked.at_work,
            )  # fmt: skip
            acting = nemesis.carry_out(strikes, watcher.struck)
        await _both(submitting, asyncio.create_task(acting), load, watcher)
    wall_s = time.monotonic() - began
    roles = asked.old.partition(":")[0].split(",") if asked.old else []
    if missing := {f"old-{role}" for role in roles} - scene.acted():
        raise Void(f"no process of another release: {', '.join(sorted(missing))}")
    return Outcome(
        asked, play.verdict, play.ledger.sha256, wall_s, play.quiet_s, play.scene.acted()
    )


async def _both(
    submitting: asyncio.Task[None], acting: asyncio.Task[None], load: JobLoad, watcher: Nobody
) -> None:
    try:
        while not submitting.done():
            watcher.accepted(len(load.acked))
            if acting.done():
                acting.result()
            await asyncio.wait([submitting], timeout=0.1)
        watcher.accepted(len(load.acked))
        submitting.result()
        await acting
    finally:
        submitting.cancel()
        acting.cancel()
        await asyncio.gather(submitting, acting, return_exceptions=True)


def table(outcome: Outcome) -> Table:
    record, verdict = outcome.record(), outcome.verdict
    counts, ms = verdict.counts, record["ms"]
    faults = {what: n for what, n in counts.items() if what.startswith(("kill ", "pause "))}
    kills = sum(n for what, n in faults.items() if what.startswith("kill"))
    shown = Table(title=f"seed {outcome.asked.seed}: {outcome.asked.broker}, "
                        f"{outcome.asked.database}", show_header=False)  # fmt: skip
    lines: dict[str, Any] = {
        "accepted": f"{counts['accepted']} of {counts['jobs']}",
        "kills asked, seen": f"{outcome.asked.kills}, {kills}",
        "": ", ".join(f"{what} {n}" for what, n in sorted(faults.items())),
        "calls: unknown, refused, timed out": f"{counts['unknown']}, {counts['refused']}, "
                                              f"{counts['timeouts']}",
        "lost": f"{len(verdict.broken.get('lost', []))} (95 %: below {record['bound_95']:.1e})",
        "duplicated": len(verdict.broken.get("duplicated", [])),
        "recovered": counts["recovered"],
        "runs, second ones, unexplained": f"{counts['runs']}, {counts['repeats']}, "
                                          f"{counts.get('unexplained', 'not judged')}",
        "accept p50, p99": f"{ms['accept']['p50']}, {ms['accept']['p99']} ms",
        "requeue p50, p99": f"{ms['requeue']['p50']}, {ms['requeue']['p99']} ms "
                            f"({len(verdict.requeue_s)})",
        "quiet after, in all": f"{outcome.quiet_s:.1f} s, {outcome.wall_s:.0f} s",
        "ledger sha256": outcome.sha256,
        "verdict": "good" if verdict.good else verdict.told(),
    }  # fmt: skip
    shown.add_column()
    shown.add_column(overflow="fold")
    for name, value in lines.items():
        shown.add_row(name, str(value))
    return shown


def _ask(arguments: list[str] | None) -> tuple[Asked, str, str]:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run", description=__doc__)
    default = Asked()
    parser.add_argument("--jobs", type=int, default=default.jobs)
    parser.add_argument("--kills", type=int, default=default.kills)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--broker", choices=BROKERS, default=default.broker)
    parser.add_argument("--database", choices=DATABASES, default=default.database)
    parser.add_argument("--rate", type=float, default=default.rate, help="jobs a second")
    parser.add_argument("--connections", type=int, default=default.connections)
    parser.add_argument("--workers", type=int, default=default.workers)
    parser.add_argument("--work-ms", type=float, default=default.work_ms, help="of a batch")
    parser.add_argument("--pauses-a-kill", type=float, default=default.pauses_a_kill)
    parser.add_argument("--at-work", action="store_true", help="strike in the middle of a batch")
    parser.add_argument("--apart-s", type=float, default=default.apart_s, help="of strikes")
    parser.add_argument("--only", default="", choices=list(ROLES), help="strike this role alone")
    parser.add_argument("--bug", default="", help="seeded bugs of tests/faults/bugs")
    parser.add_argument(
        "--old", default="", help="roles that run another release: worker,gateway:/other/src"
    )
    parser.add_argument("--json", default="", help="append the record to this file")
    parser.add_argument("--keep", default="", help="folder for ledger, runs and log of the house")
    given = vars(parser.parse_args(arguments))
    record, folder = given.pop("json"), given.pop("keep")
    only = given.pop("only")
    roles = {only: ROLES[only]} if only else dict(ROLES)
    return Asked(**given, roles=roles), record, folder


def main(arguments: list[str] | None = None) -> int:
    asked, record, keep = _ask(arguments)
    console = Console()
    folder = Path(keep or tempfile.mkdtemp(prefix="headrace-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            watcher = Bars(progress, asked) if console.is_terminal else Lines(asked)
            outcome = asyncio.run(run(asked, folder, watcher))
    except Void as void:
        console.print(f"void: {void}; what there is lies in {folder}")
        return 2
    console.print(table(outcome))
    if record:
        with Path(record).open("a") as file:
            file.write(json.dumps(outcome.record()) + "\n")
    if not outcome.verdict.good:
        console.print(f"ledger, runs and log lie in {folder}")
    elif not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if outcome.verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
