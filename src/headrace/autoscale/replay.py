"""A trace, minute by minute, through a scaler: who would have waited too long, and at what cost.

The queue is the same for all scalers. Within a minute calls come evenly and nodes work off what
waits, first come, first served; a call is late while the wait stands above what the promise leaves.
Where nothing piles up, Erlang C's tail at the minute's rate says how many were late. A call that
waited past its deadline has left, as it would from a gateway's queue.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.autoscale.forecast import Rates
from headrace.autoscale.size import late
from headrace.policy import Node, Target

QUIET, CROWD = 0.6, 16  # below this load on so many servers nobody waits: a tail under 1e-11
STEP = 0.05  # calls a second, to which the tail's rate is rounded down


class Scene(NamedTuple):
    """What all scalers share."""

    calls: Rates
    start_min: int
    node: Node
    target: Target
    boot_min: int = 10
    deadline_s: float = 30.0


class Moment(NamedTuple):
    """What a scaler sees at the beginning of minute `at` of the trace."""

    at: int
    ready: int
    pending: int
    waiting: float  # calls
    busy: float  # servers, as a mean over the last minute

    @property
    def present(self) -> int:
        return self.ready + self.pending


class Scaler(Protocol):
    name: str

    def count(self, moment: Moment) -> int: ...


class Run(NamedTuple):
    """Of each minute."""

    name: str
    ready: NDArray[np.int64]
    present: NDArray[np.int64]  # with those on their way: what is paid for
    late: Rates  # calls


def replay(scene: Scene, scaler: Scaler, first: int) -> Run:
    """`first`: nodes that stand at the beginning."""
    minutes = len(scene.calls)
    run = Run(
        scaler.name, np.zeros(minutes, np.int64), np.zeros(minutes, np.int64), np.zeros(minutes)
    )
    ready, booting, waiting, busy = first, deque[int](), 0.0, 0.0
    service_s, workers = scene.node.service_s, scene.node.workers
    for at, calls in enumerate(scene.calls.tolist()):
        while booting and booting[0] <= at:
            booting.popleft()
            ready += 1
        wanted = scaler.count(Moment(at, ready, len(booting), waiting, busy))
        ready = _ask(wanted, ready, booting, at + scene.boot_min)
        servers = ready * workers
        behind = waiting
        run.late[at], waiting = _minute(calls, waiting, ready, scene)
        busy = min(servers, (calls + behind) / 60 * service_s)
        run.ready[at], run.present[at] = ready, ready + len(booting)
    return run


def _ask(wanted: int, ready: int, booting: deque[int], there: int) -> int:
    """Nodes on their way go first, and the newest of them. Gives how many are ready then."""
    more = wanted - ready - len(booting)
    booting.extend([there] * max(0, more))
    for _ in range(-more):
        if booting:
            booting.pop()
        else:
            ready -= 1
    return ready


def _minute(calls: float, waiting: float, ready: int, scene: Scene) -> tuple[float, float]:
    """Calls that are late, and those that wait at its end."""
    servers = ready * scene.node.workers
    a_second = servers / scene.node.service_s
    left = max(0.0, waiting + calls - a_second * 60)
    longest = scene.target.wait_s * a_second
    share = _above(longest, waiting, left)
    rate = calls / 60
    if rate < a_second and (rate > QUIET * a_second or servers < CROWD):
        share = max(share, _tail(int(rate / STEP), ready, scene.node, scene.target))
    return share * calls, min(left, scene.deadline_s * a_second)


def _above(level: float, begins: float, ends: float) -> float:
    """Of a minute in which the queue goes evenly from one to the other."""
    if max(begins, ends) <= level:
        return 0.0 if level or not max(begins, ends) else 1.0
    if min(begins, ends) >= level:
        return 1.0
    return (max(begins, ends) - level) / abs(ends - begins)


@lru_cache(maxsize=65_536)
def _tail(steps: int, ready: int, node: Node, target: Target) -> float:
    return late(steps * STEP, ready, node, target)
