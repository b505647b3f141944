"""What the registry wants, what there is -> what to do next. Pure.

nothing runs yet                        place what the alias names, else the settings' own files
the alias names another than serves     roll out to that one, once: not if it was rolled back
... while something is rolled out       stop that, if it is neither meant nor named any more
the alias names nothing                 what serves goes on: a registry that forgot is no order
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from headrace.deployments import Rollout


class Nothing(NamedTuple):
    why: str = ""


class Place(NamedTuple):
    """With all calls, at once."""

    version: int


class Begin(NamedTuple):
    """A rollout to that version."""

    version: int


class Stop(NamedTuple):
    """The calls go back to where they came from."""

    why: str


class Finish(NamedTuple):
    """It has all calls already: the old version need not stand by any longer."""

    why: str


Step = Nothing | Place | Begin | Stop | Finish


def plan(
    named: int | None,
    stable: int | None,
    rollout: Rollout | None,
    last: Rollout | None = None,
    barred: Container[int] = (),
) -> Step:
    """`named`: what the alias names. `stable`: what serves; None: nothing yet. `last`: the last
    rollout that is over. `barred`: versions that were rolled back, and named ever since."""
    if stable is None:
        return Place(named or 0)
    if rollout is not None:
        return _of_open(named, rollout)
    if named is None or named == stable:
        return Nothing()
    if named in barred:
        return Nothing(f"version {named} was rolled back")
    if last and last.state == "done" and last.to_version == stable and last.named == named:
        return Nothing(f"the alias follows to version {stable}")  # a person started it
    return Begin(named)


def _of_open(named: int | None, rollout: Rollout) -> Step:
    if named in (rollout.to_version, rollout.named) or (not named and not rollout.to_version):
        return Nothing()
    why = f"the alias names version {named} by now" if named else "the alias names nothing any more"
    if rollout.state != "keeping" or named == rollout.from_version:
        return Stop(why)
    return Finish(why) if named else Nothing()
