"""A rollout, step by step: what was seen -> its next state, the shares, the counts, why. Pure.

    starting --> stepping --> promoting --> keeping --> done
       |            |             |            |
       +------------+-------------+------------+--> rolled-back: a gate, its workers, or a person
                                                    stopped: it is no longer wanted

    canary       a share, held and judged, then a greater one; full strength; all
    rolling      a worker more of it and one less of the old one, with their share
    blue-green   full strength first, then all at once
    shadow       shown calls, until a person promotes it

Who is the first to serve, takes over from what does not answer, or is called by nobody has nothing
to be compared with: all at once. Back is always at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from headrace.deploy.gates import worst
from headrace.deploy.hear import Workers
from headrace.deployments import WHOLE, Deploy, Rollout, RolloutState, Share, Verdict

GONE_S = 5.0  # no worker of it is ready for so long
BREAKS = 3  # that it has and production has not


class Seen(NamedTuple):
    """What a rollout stands on, now."""

    new: Workers
    stable: Workers
    #: Workers that it is to have when it has all calls: at least as many as the old version had
    #: when it began, and more where that was given more since.
    full: int
    verdicts: Sequence[Verdict] = ()
    #: Nobody has called for a while.
    idle: bool = False
    #: Somebody is heard at all. Else the broker is away, and silence says nothing.
    heard: bool = True
    #: Since when there has been somebody who looks.
    looked_s: float = math.inf


class Next(NamedTuple):
    rollout: Rollout
    #: Workers by version, where they are to be changed.
    counts: dict[int, int]
    #: What befell it, with the sentence for it: kind, text.
    events: tuple[tuple[str, str], ...] = ()


def advance(rollout: Rollout, seen: Seen, policy: Deploy, now: float) -> Next:
    """`now` in Unix seconds. To be asked about once a second, until it is over."""
    verdicts = _judged(rollout, seen.verdicts)
    rollout = structs.replace(rollout, figures=_figures(rollout.figures, verdicts))
    against = worst(verdicts)
    if why := _broken(rollout, seen, policy, now):
        return over(rollout, "rolled-back", why, seen, now)
    if against and against.verdict == "bad":
        return over(rollout, "rolled-back", f"{against.gate}: {against.text}", seen, now)
    if rollout.paused:
        return _same(rollout, seen, policy, "paused")
    go = {"starting": _starting, "stepping": _stepping, "promoting": _promoting}
    if rollout.state == "keeping":
        return _keeping(rollout, seen, policy, now)
    return go[rollout.state](rollout, seen, policy, now)


def grown(rollout: Rollout, now: float) -> Rollout:
    """More workers are wanted of it than a moment ago. Those have their time to start, too: who is
    not there yet speaks against a version only then."""
    if rollout.state in ("starting", "promoting"):
        return structs.replace(rollout, since=now)
    return rollout  # of a step it is the time for which it is held


def _figures(old: dict[str, Any], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """As they are stored. What was said once is not taken back for want of calls."""
    known = {gate for gate, said in old.items() if said["verdict"] != "few"}
    return old | {
        each.gate: msgspec.to_builtins(each)
        for each in verdicts
        if each.verdict != "few" or each.gate not in known
    }


# -- what speaks against it ------------------------------------------------------------------------


def _judged(rollout: Rollout, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The settings' own files are no measure of what a registered version may answer."""
    if rollout.from_version:
        return [*verdicts]
    return [each for each in verdicts if each.gate == "errors"]


def _broken(rollout: Rollout, seen: Seen, policy: Deploy, now: float) -> str:
    """ "" where its workers do what they should."""
    new = seen.new
    if not seen.heard:
        return ""
    if new.trouble:
        return f"no worker of version {rollout.to_version} is ready: {new.trouble}"
    if new.breaks >= BREAKS and new.breaks > 2 * seen.stable.breaks:
        return f"model processes of version {rollout.to_version} ended {new.breaks} times"
    waited_s = min(now - rollout.since, seen.looked_s)
    wanted = _count(rollout, policy, seen)
    short = f"{new.ready} of {wanted} workers were ready in {policy.ready_s:g} s"
    if rollout.state in ("starting", "promoting"):
        return short if new.ready < wanted and waited_s > policy.ready_s else ""
    if new.unready_s is None:  # whoever looks has just begun to, or the house has
        return short if waited_s > policy.ready_s else ""
    if new.unready_s >= GONE_S:
        return f"no worker of version {rollout.to_version} was ready for {new.unready_s:.0f} s"
    return ""


# -- its states ------------------------------------------------------------------------------------


def _starting(rollout: Rollout, seen: Seen, policy: Deploy, now: float) -> Next:
    wanted = _count(rollout, policy, seen)
    if seen.new.ready < wanted:
        return _same(rollout, seen, policy, f"{seen.new.ready} of {wanted} workers are ready")
    if rollout.strategy == "shadow":
        text = f"{policy.shadow:g} % of the calls are shown to it"
        return _to(rollout, "stepping", text, seen, policy, now)
    if at_once(rollout, seen, policy) or not shares_of(rollout, policy, seen.full):
        return _all(rollout, seen, policy, now)
    begun = structs.replace(rollout, step=int(rollout.strategy == "rolling"))
    return _step(begun, seen, policy, now)


def _stepping(rollout: Rollout, seen: Seen, policy: Deploy, now: float) -> Next:
    if rollout.strategy == "shadow":
        found = rollout.figures.get("answers", {}).get("text", "nothing is compared yet")
        return _same(rollout, seen, policy, f"shadow: {found}")
    ripe, why = _ripe(rollout, seen, policy, now)
    if not ripe:
        if why and policy.strict and now - rollout.since >= max(policy.wait_s, policy.hold_s):
            return over(rollout, "rolled-back", f"not judged in {policy.wait_s:g} s: {why}", seen,
                        now)  # fmt: skip
        return _same(rollout, seen, policy, why or _left(rollout, policy, now))
    # Who will carry the next step is there before it.
    following = structs.replace(rollout, step=rollout.step + 1)
    last = rollout.step + 1 >= len(shares_of(rollout, policy, seen.full)) + _first(rollout)
    if last and rollout.strategy == "rolling":
        following = structs.replace(rollout, state="promoting")
    elif last:
        text = f"to {seen.full} workers, before it gets all calls"
        return _to(rollout, "promoting", text, seen, policy, now)
    wanted = _count(following, policy, seen)
    if seen.new.ready < wanted:
        waits = f"{seen.new.ready} of {wanted} workers for the next step are ready"
        if now - rollout.since > policy.hold_s + policy.wait_s + policy.ready_s:
            return over(rollout, "rolled-back", waits, seen, now)
        # Nobody of the old version goes before they are there.
        counts = _counts(rollout, policy, seen) | {rollout.to_version: wanted}
        return Next(structs.replace(rollout, why=waits), counts)
    if last:
        return _all(rollout, seen, policy, now)
    return _step(following, seen, policy, now)


def _promoting(rollout: Rollout, seen: Seen, policy: Deploy, now: float) -> Next:
    if seen.new.ready < seen.full:
        return _same(rollout, seen, policy, f"{seen.new.ready} of {seen.full} workers are ready")
    return _all(rollout, seen, policy, now)


def _keeping(rollout: Rollout, seen: Seen, policy: Deploy, now: float) -> Next:
    # Who stands by may be the one who answers.
    if now < rollout.since + policy.keep_s or not seen.new.ready:
        return _same(rollout, seen, policy, "it has all calls, and the old version stands by")
    return over(rollout, "done", f"version {rollout.to_version} has all calls", seen, now)


def _ripe(rollout: Rollout, seen: Seen, policy: Deploy, now: float) -> tuple[bool, str]:
    """May the next step begin; if not, what is against it ("": its time)."""
    held_s = now - rollout.since
    if held_s < policy.hold_s:
        return False, ""
    found = worst(_judged(rollout, seen.verdicts))
    why = (
        f"{found.gate}: {found.text}" if found else "" if seen.verdicts else "no calls are heard of"
    )
    if not why:
        return True, ""
    return held_s >= policy.wait_s and not policy.strict, why


def _left(rollout: Rollout, policy: Deploy, now: float) -> str:
    return f"step {rollout.step + 1 - _first(rollout)} is held for {policy.hold_s:g} s"


def _step(rollout: Rollout, seen: Seen, policy: Deploy, now: float) -> Next:
    part = part_of(structs.replace(rollout, state="stepping"), policy, seen.full)
    return _to(rollout, "stepping", f"{part / 100:g} % of the calls", seen, policy, now, "step")


def _all(rollout: Rollout, seen: Seen, policy: Deploy, now: float) -> Next:
    text = f"all calls go to version {rollout.to_version}"
    if not policy.keep_s or not seen.stable.ready:
        return over(rollout, "done", text, seen, now)
    return _to(rollout, "keeping", text, seen, policy, now)


def _to(
    rollout: Rollout,
    state: RolloutState,
    text: str,
    seen: Seen,
    policy: Deploy,
    now: float,
    kind: str = "",
) -> Next:
    moved = structs.replace(rollout, state=state, since=now, why=text)
    return Next(moved, _counts(moved, policy, seen), ((kind or state, text),))


def _same(rollout: Rollout, seen: Seen, policy: Deploy, why: str) -> Next:
    return Next(structs.replace(rollout, why=why), _counts(rollout, policy, seen))


def over(rollout: Rollout, state: RolloutState, why: str, seen: Seen, now: float) -> Next:
    """Its end. Back or done, the version that has the calls gets its full strength."""
    done = state == "done"
    ended = structs.replace(
        rollout, state=state, why=why, since=now, ended=now, paused=False,
        barred=state == "rolled-back",
    )  # fmt: skip
    stays = rollout.to_version if done else rollout.from_version
    return Next(ended, {stays: seen.full}, ((state, why),))


# -- a person --------------------------------------------------------------------------------------


def asked(rollout: Rollout, kind: str, reason: str, seen: Seen, now: float) -> Next | str:
    """What a person asks of an open rollout; or why it makes no sense now."""
    event = (kind, reason)
    if kind == "pause":
        if rollout.paused:
            return "it is paused already"
        return Next(structs.replace(rollout, paused=True, why="paused"), {}, (event,))
    if kind == "resume":
        if not rollout.paused:
            return "it is not paused"
        # A step is held anew: nobody looked meanwhile.
        return Next(structs.replace(rollout, paused=False, since=now), {}, (event,))
    if kind == "rollback":
        ended = over(rollout, "rolled-back", reason, seen, now)
        return ended._replace(events=(event, *ended.events))
    if kind == "promote":
        if rollout.state in ("keeping", "promoting"):
            return "it gets all calls already"
        further = structs.replace(rollout, paused=False, since=now, why="promoted by hand")
        if rollout.state == "starting":
            return Next(structs.replace(further, strategy="blue-green"), {}, (event,))
        return Next(structs.replace(further, state="promoting"), {}, (event,))
    return "another rollout is under way"


# -- shares and counts -----------------------------------------------------------------------------


def at_once(rollout: Rollout, seen: Seen, policy: Deploy) -> bool:
    """There is nothing to compare it with, or it was meant so."""
    if rollout.strategy in ("blue-green", "shadow"):
        return rollout.strategy == "blue-green"
    first = not rollout.from_version or not seen.stable.ready
    return first or (seen.idle and not policy.strict)


def shares_of(rollout: Rollout, policy: Deploy, full: int) -> list[int]:
    """Of WHOLE, step by step, before it gets all."""
    if rollout.strategy == "canary":
        return [max(1, round(share * WHOLE / 100)) for share in policy.steps if share < 100]
    if rollout.strategy == "rolling":
        return [WHOLE * done // full for done in range(1, full)]
    return []


def _first(rollout: Rollout) -> int:
    """The number of the first step: workers are counted from 1."""
    return int(rollout.strategy == "rolling")


def part_of(rollout: Rollout, policy: Deploy, full: int) -> int:
    """Of WHOLE: what the new version has."""
    if rollout.state in ("keeping", "done"):
        return WHOLE
    if rollout.state not in ("stepping", "promoting"):
        return 0
    parts = shares_of(rollout, policy, full)
    place = rollout.step - _first(rollout)
    return parts[min(max(place, 0), len(parts) - 1)] if parts else 0


def route_shares(rollout: Rollout, policy: Deploy, full: int) -> tuple[Share, ...]:
    """The first is who gets what the others cannot answer."""
    old, new = rollout.from_version, rollout.to_version
    part = part_of(rollout, policy, full)
    if rollout.state == "done":
        return (Share(new, WHOLE),)
    return (Share(old, WHOLE - part), Share(new, part)) if part else (Share(old, WHOLE),)


def shadowed(rollout: Rollout, policy: Deploy) -> tuple[int, int]:
    """The version that is shown calls, and so many of WHOLE of them."""
    if rollout.strategy != "shadow" or rollout.state not in ("stepping", "promoting"):
        return 0, 0
    return rollout.to_version, max(1, round(policy.shadow * WHOLE / 100))


def _counts(rollout: Rollout, policy: Deploy, seen: Seen) -> dict[int, int]:
    counts = {rollout.to_version: _count(rollout, policy, seen)}
    if rollout.strategy == "rolling" and rollout.state == "stepping":
        counts[rollout.from_version] = max(1, seen.full - rollout.step)
    return counts


def _count(rollout: Rollout, policy: Deploy, seen: Seen) -> int:
    """Workers of the new version: for its share, and all of them before it gets all."""
    full, state = seen.full, rollout.state
    if state in ("promoting", "keeping", "done"):
        return full
    if state == "starting" and at_once(rollout, seen, policy):
        return full
    if rollout.strategy == "shadow":
        return max(1, math.ceil(full * policy.shadow / 100))
    if rollout.strategy == "rolling":
        return min(full, max(1, rollout.step))
    parts = shares_of(rollout, policy, full)
    if not parts:
        return full
    return max(1, math.ceil(full * parts[min(rollout.step, len(parts) - 1)] / WHOLE))
