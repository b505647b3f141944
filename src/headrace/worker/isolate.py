"""Who brought the model process down? Halve the batch until one job stands alone.

    batch of n died --> n = 1: died with 3 batches, the last time alone? poison : try again, alone
                   `--> n > 1: two halves, one after the other, each apart from new jobs

A batch of 32 with one poison job finds it in 5 further crashes; the other 31 are answered. A job is
never blamed for a single crash: a process may die for other reasons.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

CRASHES_TO_BLAME = 3


class Suspect(Protocol):
    """A job that counts the batches it died with."""

    crashes: int


S = TypeVar("S", bound=Suspect)


def isolate(batch: list[S]) -> tuple[list[list[S]], list[S]]:
    """The batch died. Gives what to run next (each list apart), and the jobs to blame."""
    for held in batch:
        held.crashes += 1
    if len(batch) > 1:
        half = len(batch) // 2
        return [batch[:half], batch[half:]], []
    if batch[0].crashes >= CRASHES_TO_BLAME:
        return [], batch
    return [batch], []
