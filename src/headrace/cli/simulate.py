"""`headrace simulate`: a trace through our policy and others', side by side."""

from __future__ import annotations

import os
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.table import table_of
from headrace.cli.told import MISUSED, Json, console, plural, say_error, say_hint, say_json

if TYPE_CHECKING:
    from headrace.autoscale.score import Score
    from headrace.autoscale.simulate import Simulation

NEEDS = "pip install 'headrace[autoscale]'"


def simulate(
    trace: Annotated[
        str, typer.Option(help="Calls to replay.", metavar="shop|worldcup98|FILE.csv")
    ] = "shop",
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", help="Only these; repeat it.", metavar="NAME", show_default="all"),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="Days that are scored.")] = 20,
    warm_days: Annotated[
        int, typer.Option(min=1, max=60, help="Days before them, which teach the forecast.")
    ] = 8,
    from_day: Annotated[
        int | None,
        typer.Option(min=0, help="The first day of the trace to use.", show_default=False),
    ] = None,
    calls_a_day: Annotated[
        float, typer.Option(min=1.0, help="The trace is scaled to as many.")
    ] = 2_000_000,
    boot_min: Annotated[int, typer.Option(min=0, max=120, help="Until a node answers.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same calls.")] = 1,
    json: Json = False,
    plot: Annotated[
        str | None, typer.Option(help="Draw it.", metavar="FILE.png", show_default=False)
    ] = None,
) -> None:
    """Replay days of traffic through scaling policies, side by side.

    \b
      headrace simulate
      headrace simulate --trace worldcup98 --from-day 50
      headrace simulate --trace calls.csv --policy ours --policy keda --plot week.png

    Ours is the very code that scales a house. A CSV has calls a minute in its last column. A node
    carries four calls at a time, of one second each; 95 of 100 are to be answered in 3 s. "late"
    are the calls that were not; "cost" is the share of what a planner pays who knows the future,
    "ready" the same without the nodes that still start.

    \b
    Policies: static, hpa, keda, regression, regression+schedule, ours, clairvoyant.
    """
    _known(policy or [])
    try:
        from headrace.autoscale.simulate import POLICIES
        from headrace.autoscale.simulate import simulate as run
        from headrace.autoscale.traces import BadTrace
        from headrace.autoscale.traces import trace as read
        from headrace.policy import Policy
    except ModuleNotFoundError as error:
        say_error(f"{error.name} is not installed")
        say_hint(NEEDS)
        raise typer.Exit(MISUSED) from None
    try:
        calls = read(
            trace,
            days=days,
            warm_days=warm_days,
            seed=seed,
            calls_a_day=calls_a_day,
            from_day=from_day,
        )
    except BadTrace as error:
        raise typer.BadParameter(str(error), param_hint="--trace") from None
    chosen = [name for name in POLICIES if not policy or name in policy]
    turns = len({"clairvoyant", *chosen})
    at_once = min(turns, os.cpu_count() or 1)
    # Started afresh, not forked: the bar has a thread.
    with _Progress(turns) as told, get_context("spawn").Pool(at_once) as pool:
        found = run(calls, Policy(), chosen, boot_min, told, pool.imap_unordered)
    if plot:
        _draw(found, Path(plot), calls.warm_min)
    if json:
        say_json(found.report)
    else:
        show(found, calls.warm_min)


def _known(policies: list[str]) -> None:
    names = ("static", "hpa", "keda", "regression", "regression+schedule", "ours", "clairvoyant")
    for name in policies:
        if name not in names:
            raise typer.BadParameter(
                f"{name!r}: expected one of {', '.join(names)}", param_hint="--policy"
            )


class _Progress:
    """A bar on stderr, where somebody looks; called with what is done."""

    def __init__(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._line = self._bar.add_task("reading", total=steps)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def __call__(self, name: str) -> None:
        self._bar.update(self._line, description=name, advance=1)


def show(found: Simulation, warm_min: int) -> None:
    out, report = console(), found.report
    days = plural(report.days, "day")
    out.print(f"{report.trace}: {report.calls:,} calls in {days}, minute by minute\n")
    numbers = ("late %", "cost", "ready", "under θ/τ %", "over θ/τ %", "unstable %", "actions/day",
               "covered %")  # fmt: skip
    table = table_of("policy", *numbers, right=numbers, whole=("policy",))
    for one in report.scores:
        table.add_row(*row(one), style="bold" if one.policy == "ours" else None)
    out.print(table)
    _chart(found, warm_min)
    if report.saved_percent is not None:
        out.print(
            f"\nsaved against a static peak with one model process a node:"
            f" {report.saved_percent:.1f} %"
        )


def row(one: Score) -> list[str]:
    covered = "-" if one.coverage_calls_percent is None else f"{one.coverage_calls_percent:.1f}"
    return [
        one.policy,
        f"{one.late_percent:.3f}",
        f"{one.cost:.3f}",
        f"{one.cost_ready:.3f}",
        f"{one.theta_under:.1f} / {one.tau_under:.1f}",
        f"{one.theta_over:.1f} / {one.tau_over:.1f}",
        f"{one.instability:.1f}",
        f"{one.actions_a_day:.0f}",
        covered,
    ]


BARS = " ▁▂▃▄▅▆▇█"


def _chart(found: Simulation, warm_min: int) -> None:
    """Nodes over the first scored week, three hours a column."""
    if "ours" not in found.runs:
        return
    week = slice(warm_min, warm_min + 7 * 1440)
    lines = {"needed": found.need[week].tolist(), "ours": found.runs["ours"].ready[week].tolist()}
    most = max(max(line) for line in lines.values())
    out = console()
    out.print(f"\nnodes, the first {len(lines['ours']) // 1440} scored days (█ is {most}):")
    for name, line in lines.items():
        out.print(f"  {name:<7}{bars(line, 180, most)}")


def bars(line: list[int], width: int, most: int) -> str:
    """The greatest of each `width` values as a bar."""
    parts = [max(line[at : at + width]) for at in range(0, len(line), width)]
    return "".join(BARS[round(part / most * (len(BARS) - 1))] for part in parts)


def _draw(found: Simulation, path: Path, warm_min: int) -> None:
    try:
        from headrace.cli.capacity_plots import draw_simulation
    except ModuleNotFoundError as error:
        say_error(f"--plot: {error.name} is not installed")
        say_hint("pip install 'headrace[plots]'")
        raise typer.Exit(MISUSED) from None
    draw_simulation(found, path, warm_min)
