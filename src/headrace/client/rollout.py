"""What can be asked of a house about its rollouts, over its control API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from headrace.client.asks import Ask, query_of
from headrace.client.promotion import Promotion
from headrace.client.read import read_as
from headrace.client.write import body_of

WHOLE = 10_000  # all calls: shares are so many of them
LISTED = 50


class RoutedShare(msgspec.Struct, frozen=True):
    version: int
    of_whole: int


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets the calls. `shadow`: the version that is shown `shadow_share` of WHOLE calls without
    answering them, 0: none."""

    revision: int = 0
    shares: list[RoutedShare] = []
    shadow: int = 0
    shadow_share: int = 0


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A version that the house runs. `share`: of WHOLE calls; `count`: workers that were asked for
    last."""

    version: int
    state: str = ""
    share: int = 0
    digest: str = ""
    since: float = 0.0
    until: float | None = None
    count: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate says. `verdict`: good, bad, doubtful or few; `new`, `stable`, `limit`: figures
    of the two versions, and what the new one is allowed."""

    gate: str
    verdict: str = ""
    new: float | None = None
    stable: float | None = None
    limit: float | None = None
    new_calls: int = 0
    stable_calls: int = 0
    text: str = ""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """`why`: why it stands as it does; `figures`: what the gates saw last. Times are Unix
    seconds; `since`: when the present step began."""

    id: str
    model: str
    from_version: int
    to_version: int
    strategy: str
    state: str
    step: int = 0
    paused: bool = False
    author: str = ""
    reason: str = ""
    started: float = 0.0
    updated: float = 0.0
    since: float = 0.0
    ended: float | None = None
    why: str = ""
    figures: dict[str, Any] = {}

    @property
    def is_open(self) -> bool:
        return self.ended is None


class RolloutEvent(msgspec.Struct, frozen=True, kw_only=True):
    id: int = 0
    at: float
    kind: str
    author: str = ""
    text: str = ""
    figures: dict[str, Any] = {}


class RolloutOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked for. `done`: when it was taken up, None: not yet; `outcome`: "yes", or
    "no: " and why."""

    id: str
    kind: str
    version: int | None = None
    strategy: str = ""
    author: str = ""
    reason: str = ""
    at: float = 0.0
    done: float | None = None
    outcome: str = ""


class DeployedModel(msgspec.Struct, frozen=True, kw_only=True):
    """How the versions of one model stand. `stable`: the version that would have all calls without
    a rollout, 0: the settings' own files, None: nothing is run yet; `steps`: of a canary, in per
    cent; `last`, `orders`: the newest first."""

    model: str
    alias: str = ""
    strategy: str = ""
    steps: list[float] = []
    stable: int | None = None
    route: Routed | None = None
    deployments: list[Deployment] = []
    rollout: Rollout | None = None
    last: list[Rollout] = []
    orders: list[RolloutOrder] = []


class RolloutTold(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout, and what happened in it, the oldest first."""

    rollout: Rollout
    events: list[RolloutEvent] = []


class RolloutPage(msgspec.Struct, frozen=True):
    """`next`: the cursor of the page that follows, None on the last."""

    rollouts: list[Rollout]
    next: str | None = None


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """`promotion`: how the alias was moved for it."""

    order: RolloutOrder
    promotion: Promotion | None = None


class _All(msgspec.Struct):
    models: list[DeployedModel]


def deployed() -> Ask[list[DeployedModel]]:
    """All models whose versions come from the registry."""
    return Ask("GET", "/rollouts", lambda reply: read_as(reply, _All).models, timed=False)


def deployed_one(model: str) -> Ask[DeployedModel]:
    return Ask("GET", _path(model), lambda reply: read_as(reply, DeployedModel), timed=False)


def rollouts(model: str, limit: int = LISTED, *, cursor: str | None = None) -> Ask[RolloutPage]:
    """All that ever were, newest first."""
    path = f"{_path(model)}/history{query_of(limit=limit, cursor=cursor)}"
    return Ask("GET", path, lambda reply: read_as(reply, RolloutPage), timed=False)


def rollout(model: str, rollout_id: str) -> Ask[RolloutTold]:
    path = f"{_path(model)}/{quote(rollout_id, safe='')}"
    return Ask("GET", path, lambda reply: read_as(reply, RolloutTold), timed=False)


def order(
    model: str,
    order: str,
    reason: str,
    *,
    version: int | None = None,
    strategy: str | None = None,
) -> Ask[Ordered]:
    """`order`: start, pause, resume, promote or rollback; `version`, `strategy`: of a start."""
    body = {"order": order, "reason": reason, "version": version, "strategy": strategy}
    path = f"{_path(model)}/orders"
    return Ask("POST", path, lambda reply: read_as(reply, Ordered), body_of(body), timed=False)


def _path(model: str) -> str:
    return f"/rollouts/{quote(model, safe='')}"
