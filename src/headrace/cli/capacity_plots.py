"""PNG plots of a simulation and of plans. Importing it needs matplotlib: the extra `plots`."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from headrace.autoscale.plan import Plan
from headrace.autoscale.simulate import Simulation

DAY = 1440  # minutes
SHOWN = 7  # days


def draw_simulation(found: Simulation, path: Path, warm_min: int) -> None:
    """Nodes over the first scored week above, late calls and cost of all policies below."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))
    _week(above, found, warm_min)
    _front(below, found)
    figure.suptitle(f"{found.report.trace}, {found.report.calls:,} calls")
    figure.savefig(path, dpi=120)


def _week(axes: Axes, found: Simulation, warm_min: int) -> None:
    week = slice(warm_min, warm_min + SHOWN * DAY)
    hours = [minute / 60 for minute in range(len(found.need[week]))]
    axes.fill_between(hours, found.need[week], color="0.85", label="needed")
    for name, run in found.runs.items():
        if name not in ("static", "clairvoyant"):
            axes.plot(
                hours, run.ready[week], label=run.name, linewidth=1.6 if name == "ours" else 0.8
            )
    axes.set(xlabel="hours of the first scored days", ylabel="nodes that are ready")
    axes.legend(loc="upper left", fontsize="small")


def _front(axes: Axes, found: Simulation) -> None:
    for one in found.report.scores:
        late = max(one.late_percent, 0.001)
        axes.scatter(one.cost, late, marker="*" if one.policy == "ours" else "o", s=60)
        axes.annotate(one.policy, (one.cost, late), xytext=(6, 4), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="cost, clairvoyant = 1", ylabel="late calls, %")
    axes.grid(visible=True, alpha=0.3)


def draw_plans(plans: dict[str, Plan], path: Path) -> None:
    """Cost a month of each above, nodes over the week below."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1)
    names = list(plans)
    drawn = above.barh(names[::-1], [plans[name].cost_month for name in names[::-1]])
    above.bar_label(drawn, fmt="{:,.0f}", padding=4)
    above.set(xlabel="cost a month")
    for name, one in plans.items():
        below.step(range(len(one.hourly)), one.hourly, where="post", label=name)
    below.set(xlabel="hour of the week, from Monday 00:00", ylabel="nodes")
    below.legend(fontsize="small")
    figure.savefig(path, dpi=120)
