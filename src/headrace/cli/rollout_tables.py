"""Rollouts as people read them: who has the calls, what the gates saw, what happened when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headrace.cli.scale import at
from headrace.cli.table import escaped, moment, table_of
from headrace.cli.told import console

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from headrace.client.rollout import DeployedModel, Rollout, RolloutTold, Verdict

STATES = {
    "starting": "cyan", "stepping": "blue", "promoting": "blue", "keeping": "green",
    "done": "green", "rolled-back": "red", "stopped": "yellow",
}  # fmt: skip
VERDICTS = {"good": "green", "bad": "red", "doubtful": "yellow", "few": "dim"}
BAR = 30  # characters that all calls are


def show_all(found: list[DeployedModel]) -> None:
    out = console()
    if not found:
        out.print(
            "no model is deployed: write [models.NAME.deploy] into the settings", markup=False
        )
        return
    table = table_of("model", "version", "strategy", "rollout", "why")
    for one in found:
        opened = one.rollout
        table.add_row(
            one.model,
            version(one.stable),
            opened.strategy if opened else one.strategy,
            f"to {opened.to_version}, {standing(opened)}" if opened else "-",
            escaped(opened.why) if opened else "-",
        )
    out.print(table)


def show_one(one: DeployedModel) -> None:
    out = console()
    out.print(view(one))
    ended = [rollout for rollout in one.last if not rollout.is_open]
    if ended:
        out.print("\nbefore", style="dim")
        out.print(listed(ended))


def view(one: DeployedModel) -> Group:
    """Also drawn again and again, where somebody watches."""
    from rich.console import Group
    from rich.text import Text

    opened = one.rollout
    title = Text(one.model, "bold")
    if opened is None:
        serves = "nothing is run yet" if one.stable is None else f"{version(one.stable)} serves"
        title.append(f": {serves}; {one.strategy}, follows {one.alias}", "not bold")
    else:
        title.append(f": {version(opened.from_version)} -> {opened.to_version}, ", "not bold")
        title.append(f"{opened.strategy}, ", "not bold")
        title.append(standing_plain(opened), STATES.get(opened.state, ""))
        title.append(f" {step(one)}".rstrip(), "not bold")
    parts: list[Any] = [title, shares(one)]
    if opened is not None:
        seen = verdicts(opened)
        if seen:
            parts += ["", gates(seen)]
        parts.append("")
        facts = [("why", opened.why), ("asked", f"{opened.author}, {at(opened.started)}")]
        facts.append(("", opened.reason))
        parts += [Text.assemble((f"  {name:<7}", "dim"), text) for name, text in facts if text]
    waiting = [order for order in one.orders if order.done is None]
    for order in waiting:
        said = f"{order.kind} by {order.author}: {order.reason}"
        parts.append(Text.assemble(("  ordered ", "dim"), said))
    return Group(*parts)


def shares(one: DeployedModel) -> Table:
    """A line a version: its share of the calls as a bar, how it stands, its workers."""
    from rich.text import Text

    from headrace.client.rollout import WHOLE

    routed = {share.version: share.of_whole for share in one.route.shares} if one.route else {}
    run = {each.version: each for each in one.deployments}
    table = table_of("version", "calls", "", "", "workers")
    table.columns[2].justify = table.columns[4].justify = "right"
    newest = one.rollout.to_version if one.rollout else None
    for number in sorted(routed.keys() | run.keys()):
        share = routed.get(number, 0) / WHOLE
        shown = one.route is not None and one.route.shadow == number and number != 0
        bar = Text("█" * round(share * BAR), "cyan" if number == newest else "green")
        bar.append("░" * (BAR - round(share * BAR)), "dim")
        state = run[number].state if number in run else ""
        if shown and one.route:
            state = f"is shown {one.route.shadow_share * 100 / WHOLE:.4g} %"
        table.add_row(
            version(number), bar, f"{share * 100:.4g} %", state,
            str(run[number].count) if number in run else "-",
        )  # fmt: skip
    return table


def gates(seen: list[Verdict]) -> Table:
    table = table_of("gate", "new", "stable", "allowed", "calls", "")
    for index in (1, 2, 3, 4):
        table.columns[index].justify = "right"
    for one in seen:
        table.add_row(
            one.gate,
            figure(one.gate, one.new),
            figure(one.gate, one.stable),
            figure(one.gate, one.limit),
            f"{one.new_calls} : {one.stable_calls}",
            f"[{VERDICTS.get(one.verdict, '')}]{one.verdict}[/] {escaped(one.text)}",
        )
    return table


def listed(found: list[Rollout]) -> Table:
    table = table_of("rollout", "from", "to", "strategy", "ended", "", "who", "why")
    for one in found:
        table.add_row(
            one.id[:12],
            version(one.from_version),
            str(one.to_version),
            one.strategy,
            at(one.ended) if one.ended else "-",
            standing(one),
            escaped(one.author),
            escaped(one.why or one.reason),
        )
    return table


def show_told(told: RolloutTold) -> None:
    out, one = console(), told.rollout
    out.print(
        f"[bold]{one.model}[/] {version(one.from_version)} -> {one.to_version}, {one.strategy},"
        f" {standing(one)}: {escaped(one.reason)}"
    )
    table = table_of("when", "", "who", "what")
    for event in told.events:
        table.add_row(moment(event.at), event.kind, escaped(event.author), escaped(event.text))
    out.print(table)
    seen = verdicts(one)
    if seen:
        out.print()
        out.print(gates(seen))


def verdicts(one: Rollout) -> list[Verdict]:
    """What the gates saw last; what is no verdict among the figures is left out."""
    from headrace.client.rollout import Verdict

    found = []
    for name, value in one.figures.items():
        if isinstance(value, dict) and "verdict" in value:
            found.append(msgspec.convert({"gate": name} | value, Verdict))
    return found


def figure(gate: str, value: float | None) -> str:
    if value is None:
        return "-"
    if gate in ("errors", "refusals", "answers"):
        return f"{value:.2%}"
    return f"{value:.4g} ms" if gate == "latency" else f"{value:.3g}"


def step(one: DeployedModel) -> str:
    """ "step 2 of 3", of a canary that steps."""
    opened = one.rollout
    if opened is None or opened.state != "stepping" or opened.strategy != "canary":
        return ""
    return f"step {min(opened.step + 1, len(one.steps))} of {len(one.steps)}"


def standing(one: Rollout) -> str:
    return f"[{STATES.get(one.state, '')}]{standing_plain(one)}[/]"


def standing_plain(one: Rollout) -> str:
    return "paused" if one.paused else one.state


def version(number: int | None) -> str:
    """0: the settings' own files."""
    return "-" if number is None else str(number) if number else "own files"
