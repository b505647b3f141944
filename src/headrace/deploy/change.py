"""What was decided -> what is written: rollout, route, deployments, events. Pure."""

from __future__ import annotations

from msgspec import structs

from headrace.deploy.rollout import Next, route_shares, shadowed
from headrace.deployments import WHOLE, Deploy, Deployment, Rollout, Route, Share
from headrace.store.deploying import Change, Event, Standing

HEADRACE = "headrace"


def placed(model: str, version: int, digest: str, count: int, now: float) -> Change:
    """The first version of a model."""
    serving = Deployment(
        model=model, version=version, digest=digest, share=WHOLE, state="serving", since=now,
        count=count,
    )  # fmt: skip
    route = Route(model, int(now), (Share(version, WHOLE),))
    return Change(model=model, route=route, deployments=[serving])


def changed(
    stands: Standing, following: Next, policy: Deploy, full: int, now: float, author: str = HEADRACE
) -> Change:
    """`full`: workers that the new version is to have when it has all calls."""
    rollout = structs.replace(following.rollout, updated=now)
    return Change(
        model=rollout.model,
        rollout=rollout,
        route=_route(stands.route, rollout, policy, full, now),
        deployments=_deployments(stands, following, policy, full, now),
        events=[
            Event(
                rollout=rollout.id, model=rollout.model, at=now, kind=kind, author=author,
                text=text, figures=rollout.figures,
            )
            for kind, text in following.events
        ],
    )  # fmt: skip


def _route(
    old: Route | None, rollout: Rollout, policy: Deploy, full: int, now: float
) -> Route | None:
    """None where it stays."""
    shadow, shadow_share = shadowed(rollout, policy)
    # Of the clock: also after a database that was lost it only grows.
    revision = max(old.revision + 1 if old else 0, int(now))
    new = Route(
        rollout.model, revision, route_shares(rollout, policy, full), shadow, shadow_share,
        watched=rollout.is_open,
    )  # fmt: skip
    return None if old and structs.replace(old, revision=revision) == new else new


def _deployments(
    stands: Standing, following: Next, policy: Deploy, full: int, now: float
) -> list[Deployment]:
    """Of the two versions, where they change."""
    rollout = following.rollout
    shares = {share.version: share.of_whole for share in route_shares(rollout, policy, full)}
    before, after = rollout.from_version, rollout.to_version
    found = []
    for version, digest in ((before, ""), (after, rollout.digest)):
        old = stands.deployments.get(version) or Deployment(
            model=rollout.model, version=version, digest=digest, since=now
        )
        share = shares.get(version, 0)
        new = structs.replace(
            old,
            digest=digest or old.digest,
            share=share,
            count=full if version == before else following.counts.get(version, old.count),
            until=None,
            state="serving" if share else "starting" if version == after else "kept",
        )
        if not share and not rollout.is_open:
            new = structs.replace(new, state="kept", until=now)
        if new.state != old.state:
            new = structs.replace(new, since=now)
        if new != stands.deployments.get(version):
            found.append(new)
    return found
