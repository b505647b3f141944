"""What can be asked of a house about capacity, over its control API."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from headrace.client.asks import Ask, query_of
from headrace.client.read import read_as
from headrace.client.write import body_of

LISTED = 50


class Me(msgspec.Struct, frozen=True):
    """As whom the house knows its caller. `role`: viewer, operator or admin."""

    name: str
    role: str
    through: str


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """A person's hand on a count. `kind`: set, floor or cap; times are Unix seconds."""

    id: str
    model: str
    kind: str
    count: int
    author: str
    reason: str
    created: float
    expires: float
    cleared_at: float | None = None
    cleared_by: str = ""


class OverrideSet(msgspec.Struct, frozen=True):
    """`warnings`: what holds all the same, and should be known."""

    override: Override
    warnings: list[str] = []


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A count and its reason. `asked`: the count before; `foretold`, `came`: the greatest calls a
    minute that were forecast for `from_minute` to `to_minute` (of Unix time), and that came."""

    model: str
    minute: int
    at: float
    count: int
    asked: int
    reason: str
    mode: str = ""
    inputs: dict[str, float] = {}
    clamps: list[str] = []
    zones: dict[str, int] = {}
    foretold: float | None = None
    from_minute: int | None = None
    to_minute: int | None = None
    came: float | None = None
    applied: str = ""


class DecisionPage(msgspec.Struct, frozen=True):
    """`next`: the cursor of the page that follows, None on the last."""

    decisions: list[Decision]
    next: str | None = None


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    model: str
    name: str
    began: float
    ended: float | None = None
    detail: str = ""


class ScaledModel(msgspec.Struct, frozen=True, kw_only=True):
    """How one model stands. `count`: what was asked for last, `ready`: workers that answer; None
    where nobody knows."""

    model: str
    mode: str = ""
    least: int = 0
    most: int = 0
    count: int | None = None
    ready: float | None = None
    overrides: list[Override] = []
    decision: Decision | None = None
    alarms: list[Alarm] = []


#: By column: "minute" of Unix time, "calls", "waiting", "ready" ...; None is what nobody saw.
Minutes = dict[str, list[float | None]]


class _All(msgspec.Struct):
    models: list[ScaledModel]


class _Overrides(msgspec.Struct):
    overrides: list[Override]


class _Cleared(msgspec.Struct):
    cleared: list[Override]


class _Alarms(msgspec.Struct):
    alarms: list[Alarm]


class _Minutes(msgspec.Struct):
    minutes: Minutes


def whoami() -> Ask[Me]:
    return Ask("GET", "/whoami", lambda reply: read_as(reply, Me), timed=False)


def scaled() -> Ask[list[ScaledModel]]:
    """All models that are scaled."""
    return Ask("GET", "/scale", lambda reply: read_as(reply, _All).models, timed=False)


def scaled_one(model: str) -> Ask[ScaledModel]:
    return Ask("GET", _path(model), lambda reply: read_as(reply, ScaledModel), timed=False)


def decisions(
    model: str, limit: int = LISTED, *, at: float | None = None, cursor: str | None = None
) -> Ask[DecisionPage]:
    """Newest first; `at`: from that Unix time back."""
    path = f"{_path(model)}/decisions{query_of(limit=limit, cursor=cursor, at=at)}"
    return Ask("GET", path, lambda reply: read_as(reply, DecisionPage), timed=False)


def minutes(model: str, since: float, until: float | None = None) -> Ask[Minutes]:
    """Unix times, at most eight days apart."""
    path = f"{_path(model)}/minutes{query_of(since=since, until=until)}"
    return Ask("GET", path, lambda reply: read_as(reply, _Minutes).minutes, timed=False)


def overrides(model: str, limit: int = LISTED) -> Ask[list[Override]]:
    """All that ever were, newest first."""
    path = f"{_path(model)}/overrides{query_of(limit=limit)}"
    return Ask("GET", path, lambda reply: read_as(reply, _Overrides).overrides, timed=False)


def override(
    model: str,
    kind: str,
    count: int,
    reason: str,
    *,
    for_s: float | None = None,
    until: float | None = None,
) -> Ask[OverrideSet]:
    """`kind`: set, floor or cap; it takes the place of the one of its kind, and ends after four
    hours where neither `for_s` nor `until` (Unix time) is given."""
    body = {"kind": kind, "count": count, "reason": reason, "for_s": for_s, "until": until}
    path = f"{_path(model)}/overrides"
    return Ask("POST", path, lambda reply: read_as(reply, OverrideSet), body_of(body), timed=False)


def clear(model: str, override_id: str = "") -> Ask[list[Override]]:
    """Takes back that one, or all of the model."""
    path = f"{_path(model)}/overrides" + (f"/{quote(override_id, safe='')}" if override_id else "")
    return Ask("DELETE", path, lambda reply: read_as(reply, _Cleared).cleared, timed=False)


def alarms(*, open_only: bool = True, limit: int = LISTED) -> Ask[list[Alarm]]:
    path = f"/alarms{query_of(open=int(open_only), limit=limit)}"
    return Ask("GET", path, lambda reply: read_as(reply, _Alarms).alarms, timed=False)


def _path(model: str) -> str:
    return f"/scale/{quote(model, safe='')}"
