"""A trace through all policies, side by side: `headrace simulate`. Deterministic by its seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

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


class Turn(NamedTuple):
    """What one policy's replay needs."""

    name: str
    trace: Trace
    policy: Policy
    scene: Scene
    first: int


class Played(NamedTuple):
    """`run` is None where the policy has nothing to say of this trace."""

    name: str
    run: Run | None = None
    #: Of ours: see `covered`.
    coverage: tuple[float, float] | None = None


class Each(Protocol):
    """`map`, or a pool's `imap_unordered`: turns need nothing of each other."""

    def __call__(
        self, played: Callable[[Turn], Played], turns: Iterable[Turn], /
    ) -> Iterable[Played]: ...


def simulate(
    trace: Trace,
    policy: Policy,
    chosen: Sequence[str] = POLICIES,
    boot_min: int = 10,
    told: Callable[[str], object] = str,
    each: Each = map,
) -> Simulation:
    """`told` hears the name of each policy after its turn."""
    scene = Scene(trace.calls, trace.start_min, policy.node, policy.target, boot_min)
    need, warm_min = needed(scene), trace.warm_min
    first = int(need[:DAY].max())
    # Ours takes as long as all the others: where turns go side by side, it begins.
    names = sorted({"clairvoyant", *chosen}, key=lambda name: (name != "ours", name))
    played = {}
    for one in each(_play, [Turn(name, trace, policy, scene, first) for name in names]):
        told(one.name)
        played[one.name] = one
    best = played["clairvoyant"].run
    assert best is not None
    scores, runs = [], {}
    for name in chosen:
        run = played[name].run
        if run is not None:
            runs[name] = run
            scores.append(score(run, best, need, scene, warm_min, played[name].coverage))
    report = Report(
        trace=trace.name,
        days=(len(trace.calls) - warm_min) // DAY,
        calls=int(trace.calls[warm_min:].sum()),
        scores=scores,
        saved_percent=_saved(runs, scene, warm_min),
    )
    return Simulation(report, scene, need, runs)


def _play(turn: Turn) -> Played:
    scaler = _scaler(turn.name, turn.trace, turn.scene, turn.policy)
    if scaler is None:
        return Played(turn.name)
    run = replay(turn.scene, scaler, turn.first)
    if not isinstance(scaler, Ours):
        return Played(turn.name, run)
    return Played(turn.name, run, covered(scaler.foretold(), scaler.margins, turn.trace.warm_min))


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
