"""Second runs: the strikes that explain them, and how long they took to begin: pure.

A job may run again where a process that ran it was struck between the two runs: what it had run and
not committed yet is lost with it, or comes too late. A process that goes on after a pause runs what
it had fetched before it hears that its leases are over. A drained one finishes what it began, and
explains nothing.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .ledger import Event
from .models import Run
from .nemesis import ACTS, ROLES

#: After a pause: until it has run what it had fetched.
LATE_S = 2.0


class Struck(NamedTuple):
    """`until`: of a kill, its moment."""

    since: float
    until: float


Strikes = dict[int, list[Struck]]  # by process: one may be paused, later killed


def unexplained(events: Iterable[Event], runs: Iterable[Run]) -> list[Run] | None:
    """None where nobody can say: a cut may outlast any number of leases."""
    events = list(events)
    for event in events:
        how, _, role = event.what.partition(" ")
        if event.event == "fault" and not (how in ACTS and role in ROLES):
            return None
    struck = _strikes(events)
    return [
        second
        for first, second in _pairs(runs)
        if not any(
            strike.since <= second.at and first.at <= strike.until
            for pid in {first.pid, first.worker, second.pid, second.worker}
            for strike in struck.get(pid, ())
        )
    ]


def requeues(events: Iterable[Event], runs: Iterable[Run]) -> list[float]:
    """For each job that was at work in a process when that was killed or paused: how long until
    another process worked at it."""
    struck, waits = _strikes(list(events)), []
    for first, second in _pairs(runs):
        strikes = [*struck.get(first.pid, ()), *struck.get(first.worker, ())]
        between = [each.since for each in strikes if first.at <= each.since <= second.at]
        if between:
            waits.append(second.at - min(between))
    return waits


def _strikes(events: list[Event]) -> Strikes:
    lifted: dict[int, list[float]] = defaultdict(list)
    for event in events:
        if event.event == "lifted":
            lifted[event.pids[0]].append(event.at)
    struck: Strikes = defaultdict(list)
    for event in events:
        if event.event != "fault" or event.what.startswith("drain"):
            continue
        until = event.at
        if event.what.startswith("pause"):
            # Of a worker and its children the worker alone is stopped, and goes on; they wait.
            lifts = [at for at in lifted.get(event.pids[0], ()) if at > event.at]
            until = min(lifts, default=float("inf")) + LATE_S
        for pid in event.pids:
            struck[pid].append(Struck(event.at, until))
    return struck


def _pairs(runs: Iterable[Run]) -> Iterator[tuple[Run, Run]]:
    """Of each job, each run and the one after it."""
    by_number: dict[int, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.at):
        if run.number:
            by_number[run.number].append(run)
    for of_number in by_number.values():
        yield from itertools.pairwise(of_number)
