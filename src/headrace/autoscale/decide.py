"""How many nodes, and why. Pure: of what was observed, the policy and the time.

    workers that a rollout shares out > override (set, floor, cap) > the policy's bounds
        > max(plan, the time table's floor, guard)

Every minute the guard and the time table may raise. The plan may raise, and lower: it is for a
cycle, and made anew each minute, or as often as the policy says.
Whatever goes wrong, the last count stands.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from headrace.autoscale.forecast import LONG, NEAR, Forecast, Rates, filled, forecast, slope
from headrace.autoscale.margin import margin
from headrace.autoscale.observed import Observed
from headrace.autoscale.schedule import bounds
from headrace.autoscale.size import nodes
from headrace.autoscale.zones import spared, spread
from headrace.policy import Override, Policy

JUST_NOW = 3  # minutes
REPLY_SIDE = "answers wait on their way home while workers are idle, more would not help"
SILENCE = 0.05  # of the season: below it nobody calls who should


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A count and its reason, with all that it was made of."""

    model: str
    at: float
    count: int
    reason: str
    inputs: dict[str, float]
    #: What kept the count from being what the figures alone wanted.
    clamps: tuple[str, ...] = ()
    zones: dict[str, int] = {}
    #: The greatest calls a minute that were forecast for [lead, lead + cycle], without margin: to
    #: be settled when that time is over. None between plans.
    foretold: float | None = None


class _Wish(NamedTuple):
    nodes: int
    why: str


class _Plan(NamedTuple):
    up: _Wish
    down: _Wish
    foretold: float
    #: What it was made of: calls without gaps, and their forecast.
    arrivals: Rates
    coming: Forecast


def decide(seen: Observed, policy: Policy, now: float) -> Decision:
    """`now` in Unix seconds. Never raises: a decision that fails keeps the last count, but for what
    a person wants."""
    try:
        return _decide(seen, policy, now)
    except Exception as error:
        failed = f"no decision was possible: {error}"
        count, why, clamps = _overridden(seen.asked, failed, ["failed"], seen.overrides, now)
        count, why, clamps = _shared(count, why, clamps, seen)
        reason = f"{_moved(seen.asked, count)}: {why}"
        return _decision(seen, policy, now, count, reason, {}, tuple(clamps), None)


def _decide(seen: Observed, policy: Policy, now: float) -> Decision:
    arrivals = filled(seen.arrivals)
    inputs = {"asked": float(seen.asked), "ready": float(seen.ready), "waiting": seen.waiting}
    table = bounds(policy.schedule, now, seen.lead_s)
    wishes = [_guard(arrivals, seen, policy, inputs)]
    planning = int(now // 60) % min(policy.every_min, policy.cycle_min) == 0
    plan = _plan(arrivals, seen, policy, now, inputs) if planning else None
    if plan:
        wishes.append(plan.up)
    if seen.reply_side:
        wishes = [wish._replace(nodes=min(wish.nodes, seen.asked)) for wish in wishes]
    if table.floor is not None:
        wishes.append(_Wish(table.floor, f"the time table wants at least {table.floor}"))
    count, reason, clamps = _wanted(wishes, plan, seen, policy, now)
    count, reason, clamps = _bounded(count, reason, clamps, policy, table.cap)
    count, reason, clamps = _overridden(count, reason, clamps, seen.overrides, now)
    count, reason, clamps = _shared(count, reason, clamps, seen)
    told = f"{_moved(seen.asked, count)}: {reason}"
    foretold = plan.foretold if plan else None
    return _decision(seen, policy, now, count, told, inputs, tuple(clamps), foretold)


def _decision(
    seen: Observed,
    policy: Policy,
    now: float,
    count: int,
    reason: str,
    inputs: dict[str, float],
    clamps: tuple[str, ...],
    foretold: float | None,
) -> Decision:
    return Decision(
        model=policy.model,
        at=now,
        count=count,
        reason=reason,
        inputs=inputs,
        clamps=clamps,
        zones=spread(count, policy.zones) if policy.zones else {},
        foretold=foretold,
    )


def _guard(arrivals: Rates, seen: Observed, policy: Policy, inputs: dict[str, float]) -> _Wish:
    """What the last minutes want, at the time when a node that is asked for now will be there."""
    guard = policy.guard
    level = _mean(arrivals[-JUST_NOW:])
    rise = max(0.0, slope(arrivals, NEAR)) * lead_min(seen) * guard.rise
    rate = guard.gain * (level + rise) / 60 + seen.waiting / guard.drain_s
    inputs["rate"], inputs["guard_rate"] = level / 60, rate
    count = _size(rate, policy)
    why = f"{level / 60:.1f} calls/s came in the last {JUST_NOW} min"
    if rise > 0.1 * level:
        why += f", and {(level + rise) / 60:.1f} if they go on rising"
    if seen.waiting >= 1:
        why += f", and {seen.waiting:.0f} wait"
    return _Wish(count, why)


def _plan(
    arrivals: Rates, seen: Observed, policy: Policy, now: float, inputs: dict[str, float]
) -> _Plan:
    lead, minute = lead_min(seen), int(now // 60)
    ahead = lead + policy.cycle_min
    coming = forecast(arrivals, ahead + 1)
    factor = margin(seen.settled, minute, policy.margin)
    trend: list[float] = coming.trend.tolist()
    season: list[float] = [] if coming.season is None else coming.season.tolist()
    highest = max(trend + season)
    of_trend, of_season = max(trend[lead:]), max(season[lead:], default=0.0)
    foretold = max(of_trend, of_season)
    inputs |= {"foretold": foretold / 60, "margin": factor, "highest": highest / 60}
    inputs["trend"] = of_trend / 60
    if season:
        inputs["season"] = of_season / 60
    made = "of the trend" if of_trend >= of_season else "of the season"
    up_rate, down_rate = foretold * factor / 60, highest * factor / 60
    share = f"{factor - 1:.0%} margin"
    return _Plan(
        _Wish(
            _size(up_rate, policy),
            f"{foretold / 60:.1f} calls/s are forecast for {lead} to {ahead} min ahead"
            f" ({made}), and {share}",
        ),
        _Wish(
            _size(down_rate, policy),
            f"no more than {highest / 60:.1f} calls/s are forecast for the next {ahead} min,"
            f" and {share}",
        ),
        foretold,
        arrivals,
        coming,
    )


def _wanted(
    wishes: list[_Wish], plan: _Plan | None, seen: Observed, policy: Policy, now: float
) -> tuple[int, str, list[str]]:
    most = max(wishes, key=lambda wish: wish.nodes)
    if most.nodes > seen.asked:
        return most.nodes, most.why, []
    if seen.reply_side:
        return seen.asked, f"{REPLY_SIDE}: {most.why}", [REPLY_SIDE]
    if plan is None:
        return seen.asked, f"{most.nodes} would do now, and only a plan lowers: {most.why}", []
    least = max([plan.down, *wishes], key=lambda wish: wish.nodes)
    if least.nodes >= seen.asked:
        return seen.asked, f"as many are needed: {least.why}", []
    holds = _holds(seen, policy, now, plan)
    if holds:
        return seen.asked, f"{least.nodes} would do, and {holds[0]}", holds
    return least.nodes, least.why, []


def _holds(seen: Observed, policy: Policy, now: float, plan: _Plan) -> list[str]:
    """Why nothing may be lowered, whatever the figures say."""
    holds = []
    age_s = now - seen.measured_at
    if age_s > policy.stale_s:
        holds.append(f"the figures are {age_s / 60:.0f} min old")
    elif len(seen.arrivals) < JUST_NOW or math.isnan(_mean(seen.arrivals[-JUST_NOW:])):
        holds.append("figures of the last minutes are missing")
    if _outage(plan.arrivals, plan.coming, policy.outage_share):
        holds.append("the traffic fell as it falls when callers are cut off")
    if seen.rollout:
        holds.append("a version is being rolled out")
    if now - seen.raised_at < policy.cool_down_s:
        holds.append(f"the last raise was {(now - seen.raised_at) / 60:.0f} min ago")
    return holds


def cut_off(arrivals: Rates, policy: Policy, least: float) -> bool:
    """Did the traffic fall as it falls when callers are cut off? `least`: calls a minute, below
    which none is missed."""
    known = filled(arrivals)
    before = _mean(known[-LONG - JUST_NOW : -JUST_NOW])
    return before > least and _outage(known, forecast(known, JUST_NOW), policy.outage_share)


def _outage(arrivals: Rates, coming: Forecast, share: float) -> bool:
    """A sudden fall that no earlier day shows, or silence at a time when there never was."""
    level, before = _mean(arrivals[-JUST_NOW:]), _mean(arrivals[-LONG - JUST_NOW : -JUST_NOW])
    fell = level < share * before
    if coming.season is None or not coming.season_now:
        return fell
    usual = _mean(coming.season[:JUST_NOW])
    return (fell and usual > 2 * share * coming.season_now) or level < SILENCE * usual


def _bounded(
    count: int, reason: str, clamps: list[str], policy: Policy, cap: int | None
) -> tuple[int, str, list[str]]:
    most, said = policy.most, f"the policy's most is {policy.most}"
    if cap is not None and cap < most:
        most, said = cap, f"the time table's cap is {cap}"
    if count < policy.least:
        said, most = f"the policy's least is {policy.least}", max(most, policy.least)
        return policy.least, said, [*clamps, said]
    if count > most:
        return max(most, policy.least), f"{said}, {count} were wanted: {reason}", [*clamps, said]
    return count, reason, clamps


def _overridden(
    count: int, reason: str, clamps: list[str], overrides: tuple[Override, ...], now: float
) -> tuple[int, str, list[str]]:
    """A set first, then floors, then caps: where a floor is above a cap, the cap holds."""
    for kind in ("set", "floor", "cap"):
        for hand in overrides:
            if hand.kind != kind or hand.expires <= now:
                continue
            before = count
            count = {
                "set": hand.count, "floor": max(count, hand.count), "cap": min(count, hand.count)
            }[kind]  # fmt: skip
            if count != before or kind == "set":
                said = f"{hand.author} {_DONE[kind]} {hand.count}: {hand.reason}"
                reason, clamps = f"{said} ({before} without it)", [*clamps, said]
    return count, reason, clamps


def _shared(
    count: int, reason: str, clamps: list[str], seen: Observed
) -> tuple[int, str, list[str]]:
    """Deploy hands on from version to version what there is, and takes none away: not for a person
    either, who may stop the rollout."""
    if count >= seen.shared:
        return count, reason, clamps
    said = f"a rollout shares out {seen.shared}"
    return seen.shared, f"{said}, {count} when it is over: {reason}", [*clamps, said]


_DONE = {"set": "set it to", "floor": "wants at least", "cap": "allows at most"}


def _moved(before: int, count: int) -> str:
    if count == before:
        return f"kept at {count}"
    return f"{'raised' if count > before else 'lowered'} from {before} to {count}"


def _size(rate: float, policy: Policy) -> int:
    """Beyond what the most can carry, which no count is searched for, a rough one."""
    carried = min(policy.node.throughput, policy.node.workers / policy.node.service_s)
    beyond = rate > max(1, policy.most) * carried
    count = math.ceil(rate / carried) if beyond else nodes(rate, policy.node, policy.target)
    return spared(count, len(policy.zones), policy.spare_zone)


def lead_min(seen: Observed) -> int:
    return math.ceil(seen.lead_s / 60)


def _mean(rates: Rates) -> float:
    return float(sum(rates.tolist())) / len(rates) if len(rates) else 0.0
