"""A PNG plot of a profile. Importing it needs matplotlib: the extra `plots`."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from headrace.autoscale.profile import Profile, Try


def draw_profile(found: Profile, path: Path) -> None:
    """p95 over the rate of each try on the left, what was carried and its memory on the right."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for one in found.tries:
        _curve(left, one)
    left.axhline(found.slo_s, color="0.4", linestyle="--", linewidth=0.8)
    left.set(xlabel="calls a second", ylabel="p95, s", yscale="log")
    if left.get_legend_handles_labels()[0]:
        left.legend(fontsize="small")
    _carried(right, found)
    figure.suptitle(f"{found.model} on {found.node}, p95 {found.slo_s:g} s")
    figure.savefig(path, dpi=120)


def _curve(axes: Axes, one: Try) -> None:
    """Windows that were sustained are full, the others hollow."""
    points = sorted(
        (point.rate, point.p95_s, point.sustained) for point in one.windows if point.p95_s
    )
    if not points:
        return
    [line] = axes.plot(
        [rate for rate, _, _ in points], [p95 for _, p95, _ in points], label=_name(one), alpha=0.6
    )
    for full in (True, False):
        axes.scatter(
            [rate for rate, _, good in points if good == full],
            [p95 for _, p95, good in points if good == full],
            edgecolors=line.get_color(),
            facecolors=line.get_color() if full else "none",
        )


def _carried(axes: Axes, found: Profile) -> None:
    drawn = axes.bar([_name(one) for one in found.tries], [one.per_second for one in found.tries])
    axes.bar_label(
        drawn, [f"{one.per_second:,.4g}\n{one.memory_mb:,.0f} MB" for one in found.tries]
    )
    axes.set(ylabel="calls a second inside the promise")
    axes.margins(y=0.15)


def _name(one: Try) -> str:
    return f"k = {one.workers}, to {one.max_size}"
