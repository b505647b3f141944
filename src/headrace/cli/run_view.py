"""A run as it runs: at a terminal one line a step that moves, elsewhere a line as each ends."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from headrace.cli.told import console

if TYPE_CHECKING:
    from headrace.pipeline.run import Run, Step
    from headrace.pipeline.track import Point


class Shown:
    """A `Watcher`. `quiet`: nothing is said."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        #: The id of what runs; "" before it begins.
        self.run = ""
        self._rows: dict[str, tuple[str, str, str]] = {}
        self._now, self._since, self._told = "", 0.0, ""
        self._live: Any = None

    def __enter__(self) -> Shown:
        if not self._quiet and sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(get_renderable=self.table, console=console(), refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._now:  # it did not end
            self._row("✗" if kind is None else "!", self._now, self._spent(), self._told)
            self._now = ""
        if self._live is not None:
            self._live.stop()

    def begins(self, run: Run, step: str) -> None:
        if not self.run and not self._quiet:
            console().print(f"run {run.id} of {run.target}", markup=False)
        self.run = run.id
        self._now, self._since, self._told = step, time.monotonic(), ""

    def reports(self, run: Run, point: Point) -> None:
        self._told = numbers(point.metrics)

    def ends(self, run: Run, step: Step, repeated: bool) -> None:
        self._now = ""
        said = "; ".join(filter(None, [step.note, numbers(step.metrics)]))
        if repeated:
            self._row("·", step.name, "kept", said)
        else:
            self._row("✓", step.name, f"{step.took_s:.1f} s", said)

    def _spent(self) -> str:
        return f"{time.monotonic() - self._since:.1f} s"

    def _row(self, mark: str, name: str, took: str, said: str) -> None:
        self._rows[name] = (mark, took, said)
        if not self._quiet and self._live is None:
            console().print(f"{mark} {name:<9}{took:>8}  {said}", markup=False, soft_wrap=True)
            sys.stdout.flush()

    def table(self) -> Any:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column()
        table.add_column()
        table.add_column(justify="right", min_width=7)
        table.add_column(overflow="fold")
        colours = {"✓": "green", "·": "dim", "✗": "red", "!": "yellow"}
        for name, (mark, took, said) in self._rows.items():
            table.add_row(Text(mark, colours[mark]), name, took, Text(said, "dim"))
        if self._now:
            table.add_row(Spinner("dots"), self._now, self._spent(), Text(self._told))
        return table


def numbers(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.5g}" for name, value in metrics.items())
