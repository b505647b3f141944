"""Runs as people read them: a table of many, a page of one, several side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.cli.table import escaped, table_of
from headrace.cli.told import console, say_error, say_hint

if TYPE_CHECKING:
    from headrace.pipeline.run import Code, Run
    from headrace.pipeline.track import Point

COLOURS = {
    "waiting": "cyan", "running": "blue", "interrupted": "magenta", "succeeded": "green",
    "refused": "yellow", "failed": "red",
}  # fmt: skip
#: Lines of a traceback that are shown.
TRACE_LINES = 12


def show_list(runs: list[Run]) -> None:
    from headrace.pipeline.run import seen

    out = console()
    if not runs:
        out.print("no runs yet: headrace train MODULE:PIPELINE", markup=False)
        return
    table = table_of(
        "run", "pipeline", "state", "version", "took", "metrics", "code",
        right=("version", "took"), whole=("run", "pipeline", "state", "code"),
    )  # fmt: skip
    for run in runs:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in run.metrics.items())
        state = seen(run)
        at = f" at {run.step}" if state in ("running", "interrupted", "failed") else ""
        table.add_row(
            run.id,
            run.pipeline,
            f"[{COLOURS[state]}]{state}[/]{at}",
            run.version or "-",
            took(run),
            metrics,
            code(run.code_now()),
        )
    out.print(table)


def took(run: Run) -> str:
    """Of the finished steps: pauses between a crash and a resumption do not count."""
    return f"{sum(step.took_s for step in run.steps):.1f} s" if run.steps else "-"


def code(of: Code) -> str:
    """A commit; "+" where more than it was run."""
    return (of.commit[:10] or f"source {of.source[:10]}") + ("+" if of.dirty else "")


def show_one(run: Run, series: list[Point]) -> None:
    from headrace.pipeline.run import seen

    out, state = console(), seen(run)
    out.print(f"run {run.id} of {run.target}: [{COLOURS[state]}]{state}[/]")
    facts = {
        "model": run.model + (f", version {run.version}" if run.version else ""),
        "begun": when(run.began or run.created) + f", asked for by {run.asked_by}",
        "code": code(run.code),
        "data": short(run.data) or "-",
        "parameters": ", ".join(f"{k}={v}" for k, v in run.params.items()) or "none",
    }
    for each in run.resumed:
        facts["resumed"] = f"{when(each.at)} at {each.step}, code {code(each.code)}"
    for name, said in facts.items():
        out.print(f"  {name:<11}{said}", markup=False)
    facts_of = ("\nstep", "\ntook", "\noutput")
    table = table_of(*facts_of, "\n", right=("\ntook",), whole=facts_of)
    for step in run.steps:
        table.add_row(step.name, f"{step.took_s:.2f} s", short(step.output), step.note)
    out.print(table)
    if series:
        last = ", ".join(f"{name} {value:.5g}" for name, value in series[-1].metrics.items())
        out.print(f"\n{len(series)} reports, the last of {series[-1].step}: {last}", markup=False)
    if run.artifacts:
        out.print("\nfiles")
        for name, digest in run.artifacts.items():
            out.print(f"  {short(digest)}  {name}", markup=False)
    show_verdicts(run)
    if run.problem:
        out.print()
        show_problem(run)


def show_verdicts(run: Run) -> None:
    out = console()
    if run.metrics:
        out.print("\nmetrics")
        width = max(map(len, run.metrics))
        for name, value in run.metrics.items():
            out.print(f"  {name:<{width}}  {value:.6g}", markup=False)
    if run.verdicts:
        out.print("\ngates")
    for verdict in run.verdicts:
        mark = "[green]✓[/]" if verdict.passed else "[red]✗[/]"
        out.print(f"  {mark} {escaped(verdict.why)}")


def show_end(run: Run) -> None:
    """The last lines of `train` and `resume`."""
    out = console()
    show_verdicts(run)
    if run.state == "succeeded":
        out.print(f"\n[green]registered[/] {run.model} {run.version}, run {run.id}")
        out.print(f"headrace promote {run.model} {run.version} --reason ...", style="dim")
    elif run.state == "refused":
        shut = sum(not verdict.passed for verdict in run.verdicts)
        out.print(
            f"\n[yellow]refused[/]: {shut} of {len(run.verdicts)} gates are shut; run {run.id}"
        )
    else:
        show_problem(run)
        say_hint(f"mend it, then: headrace runs resume {run.id} --changed")


def show_problem(run: Run) -> None:
    import typer

    if run.trace:
        lines = run.trace.rstrip().splitlines()
        typer.secho("\n".join(lines[-TRACE_LINES:]), dim=True, err=True)
    say_error(f"{run.step}: {run.problem}")


def compare(runs: list[Run]) -> dict[str, Any]:
    """What differs and what does not: section -> name -> one value a run."""

    def of(pick: Callable[[Run], dict[str, Any]]) -> dict[str, list[Any]]:
        names = dict.fromkeys(name for run in runs for name in pick(run))
        return {name: [pick(run).get(name) for run in runs] for name in names}

    return {
        "runs": [run.id for run in runs],
        "parameters": of(lambda run: run.params),
        "metrics": of(lambda run: dict(run.metrics)),
        "gates": of(lambda run: {v.gate: v.passed for v in run.verdicts}),
        "made of": of(
            lambda run: {
                "code": code(run.code_now()),
                "source": short(run.code_now().source),
                "data": short(run.data),
            }
        ),
        "came to": of(lambda run: {"state": run.state, "version": run.version, "took": took(run)}),
    }


def show_compared(found: dict[str, Any]) -> None:
    table = table_of("", *found["runs"], right=found["runs"])
    for section, rows in found.items():
        if section == "runs" or not rows:
            continue
        table.add_row(f"[bold]{section}[/]")
        for name, values in rows.items():
            differ = any(value != values[0] for value in values)
            table.add_row(f"  {name}", *map(_cell, values), style=None if differ else "dim")
    console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "open" if value else "shut"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value in (None, "") else str(value)


def short(digest: str) -> str:
    return digest[:12]


def when(at: float) -> str:
    age_s = max(0, int(time.time() - at))
    ago = f"{age_s} s" if age_s < 120 else f"{age_s // 60} min" if age_s < 7200 else ""
    said = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return f"{said} ({ago} ago)" if ago else said
