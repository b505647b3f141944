"""What a person may ask of a count, checked. Pure: the time is an argument."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headrace.errors import FieldError, Invalid
from headrace.policy import Policy

DEFAULT_S = 4 * 3600.0
MOST_S = 30 * 86_400.0
MOST_COUNT = 100_000

#: No controls, and not blank: it is shown on terminals, and is the answer to "why?".
Reason = Annotated[str, Meta(max_length=500, pattern=r"^(?=[^\x00]*\S)[^\x00-\x1f\x7f-\x9f]*$")]


class Hand(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The body of an override. It ends after `for_s`, or at `until` (Unix time)."""

    kind: Literal["set", "floor", "cap"]
    count: Annotated[int, Meta(ge=0, le=MOST_COUNT)]
    reason: Reason
    for_s: Annotated[float, Meta(gt=0, le=MOST_S)] | None = None
    until: float | None = None


def expires(hand: Hand, now: float) -> float:
    """Unix time. Raises Invalid."""
    if hand.until is None:
        return now + (DEFAULT_S if hand.for_s is None else hand.for_s)
    if hand.for_s is not None:
        raise _wrong("expected for_s or until, not both")
    if not now < hand.until <= now + MOST_S:
        raise _wrong(f"expected a Unix time within {MOST_S / 86_400:.0f} days from now")
    return hand.until


def _wrong(detail: str) -> Invalid:
    return Invalid(detail, errors=[FieldError("/until", "validation-failed", detail)])


def warnings(hand: Hand, policy: Policy, mode: str, others: list[tuple[str, int]]) -> list[str]:
    """What a person should know who asks for it. `others`: kinds and counts in force beside it."""
    told = []
    if mode != "act":
        told.append(f"autoscale.mode is {mode}: it is stored, and no workload is scaled by it")
    if hand.kind != "cap" and hand.count > policy.most:
        told.append(f"above the policy's most, {policy.most}: the override holds")
    if hand.kind != "floor" and hand.count < policy.least:
        told.append(f"below the policy's least, {policy.least}: the override holds")
    if hand.count == 0 and hand.kind != "floor":
        told.append("with 0 nothing is answered")
    in_force = dict(others) | {hand.kind: hand.count}
    floor, cap = in_force.get("floor"), in_force.get("cap")
    if floor is not None and cap is not None and floor > cap:
        told.append(f"the floor, {floor}, is above the cap, {cap}: the cap holds")
    if "set" in in_force and hand.kind != "set":
        told.append(f"it is set to {in_force['set']}: this bounds that")
    return told
