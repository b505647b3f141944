"""Orchestrator: who starts and stops workers. A workload is named like the model that it serves and
its version: `wine`, `wine@3` (`deployments.workload_of`).

    status(workload) -> what is asked for and what is there
    scale(workload, count, reason, seen) -> it is asked for: nobody waits until it is there
    create(workload, count, reason) -> there is one for a version, made like its model's
    remove(workload, reason) -> and there is none any more, when its workers have finished

What an adapter promises (the exam in `testing.orchestrator_exam` checks it): every request ends
within the time given to it, and a verb that could not be done raises a refusal of `refusals`.
After `Unavailable` nobody knows whether it was done; all others changed nothing. A worker that has
to go is told so (SIGTERM) and left the time to finish what it runs. Whoever asks may die: counts
stand until they are changed.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Status(msgspec.Struct, frozen=True):
    """One workload as it was at one moment."""

    #: Asked for.
    desired: int
    #: Started and not told to go, those that still load included.
    running: int
    #: Of those, fit to answer; None where the orchestrator does not know.
    ready: int | None
    #: A version is being rolled out.
    moving: bool
    #: Of this moment: `scale` with it is refused once somebody else has changed the workload.
    token: str


class Orchestrator(Protocol):
    """`status`, `scale` and `note` raise NotFound (no such workload), all raise Unavailable."""

    async def open(self) -> None:
        """Connects as far as it can: an orchestrator that is down is no error."""

    async def close(self) -> None:
        """Ends what `open` began. Once more is no error."""

    async def status(self, workload: str) -> Status: ...

    async def scale(
        self, workload: str, count: int, reason: str, seen: Status | None = None
    ) -> None:
        """Asks for so many. With `seen`, only where nobody changed the workload since. (Of two who
        ask in one moment one is refused; by Nomad not always: it looks before it writes.)

        Raises Invalid where the orchestrator's bounds are narrower, Conflict where the workload was
        changed, is being rolled out, or is scaled by another."""

    async def create(self, workload: str, count: int, reason: str) -> None:
        """A version's workload: a copy of its model's whose workers are started with `--model
        WORKLOAD`. Of one that is there already only the count is asked for.

        Raises Invalid where it cannot be copied: no version, not one `--model` to be replaced,
        bounds; NotFound where the model has no workload; Conflict."""

    async def remove(self, workload: str, reason: str) -> None:
        """All its workers go, and what `create` made goes with them; what people made stays, with
        a count of 0. What is not there is no error. Raises Conflict, and Invalid where the bounds
        are above 0."""

    async def note(self, workload: str, text: str) -> None:
        """An event without a count, where the orchestrator keeps such; else a line in the log."""
