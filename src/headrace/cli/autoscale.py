"""`headrace autoscale`: the role, and its decisions explained."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.control import ControlUrl, TokenFile, reach
from headrace.cli.scale import Model, at, moment
from headrace.cli.told import (
    DEFAULT_FILE,
    MISUSED,
    Broker,
    File,
    Json,
    console,
    say_error,
    say_hint,
    say_json,
)

if TYPE_CHECKING:
    from headrace.client import Control
    from headrace.client.scale import Decision

PAGE = 200
MOST_READ = 4_000  # decisions that are looked through for moves: almost three days
HOUR_S = 3600.0

autoscale = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Counts that follow the traffic, and why.

    \b
      headrace autoscale explain ocr                 the last decisions, with what they were made of
      headrace autoscale explain ocr --at 09:05      what was decided then, and why
      headrace autoscale run -f headrace.toml        the role by itself

    `headrace up` starts the role where autoscale.mode is not "off". `headrace scale` is your hand
    on it; docs/architecture/10-capacity.md says how it decides.
    """,
)


@autoscale.command()
def run(file: File = DEFAULT_FILE, broker: Broker = None) -> None:
    """Run one autoscaler by itself, until SIGTERM.

    \b
      headrace autoscale run -f headrace.toml --broker nats://broker:4222

    Of two, on two machines, whoever comes first decides a minute. Without one, counts stay as they
    are.
    """
    from headrace import roles
    from headrace.settings import load

    settings = load(file, flags={"broker.url": broker})
    roles.run("autoscale", settings, roles.run_autoscale(settings))


@autoscale.command()
def explain(
    model: Model,
    last: Annotated[int, typer.Option(min=1, max=1000, help="So many, the newest.")] = 5,
    when: Annotated[
        str | None,
        typer.Option(
            "--at",
            help='What stood then: 09:05, "2026-11-22 09:05".',
            metavar="WHEN",
            show_default=False,
        ),
    ] = None,
    moves: Annotated[
        bool, typer.Option("--moves", help="Only those that moved the count.")
    ] = False,
    plot: Annotated[
        str | None,
        typer.Option(
            help="Draw arrivals, forecasts and counts.", metavar="FILE.png", show_default=False
        ),
    ] = None,
    hours: Annotated[int, typer.Option(min=1, max=192, help="So much of it is drawn.")] = 24,
    file: File = DEFAULT_FILE,
    url: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:
    """Say why a model has the count that it has: each decision, with what it was made of.

    \b
      headrace autoscale explain ocr
      headrace autoscale explain ocr --moves --last 20
      headrace autoscale explain ocr --at "2026-11-22 09:05" --last 1
      headrace autoscale explain ocr --plot ocr.png --hours 48

    One decision is made a minute. A forecast is settled when its time is over: then it says what
    came, too.
    """
    end = moment(when, past=True) if when else None
    with reach(file, url, token_file) as house:
        found = read(house, model, last, end, moves)
        if plot:
            draw(house, model, end or time.time(), hours, Path(plot))
    if json:
        say_json(found)
    else:
        show(model, found)


def read(house: Control, model: str, last: int, end: float | None, moves: bool) -> list[Decision]:
    """Oldest first."""
    from headrace.client.scale import decisions

    found: list[Decision] = []
    cursor: str | None = None
    looked, most = 0, MOST_READ if moves else last
    while len(found) < last and looked < most:
        size = PAGE if moves else min(PAGE, last - len(found))
        page = house.ask(decisions(model, size, at=None if cursor else end, cursor=cursor))
        looked += len(page.decisions)
        found += [one for one in page.decisions if not moves or one.count != one.asked]
        cursor = page.next
        if not cursor:
            break
    return found[:last][::-1]


def show(model: str, found: list[Decision]) -> None:
    out = console()
    if not found:
        out.print(f"{model}: no decision yet; is autoscale.mode other than off?", markup=False)
        return
    for one in found:
        out.print(f"[bold]{at(one.at)}[/] ", end="")
        out.print(one.reason, markup=False, soft_wrap=True)
        for name, text in facts(one):
            out.print(f"  [dim]{name:<10}[/]", end="")
            out.print(text, markup=False, soft_wrap=True)


#: What the figures of a decision are, for a person. A rate is calls a second.
FIGURES = {
    "asked": "asked for before {:g}", "ready": "ready {:g}", "waiting": "waiting {:.0f}",
    "rate": "{:.2f} calls/s came", "guard_rate": "the guard sizes for {:.2f} calls/s",
    "foretold": "{:.2f} calls/s are forecast from L to L+T",
    "highest": "{:.2f} at the most up to L+T", "margin": "margin {:.2f}",
    "trend": "trend {:.2f}", "season": "season {:.2f}",
}  # fmt: skip


def facts(one: Decision) -> list[tuple[str, str]]:
    told = [FIGURES.get(name, name + " {:g}").format(n) for name, n in one.inputs.items()]
    found = [("of", ", ".join(told))]
    found += [("clamped", clamp) for clamp in one.clamps]
    if one.zones:
        found.append(("zones", ", ".join(f"{zone} {n}" for zone, n in one.zones.items())))
    if one.foretold is not None:
        found.append(("forecast", forecast(one)))
    if one.applied != "yes":
        found.append(("done", one.applied or "not known"))
    return [(name, text) for name, text in found if text]


def forecast(one: Decision) -> str:
    assert one.foretold is not None
    said = f"{one.foretold / 60:.2f} calls/s at the most"
    if one.from_minute is not None and one.to_minute is not None:
        clock = [time.strftime("%H:%M", time.localtime(m * 60)) for m in
                 (one.from_minute, one.to_minute)]  # fmt: skip
        said += f" for {clock[0]} to {clock[1]}"
    if one.came is None:
        return f"{said}; not over yet"
    if one.foretold <= 0:
        return f"{said}; {one.came / 60:.2f} came"
    error = one.came / one.foretold - 1
    return f"{said}; {one.came / 60:.2f} came, {abs(error):.0%} {'above' if error > 0 else 'below'}"


def draw(house: Control, model: str, end: float, hours: int, path: Path) -> None:
    try:
        from headrace.cli.decision_plot import draw_decisions
    except ModuleNotFoundError as error:
        say_error(f"--plot: {error.name} is not installed")
        say_hint("pip install 'headrace[plots]'")
        raise typer.Exit(MISUSED) from None
    from headrace.client.scale import minutes

    since = end - hours * HOUR_S
    found = read(house, model, hours * 60, end, False)
    seen: dict[str, Any] = house.ask(minutes(model, since, end))
    draw_decisions(model, seen, [one for one in found if one.at >= since], path)
