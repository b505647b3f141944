"""A rollout while somebody waits for it: at a terminal a bar, elsewhere a line as it moves on."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import typer

from headrace.cli.rollout_tables import standing_plain, step
from headrace.cli.told import REFUSED, console, say_error, say_hint

if TYPE_CHECKING:
    from headrace.client import Control
    from headrace.client.rollout import DeployedModel, Rollout, RolloutOrder

POLL_S = 0.5
AWAY_S = 60.0  # without an answer: the clerk that served it may have given way to another


class Standing(NamedTuple):
    """`share`: of the calls that the new version has, 0 to 1; `ended`: "" while it is under way,
    done where it is as it was ordered, else why not."""

    share: float
    text: str
    ended: str = ""


def standing(view: DeployedModel, order: RolloutOrder, before: frozenset[str]) -> Standing:
    """How what was ordered stands; `before`: ids of the rollouts that were there. Pure."""
    taken = next((one for one in view.orders if one.id == order.id), order)
    if taken.outcome.startswith("no"):
        return Standing(0.0, taken.outcome, taken.outcome)
    found = _found(view, order, before)
    if found is None:
        return _placed(view, order) or Standing(0.0, "ordered")
    text = f"{found.strategy} to {found.to_version}: {standing_plain(found)}"
    text = ", ".join(filter(None, [text, step(view) if found.is_open else "", found.why]))
    if found.is_open:
        return Standing(_share(view, found), text)
    wanted = "rolled-back" if order.kind == "rollback" else "done"
    ended = "done" if found.state == wanted else found.state
    return Standing(1.0 if ended == "done" else 0.0, text, ended)


def _found(view: DeployedModel, order: RolloutOrder, before: frozenset[str]) -> Rollout | None:
    every = [*([view.rollout] if view.rollout else []), *view.last]
    if order.kind != "start":
        return next((one for one in every if one.id in before), None)
    new = (one for one in every if one.id not in before and one.to_version == order.version)
    return next(new, None)


def _placed(view: DeployedModel, order: RolloutOrder) -> Standing | None:
    """Where nothing was run before there is nothing to roll out from."""
    if view.rollout is None and order.kind == "start" and view.stable == order.version:
        for one in view.deployments:
            if one.version == order.version and one.state == "serving":
                return Standing(1.0, f"{one.version} serves", "done")
    return None


def _share(view: DeployedModel, found: Rollout) -> float:
    from headrace.client.rollout import WHOLE

    shares = view.route.shares if view.route else []
    return sum(one.of_whole for one in shares if one.version == found.to_version) / WHOLE


def follow(house: Control, model: str, order: RolloutOrder, before: frozenset[str]) -> None:
    """Until it is done. Raises Exit where it is not."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(), TextColumn("{task.percentage:>3.0f} % of the calls"), BarColumn(),
        TextColumn("{task.description}", markup=False),
    )  # fmt: skip
    live = sys.stdout.isatty()
    try:
        with Progress(*columns, console=console(), transient=True, disable=not live) as progress:
            bar = progress.add_task("ordered", total=1.0)
            told = ""
            while True:
                now = standing(_view(house, model), order, before)
                progress.update(bar, completed=now.share, description=now.text)
                if now.text != told and not live:
                    console().print(f"{now.share:>4.0%}  {now.text}", markup=False, soft_wrap=True)
                    sys.stdout.flush()
                told = now.text
                if now.ended:
                    break
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        say_hint(f"it goes on without you: headrace rollout show {model}")
        raise
    if now.ended != "done":
        say_error(now.text)
        raise typer.Exit(REFUSED)
    if live:
        console().print(now.text, markup=False, soft_wrap=True)


def _view(house: Control, model: str) -> DeployedModel:
    """Raises CallError where nobody answers for a minute."""
    from headrace.client import CallFailed, CallRefused
    from headrace.client.rollout import deployed_one

    end = time.monotonic() + AWAY_S
    while True:
        try:
            return house.ask(deployed_one(model))
        except (CallFailed, CallRefused) as error:
            refused = isinstance(error, CallRefused) and error.status != 503
            if refused or time.monotonic() > end:
                raise
        time.sleep(POLL_S)
