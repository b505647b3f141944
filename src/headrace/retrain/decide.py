"""Train it now, or wait: the policy, the time, what was trained before, the alarms -> one sentence.

A wish (a time that came, an alarm that is on) has a key, which two retrainers find the same from
the same record: so the run of it is started once. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.retraining import Cron, Retrain, Training, clock

DAY_S = 86_400.0
LATE_S = 60.0  # from here on it is said that a time is made up for


class Raised(NamedTuple):
    """An alarm that is on."""

    id: str
    name: str
    began: float
    detail: str = ""


class Start(NamedTuple):
    key: str
    reason: str


class Wait(NamedTuple):
    """`until`: Unix time at which it may be otherwise; None: when something else happens."""

    reason: str
    until: float | None = None


def decide(
    policy: Retrain,
    now: float,
    past: Sequence[Training],
    alarms: Sequence[Raised],
    *,
    since: float,
    moving: str = "",
    settled: float = 0.0,
) -> Start | Wait:
    """`past`: at least those of the budget's days and the last one. `since`: when this retrainer
    began to look. `moving`: what else goes on with the model, in words. `settled`: when the last
    rollout was over: an alarm may stay on for a while after it, of calls before it."""
    wish = _wished(policy, now, past, alarms, since)
    if isinstance(wish, Wait):
        return wish
    key, why = wish
    running = next((each for each in past if each.ended is None), None)
    if running:
        return Wait(f"{why}; but run {running.run} goes on")
    if moving:
        return Wait(f"{why}; but {moving}")
    over = max([settled, *(each.ended or 0.0 for each in past)])
    cool_until = over + policy.cool_down_s
    if over and cool_until > now:
        return Wait(f"{why}; but it cools down until {clock(cool_until)}", cool_until)
    spent = _spent(policy, now, past)
    if spent:
        return Wait(f"{why}; but {spent.reason}", spent.until)
    return Start(key, why)


def _wished(
    policy: Retrain,
    now: float,
    past: Sequence[Training],
    alarms: Sequence[Raised],
    since: float,
) -> Start | Wait:
    due = _due(policy, now, past, since)
    on = sorted((a for a in alarms if a.name in policy.alarms), key=lambda a: (a.began, a.id))
    reasons = [due[1]] if due else []
    reasons += [
        f"alarm {a.name} since {clock(a.began)}" + (f": {a.detail}" if a.detail else "")
        for a in on
    ]  # fmt: skip
    if due:
        return Start(due[0], "; ".join(reasons))
    if on:
        # An alarm that stays on asks again once the run that it had is over.
        last = max((each.at for each in past), default=0.0)
        return Start(f"alarm {on[0].id} after {last:.3f}", "; ".join(reasons))
    if not policy.cron:
        return Wait("no alarm is on")
    at, wall = Cron(policy.cron, policy.zone).next(now)
    beside = "no alarm is on, and " if policy.alarms else ""
    return Wait(f"{beside}the next time is {wall} {policy.zone}", at)


def _due(
    policy: Retrain, now: float, past: Sequence[Training], since: float
) -> tuple[str, str] | None:
    """The key of the last time that came and has no run yet, and the words for it."""
    found = Cron(policy.cron, policy.zone).last(now) if policy.cron else None
    if found is None:
        return None
    at, wall = found
    key = f"time {wall} {policy.zone}"
    if any(each.key == key for each in past) or now - at > policy.late_s:
        return None
    # What was due before anybody had this policy is not missed.
    if at < since and not any(each.at < at for each in past):
        return None
    late = ", made up for" if now - at > LATE_S else ""
    return key, f"scheduled for {wall} {policy.zone}{late}"


def _spent(policy: Retrain, now: float, past: Sequence[Training]) -> Wait | None:
    budget = policy.budget
    within = sorted(
        (each for each in past if each.at > now - budget.days * DAY_S), key=lambda each: each.at
    )
    if len(within) >= budget.runs:
        free = within[len(within) - budget.runs].at + budget.days * DAY_S
        said = f"{len(within)} of {budget.runs} runs in {budget.days:g} days were made"
        return Wait(f"{said}: none before {clock(free)}", free)
    minutes = sum(each.took_s for each in within) / 60
    if minutes < budget.minutes:
        return None
    said = f"{minutes:.0f} of {budget.minutes:g} minutes in {budget.days:g} days were used"
    left = minutes
    for each in within:
        left -= each.took_s / 60
        if left < budget.minutes:
            free = each.at + budget.days * DAY_S
            return Wait(f"{said}: none before {clock(free)}", free)
    raise AssertionError("without any run no minutes are used")
