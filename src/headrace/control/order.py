"""What a person may ask of a rollout, and when it makes sense. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headrace.control.ask import Reason
from headrace.deployments import Rollout, Strategy
from headrace.errors import Conflict, FieldError, Invalid

#: The new version has all calls, and the old one stands by.
KEEPING = "keeping"


class Order(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The body of an order. `version`, `strategy`: of a start alone; the settings' strategy where
    none is given."""

    order: Literal["start", "pause", "resume", "promote", "rollback"]
    reason: Reason
    version: Annotated[int, Meta(ge=1, lt=10**9)] | None = None
    strategy: Strategy | None = None


def check(asked: Order) -> None:
    """Raises Invalid."""
    if asked.order == "start" and asked.version is None:
        raise _wrong("/version", "expected the number of a version to start")
    if asked.order != "start":
        for name in ("version", "strategy"):
            if getattr(asked, name) is not None:
                raise _wrong(f"/{name}", f"{asked.order} takes none: it is of the open rollout")


def check_now(asked: Order, opened: Rollout | None, stable: int | None, back: int | None) -> None:
    """`opened`: the open rollout; `stable`: the version that has the calls where none is open;
    `back`: the one that a rollback would lead to then. Raises Conflict."""
    why = _start(asked, opened, stable) if asked.order == "start" else ""
    if asked.order == "rollback" and opened is None and back is None:
        why = "no rollout is open, and none is done that there is a way back from"
    if asked.order in ("pause", "resume", "promote") and opened is None:
        why = "no rollout is open"
    if opened is not None and asked.order != "start":
        why = _open(asked, opened)
    if why:
        raise Conflict(why, code="rollout-state")


def _start(asked: Order, opened: Rollout | None, stable: int | None) -> str:
    if opened is None or opened.state == KEEPING:
        has = opened.to_version if opened else stable
        return f"{asked.version} has the calls already" if has == asked.version else ""
    if opened.to_version == asked.version:
        return f"the rollout of {asked.version} is under way: {_standing(opened)}"
    return (
        f"the rollout of {opened.to_version} is under way, {_standing(opened)}: promote it or roll"
        " it back first"
    )


def _open(asked: Order, opened: Rollout) -> str:
    standing = f"the rollout of {opened.to_version} is {_standing(opened)}"
    if asked.order == "rollback":
        return ""
    if asked.order == "promote" and opened.state in ("promoting", KEEPING):
        return f"{standing}: it gets all calls already"
    if asked.order == "pause" and opened.paused:
        return f"{standing} already"
    if asked.order == "resume" and not opened.paused:
        return f"{standing}, and not paused"
    return ""


def _standing(opened: Rollout) -> str:
    return "paused" if opened.paused else opened.state


def _wrong(pointer: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[FieldError(pointer, "validation-failed", detail)])
