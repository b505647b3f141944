"""A profile as a table, a verdict, and the lines for the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headrace.autoscale.profile import Profile, Try, toml
from headrace.cli.table import table_of
from headrace.cli.told import console, say_hint
from headrace.profiling.verdict import no_verdict

if TYPE_CHECKING:
    from rich.table import Table

FEW = 20  # calls in a window: fewer say little
BUSY = 0.5  # processes a core that want to run
NOISY = 0.05  # of the machine, that its host kept
FULL = 0.8  # of a core, for the load's own process


def show(found: Profile, path: Path) -> None:
    out = console()
    out.print(f"{found.model} version {found.version} on {found.node}, p95 {found.slo_s:g} s\n")
    out.print(table(found))
    for warning in warnings(found):
        say_hint(warning)
    out.print(f"\n[bold]{found.use.why if found.use else no_verdict(found)}[/]", soft_wrap=True)
    if lines := toml(found):
        out.print(f"\nfor the settings:\n\n{lines}", markup=False)
    out.print(f"stored as {path}", soft_wrap=True)


def table(found: Profile) -> Table:
    gpu = any(one.gpu_mb for one in found.tries)
    numbers = ["k", "batches to", "calls/s", "p95", "batch", "alone", "memory", "start"]
    numbers += ["GPU"] * gpu
    made = table_of(*numbers, "", right=numbers)
    for one in found.tries:
        used = found.use and (found.use.workers, found.use.max_size) == (one.workers, one.max_size)
        cells = row(one)
        cells[-1:-1] = [f"{one.gpu_mb:,.0f} MB"] if gpu else []
        made.add_row(*cells, style="bold" if used else None)
    return made


def row(one: Try) -> list[str]:
    carried = one.per_second > 0
    sign = "" if one.confirmed else "?"
    return [
        str(one.workers),
        str(one.max_size),
        f"{sign}{one.per_second:,.4g}" if carried else "-",
        _time(one.latency_p95_s) if carried else "-",
        f"{one.batch:.1f}" if carried else "-",
        f"{_ms(one.fixed_ms)} + {_ms(one.per_item_ms)} n ms",
        f"{one.memory_mb:,.0f} MB",
        _time(max(one.start_s)) if one.start_s else "-",
        one.why,
    ]


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def warnings(found: Profile) -> list[str]:
    """What makes the figures worth less."""
    kept = [point for one in found.tries for point in one.windows]
    stolen = max((point.stolen for point in kept), default=0.0)
    busy = max((point.driver_busy for point in kept), default=0.0)
    told = []
    calls = min((point.calls for point in kept if point.sustained), default=FEW)
    if calls < FEW:
        told.append(f"only {calls} calls came in a window: the model is slow, give more --seconds")
    if found.load_before > BUSY:
        told.append(
            f"{found.load_before:.1f} processes a core wanted to run before it began: measure again"
            " on a machine that is left alone"
        )
    if stolen > NOISY:
        told.append(
            f"the host kept up to {stolen:.0%} of the machine meanwhile: a quiet one may carry more"
        )
    if busy > FULL:
        told.append(
            f"the load itself took {busy:.0%} of a core: more may be carried than could be sent"
        )
    return told
