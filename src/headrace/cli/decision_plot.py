"""A PNG plot of decisions. Importing it needs matplotlib: the extra `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from headrace.client.scale import Decision, Minutes

GAP = float("nan")  # a minute that nobody saw is drawn as none


def draw_decisions(model: str, minutes: Minutes, decisions: list[Decision], path: Path) -> None:
    """Calls a second and what was forecast for them above; counts below."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    _calls(above, minutes, decisions)
    _counts(below, minutes, decisions)
    below.xaxis_date(tz=datetime.now().astimezone().tzinfo)
    figure.suptitle(model)
    figure.savefig(path, dpi=120)


def _calls(axes: Axes, minutes: Minutes, decisions: list[Decision]) -> None:
    times, calls = _held(minutes["minute"], minutes["calls"], 60)
    axes.step(times, calls, where="post", color="0.5", linewidth=0.8, label="came")
    label = "forecast, the greatest of its time"
    for one in decisions:
        if one.foretold is None or one.from_minute is None or one.to_minute is None:
            continue
        ends = [_day(one.from_minute), _day(one.to_minute)]
        axes.plot(ends, [one.foretold / 60] * 2, color="C0", linewidth=1.2, label=label)
        label = "_"  # one line of the legend for all
    axes.set(ylabel="calls a second")
    axes.legend(loc="upper left", fontsize="small")


def _counts(axes: Axes, minutes: Minutes, decisions: list[Decision]) -> None:
    times, ready = _held(minutes["minute"], minutes["ready"])
    axes.step(times, ready, where="post", color="0.5", linewidth=0.8, label="ready")
    if decisions:
        at, counts = _held([one.minute for one in decisions], [one.count for one in decisions])
        axes.step(at, counts, where="post", color="C1", linewidth=1.4, label="decided")
    axes.set(ylabel="workers")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", fontsize="small")


def _held(
    minutes: Sequence[float | None], values: Sequence[float | None], unit: float = 1.0
) -> tuple[list[float], list[float]]:
    """Each value holds for its minute, the last one, too."""
    times = [_day(minute) for minute in minutes]
    shown = [GAP if value is None else value / unit for value in values]
    return times + [last + 1 / 1440 for last in times[-1:]], shown + shown[-1:]


def _day(minute: float | None) -> float:
    """As matplotlib counts time: days of Unix time."""
    return (minute or 0) / 1440
