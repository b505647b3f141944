"""A replay -> figures: calls that were late, cost, and SPEC's elasticity metrics.

theta_under, theta_over   how far off: nodes missing, or too many, as a share of those needed
tau_under, tau_over       how long: share of the time with too few, or too many
instability               share of the minutes in which supply and demand moved differently
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.autoscale.forecast import DAY
from headrace.autoscale.margin import Settled
from headrace.autoscale.replay import Run, Scene

Nodes = NDArray[np.int64]


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Of the scored days; shares in percent."""

    policy: str
    late_percent: float
    #: Node minutes paid, from the asking on, to those of the clairvoyant planner; then only of
    #: nodes that were ready.
    cost: float
    cost_ready: float
    node_hours_a_day: float
    theta_under: float
    theta_over: float
    tau_under: float
    tau_over: float
    instability: float
    actions_a_day: float
    #: Share of the forecasts whose margin was enough; the same with each weighed by its calls.
    coverage_percent: float | None = None
    coverage_calls_percent: float | None = None


def score(
    run: Run,
    clairvoyant: Run,
    need: Nodes,
    scene: Scene,
    warm_min: int,
    coverage: tuple[float, float] | None = None,
) -> Score:
    ready, present, wanted = run.ready[warm_min:], run.present[warm_min:], need[warm_min:]
    over, under = np.maximum(ready - wanted, 0), np.maximum(wanted - ready, 0)
    minutes = len(ready)
    moved = np.sign(np.diff(ready)) != np.sign(np.diff(wanted))
    changed = int((np.diff(present) != 0).sum())
    calls = scene.calls[warm_min:]
    return Score(
        policy=run.name,
        late_percent=_percent(run.late[warm_min:].sum(), calls.sum()),
        cost=float(present.sum() / clairvoyant.present[warm_min:].sum()),
        cost_ready=float(ready.sum() / clairvoyant.ready[warm_min:].sum()),
        node_hours_a_day=float(present.sum() / 60 * DAY / minutes),
        theta_under=_percent((under / wanted).sum(), minutes),
        theta_over=_percent((over / wanted).sum(), minutes),
        tau_under=_percent((under > 0).sum(), minutes),
        tau_over=_percent((over > 0).sum(), minutes),
        instability=_percent(moved.sum(), minutes - 1),
        actions_a_day=changed * DAY / minutes,
        coverage_percent=coverage[0] if coverage else None,
        coverage_calls_percent=coverage[1] if coverage else None,
    )


def covered(
    foretold: Settled, margins: list[tuple[int, float]], warm_min: int
) -> tuple[float, float]:
    """Percent of the settled forecasts that were enough, plain and weighed by calls."""
    done = len(foretold.minute)
    at = np.array([minute for minute, _ in margins[:done]])
    enough = foretold.came <= foretold.foretold * np.array([m for _, m in margins[:done]])
    scored = at >= warm_min
    came = foretold.came[scored]
    return (
        _percent(enough[scored].sum(), scored.sum()),
        _percent((enough[scored] * came).sum(), came.sum()),
    )


def _percent(part: float, whole: float) -> float:
    return float(100 * part / whole) if whole else 0.0
