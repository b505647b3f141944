"""How an orchestrator says no: the same words whichever it is."""

from __future__ import annotations

from headrace.errors import Conflict, Invalid, NotFound, Refusal, Unavailable

RETRY_AFTER_S = 10
#: The most of another program's words that is repeated.
MOST_TEXT = 300


def unreachable(why: str) -> Refusal:
    """Away, too slow, or ill: whether it was done is not known."""
    return Unavailable(
        why[:MOST_TEXT], code="orchestrator-unavailable", retry_after_s=RETRY_AFTER_S
    )


def forbidden(why: str) -> Refusal:
    """Our token is missing, wrong, or may not do this."""
    return Unavailable(why[:MOST_TEXT], code="orchestrator-forbidden", retry_after_s=RETRY_AFTER_S)


def unknown(why: str) -> Refusal:
    return NotFound(why[:MOST_TEXT], code="workload-unknown")


def out_of_bounds(why: str) -> Refusal:
    return Invalid(why[:MOST_TEXT], code="count-out-of-bounds")


def not_copied(why: str) -> Refusal:
    """A version's workload cannot be made like its model's."""
    return Invalid(why[:MOST_TEXT], code="workload-not-copied")


def moving(why: str) -> Refusal:
    """The orchestrator changes no count while a version is rolled out."""
    return Conflict(why[:MOST_TEXT], code="rollout-under-way")


def changed(why: str) -> Refusal:
    """Somebody else was quicker."""
    return Conflict(why[:MOST_TEXT], code="workload-changed")


def shared(why: str) -> Refusal:
    """Another autoscaler has its hand on it: the two would undo each other's work."""
    return Conflict(why[:MOST_TEXT], code="workload-scaled-by-another")
