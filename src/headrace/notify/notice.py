"""What people are told: kind, model, one sentence, and the figures behind it."""

from __future__ import annotations

import time
from typing import Any, Literal, Protocol

import msgspec

from headrace.records import new_id

Kind = Literal["decision", "override", "alarm", "failing", "promotion", "rollout", "retraining"]
#: These go first, and have messages kept for them.
URGENT = frozenset({"alarm", "failing"})


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Said once. `at`: Unix time."""

    kind: Kind
    model: str
    #: Plain text, one sentence.
    text: str
    at: float = msgspec.field(default_factory=time.time)
    data: dict[str, Any] = {}
    #: Of an alarm: which. Of an override, a promotion, a rollout: its id. Of a retraining: its run.
    name: str = ""
    #: began or ended, set, cleared or expired, raised or lowered, moved; of a rollout: started,
    #: asked, done or rolled-back; of a retraining: started, registered, promoted, out or failed.
    state: str = ""
    id: str = msgspec.field(default_factory=lambda: f"ntc_{new_id()}")

    @property
    def urgent(self) -> bool:
        return self.kind in URGENT or self.state == "rolled-back"

    @property
    def subject(self) -> tuple[str, str, str]:
        """Of equal subjects the newest is what counts."""
        return self.kind, self.model, self.name


class Told(Protocol):
    """Who passes notices on."""

    def tell(self, notice: Notice) -> None:
        """Returns at once; never raises."""


def moved(
    model: str, before: int, count: int, reason: str, at: float, *, mode: str = "act"
) -> Notice:
    """A decision that moved a count. `mode`: what is done with it, as in autoscale.mode."""
    state = "raised" if count > before else "lowered"
    advice = "" if mode == "act" else f" ({mode}: nothing was scaled)"
    data = {"before": before, "count": count, "mode": mode}
    return Notice(
        kind="decision", model=model, text=f"{reason}{advice}", at=at, data=data, state=state
    )


def hand(
    model: str, state: str, text: str, at: float, *, id: str, data: dict[str, Any] | None = None
) -> Notice:
    """An override was set, cleared or expired."""
    return Notice(
        kind="override", model=model, text=text, at=at, data=data or {}, name=id, state=state
    )


def promoted(model: str, text: str, at: float, *, id: str, data: dict[str, Any]) -> Notice:
    """An alias was moved by a person."""
    return Notice(
        kind="promotion", model=model, text=text, at=at, data=data, name=id, state="moved"
    )


def rollout(
    model: str, state: str, text: str, at: float, *, id: str, data: dict[str, Any] | None = None
) -> Notice:
    """A rollout started, ended, or a person asked something of it."""
    return Notice(
        kind="rollout", model=model, text=text, at=at, data=data or {}, name=id, state=state
    )


def retraining(model: str, state: str, text: str, at: float, *, run: str) -> Notice:
    """A model is trained again, or what came of it."""
    return Notice(kind="retraining", model=model, text=text, at=at, name=run, state=state)


def alarm(
    model: str, name: str, detail: str, at: float, *, ended: bool = False, data: Any = None
) -> Notice:
    return Notice(
        kind="alarm", model=model, text=f"{name}: {detail}" if detail else name, at=at,
        data=data or {}, name=name, state="ended" if ended else "began",
    )  # fmt: skip


def failing(model: str, what: str, detail: str, at: float, *, ended: bool = False) -> Notice:
    """What carries decisions out does not: `what` is "orchestrator", for one."""
    return Notice(
        kind="failing", model=model, text=f"{what}: {detail}", at=at, name=what,
        state="ended" if ended else "began",
    )  # fmt: skip
