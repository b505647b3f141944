"""A trace through all policies, side by side: `headrace simulate`. Deterministic by its seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from headrace.autoscale.forecast import DAY
from headrace.autoscale.ours import Ours
from headrace.autoscale.replay import Run, Scaler, Scene, replay
from headrace.autoscale.rivals import (
    Clairvoyant,
    Hpa,
    Keda,
    Regression,
    Static,
    bare,
    needed,
    opening,
)
from headrace.autoscale.score import Nodes, Score, covered, score
from headrace.autoscale.size import nodes
from headrace.autoscale.traces import Trace
from headrace.policy import Node, Policy

POLICIES = ("static", "hpa", "keda", "regression", "regression+schedule", "ours", "clairvoyant")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    trace: str
    days: int
    calls: int
    scores: list[Score]
    #: Node hours that our policy saves against a static peak with one model process a node.
    saved_percent: float | None


class Simulation(NamedTuple):
    report: Report
    scene: Scene
    need: Nodes
    runs: dict[str, Run]


def simulate(
    trace: Trace,
    policy: Policy,
    chosen: Iterable[str] = POLICIES,
    boot_min: int = 10,
    told: Callable[[str], object] = str,
) -> Simulation:
    """`told` hears the name of each policy before its turn."""
    scene = Scene(trace.calls, trace.start_min, policy.node, policy.target, boot_min)
    need, warm_min = needed(scene), trace.warm_min
    first = int(need[:DAY].max())
    told("clairvoyant")
    best = replay(scene, Clairvoyant(scene), first)
    scores, runs = [], {}
    for name in chosen:
        told(name)
        scaler = _scaler(name, trace, scene, policy)
        if scaler is None:
            continue
        run = best if name == "clairvoyant" else replay(scene, scaler, first)
        coverage = None
        if isinstance(scaler, Ours):
            coverage = covered(scaler.foretold(), scaler.margins, warm_min)
        runs[name] = run
        scores.append(score(run, best, need, scene, warm_min, coverage))
    report = Report(
        trace=trace.name,
        days=(len(trace.calls) - warm_min) // DAY,
        calls=int(trace.calls[warm_min:].sum()),
        scores=scores,
        saved_percent=_saved(runs, scene, warm_min),
    )
    return Simulation(report, scene, need, runs)


def _scaler(name: str, trace: Trace, scene: Scene, policy: Policy) -> Scaler | None:
    """None where the policy has nothing to say of this trace: only shops have a time table."""
    if name == "regression+schedule":
        table = opening(scene, trace.warm_min) if trace.name == "shop" else ()
        return Regression(scene, table) if table else None
    made: dict[str, Callable[[], Scaler]] = {
        "static": lambda: Static(scene, trace.warm_min),
        "hpa": lambda: Hpa(scene),
        "keda": lambda: Keda(scene),
        "regression": lambda: Regression(scene),
        "ours": lambda: Ours(scene, policy),
        "clairvoyant": lambda: Clairvoyant(scene),
    }
    return made[name]()


def _saved(runs: dict[str, Run], scene: Scene, warm_min: int) -> float | None:
    if "ours" not in runs:
        return None
    alone = Node(workers=1, service_s=scene.node.service_s, service_cv2=scene.node.service_cv2)
    peak = nodes(float(scene.calls[warm_min:].max()) / 60, alone, bare(scene.target))
    ours = runs["ours"].present[warm_min:]
    return float(100 * (1 - np.sum(ours) / (peak * len(ours))))
