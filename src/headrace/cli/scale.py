"""`headrace scale`: how many workers each model has, and a person's hand on it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.control import ControlUrl, TokenFile, reach
from headrace.cli.table import escaped, table_of
from headrace.cli.told import (
    DAY_S,
    DEFAULT_FILE,
    File,
    Json,
    console,
    plural,
    say_hint,
    say_json,
    seconds,
)

if TYPE_CHECKING:
    from headrace.client.scale import Override, OverrideSet, ScaledModel

MOST_S = 30 * DAY_S

scale = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""How many workers each model has, and your hand on it.

    \b
      headrace scale show
      headrace scale set ocr 40 --for 2h --reason "load test"
      headrace scale floor ocr 12 --until 18:00 --reason "the sale"
      headrace scale clear ocr

    An override stands above forecast, time table and the policy's bounds until it ends: after four
    hours, if you do not say. Who set it and why is kept, and shown with every decision.
    """,
)

Model = Annotated[str, typer.Argument(help="As in `headrace scale show`.", metavar="MODEL")]
Count = Annotated[int, typer.Argument(help="Workers.", metavar="COUNT", min=0, max=100_000)]
Why = Annotated[str, typer.Option("--reason", help="For those who ask later.", metavar="TEXT")]
For = Annotated[
    str | None,
    typer.Option(
        "--for", help="It ends after that: 30m, 2h, 7d.", metavar="TIME", show_default="4h"
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        help='It ends then: 18:00, "2026-11-27 18:00".', metavar="WHEN", show_default=False
    ),
]


def hand(kind: str, help: str) -> None:
    """The command of that kind: all take the same."""

    @scale.command(kind, help=help)
    def ask(
        model: Model,
        count: Count,
        reason: Why,
        for_: For = None,
        until: Until = None,
        file: File = DEFAULT_FILE,
        url: ControlUrl = "",
        token_file: TokenFile = "",
        json: Json = False,
    ) -> None:
        from headrace.client.scale import override

        if for_ and until:
            raise typer.BadParameter("give --for or --until, not both")
        for_s = seconds(for_, MOST_S) if for_ else None
        until_s = moment(until) if until else None
        with reach(file, url, token_file) as house:
            done = house.ask(override(model, kind, count, reason, for_s=for_s, until=until_s))
        if json:
            say_json(done)
        else:
            tell(done)


hand(
    "set",
    """Have exactly so many workers, whatever the traffic.

    \b
      headrace scale set ocr 40 --for 2h --reason "load test"
      headrace scale set ocr 0 --until "2026-11-27 06:00" --reason "closed"
    """,
)
hand(
    "floor",
    """Have at least so many workers; the traffic may ask for more.

    \b
      headrace scale floor ocr 12 --until 18:00 --reason "the sale begins at ten"
    """,
)
hand(
    "cap",
    """Have at most so many workers, also where calls wait for it.

    \b
      headrace scale cap ocr 4 --for 1d --reason "GPUs are lent to training"
    """,
)


@scale.command()
def clear(
    model: Model,
    id: Annotated[
        str, typer.Argument(help="That one alone.", metavar="ID", show_default="all")
    ] = "",
    file: File = DEFAULT_FILE,
    url: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:
    """Take back the overrides of a model, or one of them.

    \b
      headrace scale clear ocr
      headrace scale clear ocr 01a2040df71fd3fbce42115a703e8fe3
    """
    from headrace.client.scale import clear as take_back

    with reach(file, url, token_file) as house:
        done = house.ask(take_back(model, id))
    if json:
        say_json(done)
        return
    for one in done:
        console().print(f"taken back: {said(one)}", markup=False, soft_wrap=True)
    if not done:
        console().print(f"{model} has no override", markup=False)


@scale.command()
def show(
    model: Annotated[
        str, typer.Argument(help="That one, with all of it.", metavar="MODEL", show_default="all")
    ] = "",
    file: File = DEFAULT_FILE,
    url: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:
    """Show counts, overrides and the last decision.

    \b
      headrace scale show
      headrace scale show ocr
      headrace scale show --json | jq '.[] | {model, count, ready}'
    """
    from headrace.client.scale import overrides, scaled, scaled_one

    with reach(file, url, token_file) as house:
        found = [house.ask(scaled_one(model))] if model else house.ask(scaled())
        history = house.ask(overrides(model, 5)) if model else []
    if json:
        say_json(found[0] if model else found)
    elif model:
        show_one(found[0], history)
    else:
        show_all(found)


def tell(done: OverrideSet) -> None:
    one = done.override
    console().print(said(one), markup=False, soft_wrap=True)
    console().print(f"id {one.id}", style="dim", markup=False)
    for warning in done.warnings:
        say_hint(warning)


KINDS = {"set": "exactly", "floor": "at least", "cap": "at most"}


def said(one: Override) -> str:
    left = one.expires - time.time()
    ends = f"until {at(one.expires)}"
    if one.cleared_at is None and left > 0:
        ends += f" ({span(left)} from now)"
    bound = KINDS.get(one.kind, one.kind)
    return f"{one.model}: {bound} {one.count} {ends}, by {one.author}: {one.reason}"


def show_all(found: list[ScaledModel]) -> None:

    out = console()
    if not found:
        out.print("no model is scaled: write [models.NAME.scale] into the settings", markup=False)
        return
    counts = ("count", "ready", "least", "most")
    table = table_of(
        "model", "mode", *counts, "override", "last decision",
        right=counts, whole=("model", "mode"),
    )  # fmt: skip
    for one in found:
        hands = "; ".join(f"{hand.kind} {hand.count}, {hand.author}" for hand in one.overrides)
        why = one.decision.reason if one.decision else "-"
        alarms = [f"[red]{escaped(alarm.name)}[/] " for alarm in one.alarms]
        table.add_row(
            escaped(one.model), one.mode, number(one.count), number(one.ready), str(one.least),
            str(one.most), escaped(hands or "-"), "".join(alarms) + escaped(why),
        )  # fmt: skip
    out.print(table)


def show_one(one: ScaledModel, history: list[Override]) -> None:
    out = console()
    ready = "" if one.ready is None else f", {one.ready:g} ready"
    out.print(f"[bold]{one.model}[/]: count {number(one.count)}{ready}", highlight=False)
    lines = [("bounds", f"{one.least} to {one.most}"), ("mode", one.mode)]
    lines += [("override", said(hand)) for hand in one.overrides]
    lines += [("alarm", f"{a.name} since {at(a.began)}: {a.detail}") for a in one.alarms]
    if one.decision:
        lines.append(("decided", f"{at(one.decision.at)}, {one.decision.reason}"))
    in_force = {hand.id for hand in one.overrides}
    lines += [("before", ended(hand)) for hand in history if hand.id not in in_force]
    for name, text in lines:
        out.print(f"  [dim]{name:<10}[/]", end="")
        out.print(text, markup=False, soft_wrap=True)


def ended(one: Override) -> str:
    by = f", taken back by {one.cleared_by} {at(one.cleared_at)}" if one.cleared_at else ""
    return f"{said(one)}{by}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def at(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))


def span(seconds_: float) -> str:
    for size, unit in ((86_400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds_ >= 1.5 * size:
            return plural(round(seconds_ / size), unit)
    return plural(round(seconds_), "second")


def moment(text: str, *, past: bool = False) -> float:
    """ "18:00" (the next one, or the last one), "2026-11-27 18:00" of this machine's clock, or with
    a zone -> Unix time. Raises BadParameter."""
    now = datetime.now().astimezone()
    try:
        if len(text) <= 5:
            clock = datetime.strptime(text, "%H:%M")
            found = now.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
            day_s = 0.0
            if past and found > now:
                day_s = -DAY_S
            elif not past and found <= now:
                day_s = DAY_S
            return found.timestamp() + day_s
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f'{text!r}: expected a time such as 18:00 or "2026-11-27 18:00"'
        ) from None
