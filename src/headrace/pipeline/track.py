"""Where runs are written down: the port, and how one is asked for.

A record is written whole after each step; what a step reports inside goes to a series.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from headrace.pipeline.run import Run


class RunUnknown(KeyError):
    """No run of that id, or several that begin so."""

    def __str__(self) -> str:
        return str(self.args[0])


class Point(NamedTuple):
    """What a step reported, and when (Unix s)."""

    at: float
    step: str
    metrics: dict[str, float]


class Tracker(Protocol):
    """Every verb raises errors.Unavailable where its place cannot be reached."""

    def create(self, run: Run) -> bool:
        """False where there is one of that id: it stays as it is."""

    def write(self, run: Run) -> None:
        """The record, whole, in place of the one before."""

    def report(self, run: Run, point: Point) -> None:
        """Adds to the run's series."""

    def get(self, id: str) -> Run:
        """Raises RunUnknown."""

    def series(self, id: str) -> list[Point]: ...

    def runs(self, most: int, pipeline: str = "") -> list[Run]:
        """The newest first."""

    def close(self) -> None: ...


def one(tracker: Tracker, word: str) -> Run:
    """A run by its id, the beginning of one, or "last". Raises RunUnknown."""
    try:
        return tracker.get(word)
    except RunUnknown:
        known = tracker.runs(1 if word == "last" else 1000)
    found = known if word == "last" else [run for run in known if run.id.startswith(word)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise RunUnknown(f"{word}: no such run" if known else "there are no runs yet")
    raise RunUnknown(f"{word}: {len(found)} runs begin so, among them {found[0].id}, {found[1].id}")
