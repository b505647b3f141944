"""Stored jobs as people read them: a table of many, a page of one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from headrace.cli.table import moment, table_of
from headrace.cli.told import console, plural

if TYPE_CHECKING:
    from headrace.client import JobView

COLOURS = {
    "waiting": "cyan", "running": "blue", "succeeded": "green", "failed": "yellow", "dead": "red",
    "expired": "yellow", "cancelled": "dim",
}  # fmt: skip


def show_list(found: list[JobView], more: bool, empty: str) -> None:
    """`more`: there are others behind these."""
    out = console()
    if not found:
        out.print(empty, markup=False)
        return
    numbers = ("tries", "age", "took")
    table = table_of("job", "model", "state", *numbers, "why", right=numbers, whole=("job",))
    now = time.time()
    for view in found:
        table.add_row(*row(view, now))
    out.print(table)
    if more:
        out.print("\n[dim]there are more: --limit[/]")


def row(view: JobView, now: float) -> list[str]:
    return [
        view.id,
        view.model,
        state(view.state),
        f"{view.tries}/{view.max_attempts}",
        span(now - view.created) if view.created else "-",
        span(view.finished - view.created) if view.finished and view.created else "-",
        view.problem.code if view.problem else "",
    ]


def state(word: str) -> str:
    colour = COLOURS.get(word, "")
    return f"[{colour}]{word}[/]" if colour else word


def show_one(view: JobView, result: bytes | None) -> None:
    """`result` is JSON."""
    from rich.json import JSON

    out = console()
    out.print(f"[bold]{view.id}[/] {view.model}: {state(view.state)}")
    for name, text in facts(view, time.time()):
        out.print(f"  [dim]{name:<10}[/] ", end="")
        out.print(text, markup=False, soft_wrap=True)
    for loss in view.losses:
        out.print(f"  run {loss.attempt} on {loss.worker} came to nothing: {loss.reason}",
                  markup=False, soft_wrap=True)  # fmt: skip
    if view.problem:
        problem = view.problem
        out.print(f"\n[red]{problem.status} {problem.code}[/]", end=" ")
        out.print(problem.detail or problem.title, markup=False, soft_wrap=True)
        for place in problem.errors:
            out.print(f"  at {place.pointer}: {place.detail or place.code}", markup=False)
    if result is not None:
        out.print()
        out.print(JSON(result.decode(), indent=2))


def facts(view: JobView, now: float) -> list[tuple[str, str]]:
    """What is known of a job, in the order of its life."""
    found = [
        ("priority", view.priority),
        ("tries", f"{view.tries} of {view.max_attempts}, {plural(view.attempt, 'run')}"),
    ]
    if view.created:
        found.append(("submitted", f"{moment(view.created)}, {span(now - view.created)} ago"))
    if view.started and view.created:
        found.append(("first run", f"{span(view.started - view.created)} later"))
    if view.finished and view.created:
        ran = f", {view.executed_ms:.0f} ms of it in the model" if view.executed_ms else ""
        found.append(("ended", f"{span(view.finished - view.created)} after submission{ran}"))
    elif view.deadline:
        found.append(("expires", f"{moment(view.deadline)}, in {span(view.deadline - now)}"))
    if view.version:
        found.append(("version", view.version))
    return [*found, ("request id", view.request_id)]


def span(seconds: float) -> str:
    """ "0.03 s", "12 s", "5 min", "3 h", "2 d": as much as is of interest."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds:.2f} s"
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def as_json(view: JobView, result: bytes | None = None) -> dict[str, Any]:
    """As the house told it."""
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(view)
    if result is not None:
        plain["result"] = msgspec.Raw(result)
    return plain
