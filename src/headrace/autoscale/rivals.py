"""What others do, to be compared with: each by its published formula, on the same scene."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from headrace.autoscale.forecast import DAY
from headrace.autoscale.replay import Moment, Scene
from headrace.autoscale.schedule import bounds
from headrace.autoscale.size import nodes
from headrace.policy import Entry, Target

CYCLE_MIN = 20  # of the model system, and of the clairvoyant planner
STABLE_MIN = 5  # Kubernetes' stabilization window before it lowers
TOLERANCE = 0.1  # Kubernetes does nothing within it
USED = 0.7  # target utilisation of HPA and KEDA
PLANNED = 0.8  # of the regression
SEEN_MIN = 30  # what the regression looks at


class Static:
    """As many as the busiest minute of the scored days needs, always."""

    name = "static peak"

    def __init__(self, scene: Scene, warm_min: int) -> None:
        peak = float(scene.calls[warm_min:].max()) / 60
        self.nodes = nodes(peak, scene.node, bare(scene.target))

    def count(self, moment: Moment) -> int:
        return self.nodes


class _Stabilised:
    """Raises at once, lowers to the greatest wish of the last minutes. The most, that an operator
    sets, is the one that hindsight would set: what the busiest minute needs."""

    def __init__(self, scene: Scene) -> None:
        self._workers = scene.node.workers
        self._most = Static(scene, 0).nodes
        self._wishes: deque[int] = deque(maxlen=STABLE_MIN)

    def settle(self, wish: int, present: int) -> int:
        wish = min(wish, self._most)
        self._wishes.append(wish)
        return wish if wish > present else min(present, max(self._wishes))


class Hpa(_Stabilised):
    """ceil(present * utilisation / target): nodes that still start count as idle."""

    name = "HPA, 70 % busy"

    def count(self, moment: Moment) -> int:
        exact = moment.busy / (self._workers * USED)
        if abs(exact / max(1, moment.present) - 1) <= TOLERANCE:
            return self.settle(moment.present, moment.present)
        return self.settle(max(1, _ceil(exact)), moment.present)


class Keda(_Stabilised):
    """ceil(queue length / target a node): the queue is what waits and what is in hand."""

    name = "KEDA, queue length"

    def count(self, moment: Moment) -> int:
        wish = _ceil((moment.waiting + moment.busy) / (self._workers * USED))
        return self.settle(max(1, wish), moment.present)


class Regression:
    """The model system: every 20 minutes the line through the last 30 says the next cycle's rate;
    with a time table, its floor stands below that."""

    def __init__(self, scene: Scene, schedule: tuple[Entry, ...] = ()) -> None:
        self.name = "regression + schedule" if schedule else "regression, 80 % used"
        self._scene, self._schedule, self._nodes = scene, schedule, 0
        self._minutes = np.arange(SEEN_MIN)

    def count(self, moment: Moment) -> int:
        at, scene = moment.at, self._scene
        if at % CYCLE_MIN == 0 and at >= SEEN_MIN:
            rise, level = np.polyfit(self._minutes, scene.calls[at - SEEN_MIN : at], 1)
            rate = max(0.0, float(level + rise * (SEEN_MIN - 1 + CYCLE_MIN))) / 60
            self._nodes = max(1, _ceil(rate / (scene.node.throughput * PLANNED)))
        count = self._nodes or moment.present
        if self._schedule:
            now = (scene.start_min + at) * 60.0
            count = max(count, bounds(self._schedule, now, scene.boot_min * 60.0).floor or 0)
        return count


class Clairvoyant:
    """Knows what will come: in every cycle the fewest nodes that its busiest minute needs, asked
    for just in time. What it costs is what the others' cost is held against."""

    name = "clairvoyant"

    def __init__(self, scene: Scene) -> None:
        need = needed(scene)
        cycles = [int(need[at : at + CYCLE_MIN].max()) for at in range(0, len(need), CYCLE_MIN)]
        self._counts = np.repeat(cycles, CYCLE_MIN)[: len(need)].tolist()
        self._boot_min = scene.boot_min

    def count(self, moment: Moment) -> int:
        there = min(moment.at + self._boot_min, len(self._counts) - 1)
        return int(max(self._counts[moment.at], self._counts[there]))


def needed(scene: Scene) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The fewest nodes that keep the promise, of each minute."""
    target = bare(scene.target)
    return np.array([max(1, nodes(n / 60, scene.node, target)) for n in scene.calls.tolist()])


def bare(target: Target) -> Target:
    """Without anything to spare: by the tail alone."""
    return Target(
        slo_s=target.slo_s,
        service_p95_s=target.service_p95_s,
        overhead_s=target.overhead_s,
        tail=target.tail,
        arrival_cv2=target.arrival_cv2,
        utilisation=1.0,
    )


def opening(scene: Scene, warm_min: int) -> tuple[Entry, ...]:
    """The time table that a person would write for shops: from ten minutes before they open, as
    many as the busiest hour before noon needed in the days of the warm-up."""
    days = scene.calls[:warm_min].reshape(-1, DAY)
    busy = float(np.median(days[:, 9 * 60 : 12 * 60].max(axis=1))) / 60
    floor = _ceil(busy / (scene.node.throughput * PLANNED))
    return (
        Entry(start="08:50", end="10:00", floor=floor, days=("mon", "tue", "wed", "thu", "fri")),
    )


def _ceil(exact: float) -> int:
    return math.ceil(exact - 1e-9)
