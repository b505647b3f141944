"""`headrace monitor`: the role that watches the models, and what it has seen."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.table import escaped
from headrace.cli.told import (
    DEFAULT_FILE,
    MISUSED,
    REFUSED,
    Broker,
    File,
    Json,
    console,
    must_agree,
    say_error,
    say_hint,
    say_json,
)

if TYPE_CHECKING:
    from headrace.monitor.shelf import Shelf, State
    from headrace.monitoring import Monitor
    from headrace.settings import Settings

Model = Annotated[str, typer.Argument(help="A model that is watched.", metavar="MODEL")]
COLOURS = {"changed": "red", "bad": "red", "same": "green", "good": "green", "few": "dim"}

monitor = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""What models get and say, against before and against labels.

    \b
      headrace monitor show wine                     drift and quality, in words
      headrace monitor report wine -o wine.html      the same with plots
      headrace monitor forget wine                   all that was kept of its calls
      headrace monitor run                           the role by itself

    `headrace up` starts the role where a model has [models.NAME.monitor].
    """,
)


@monitor.command()
def run(file: File = DEFAULT_FILE, broker: Broker = None) -> None:
    """Run one monitor by itself, until SIGTERM.

    \b
      headrace monitor run -f headrace.toml --broker nats://broker:4222
    """
    from headrace import roles
    from headrace.settings import load

    settings = load(file, flags={"broker.url": broker})
    roles.run("monitor", settings, roles.run_monitor(settings))


@monitor.command()
def show(model: Model, file: File = DEFAULT_FILE, json: Json = False) -> None:
    """Say what was found in the last look at a model.

    \b
      headrace monitor show wine
      headrace monitor show wine --json | jq -r '.drift[].fields[] | [.field, .psi] | @tsv'

    It reads the house's objects, which need not be up.
    """
    settings, _ = _watched(file, model)
    state = asyncio.run(_shelf(settings, model).state())
    if state is None:
        _nothing_yet(model)
    elif json:
        say_json(state)
    else:
        _show(state)


@monitor.command()
def report(
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to.", metavar="FILE")],
    hours: Annotated[float, typer.Option(min=1, help="So far back.")] = 168.0,
    file: File = DEFAULT_FILE,
) -> None:
    """Write a report with plots: one HTML file that needs nothing else.

    \b
      headrace monitor report wine -o wine.html
      headrace monitor report wine -o wine.html --hours 24
    """
    settings, policy = _watched(file, model)
    page = asyncio.run(_report(settings, model, policy, time.time() - hours * 3600))
    if page is None:
        _nothing_yet(model)
        return
    out.write_text(page, encoding="utf-8")
    typer.echo(f"{out}: {len(page) / 1024:.0f} KB")


@monitor.command()
def forget(
    model: Model,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    file: File = DEFAULT_FILE,
) -> None:
    """Remove all that was kept of a model's calls: samples, sketches, references, labels.

    \b
      headrace monitor forget wine

    What is compared with then are the next calls of each version.
    """
    settings, _ = _watched(file, model)
    must_agree(f"Forget all samples and labels of {model}?", yes)
    asyncio.run(_forget(settings, model))
    typer.echo(f"{model}: forgotten")


def _watched(file: str, model: str) -> tuple[Settings, Monitor]:
    """Ends the command where the model is not."""
    from headrace.settings import load

    settings = load(file)
    policies = {name: m.monitor for name, m in settings.models.items() if m.monitor}
    if model not in policies:
        known = ", ".join(policies) or "none: the settings have no [models.NAME.monitor]"
        say_error(f"model {model}: expected one of {known}")
        raise typer.Exit(MISUSED)
    return settings, policies[model]


def _nothing_yet(model: str) -> None:
    say_error(f"{model}: nothing was looked at yet")
    say_hint("the role looks every models.NAME.monitor.every_s; `headrace up` starts it")
    raise typer.Exit(REFUSED)


def _shelf(settings: Settings, model: str) -> Shelf:
    try:
        from headrace.monitor.shelf import Shelf
        from headrace.store.places import place
    except ImportError as error:
        hint = "install it with: pip install 'headrace[monitoring]'"
        raise ImportError(f"monitoring needs {error.name}; {hint}") from error
    return Shelf(place("objects.url", settings.objects_url(), settings.objects.timeout_s), model)


async def _report(settings: Settings, model: str, policy: Monitor, since: float) -> str | None:
    from headrace.monitor.gather import gather
    from headrace.monitor.report import report as written
    from headrace.store.door import StoreDoor
    from headrace.store.feedback import Feedback
    from headrace.store.scaling import Scaling

    shelf, door = _shelf(settings, model), StoreDoor(settings)
    state = await shelf.state()
    if state is None:
        return None
    try:
        database = (await door.open()).database
        labels = await Feedback(database).since(model, since, 1_000_000)
        opened = await Scaling(database).alarms(model, open_only=True)
    finally:
        await door.close()
    alarms = [(a.name, a.began, a.detail) for a in opened if a.name in ("drift", "quality")]
    seen = await gather(shelf, policy, state, labels, since)
    return written(state, policy, seen, alarms)


async def _forget(settings: Settings, model: str) -> None:
    from headrace.store.door import StoreDoor
    from headrace.store.feedback import Feedback

    door = StoreDoor(settings)
    try:
        await Feedback((await door.open()).database).remove(model)
    finally:
        await door.close()
    await _shelf(settings, model).forget()


def _show(state: State) -> None:
    from rich.table import Table

    from headrace.retraining import clock

    out = console()
    out.print(
        f"[bold]{state.model}[/]  {clock(state.at)}, {state.samples:,} samples of "
        f"{state.calls:,} calls, {state.labels:,} labels"
    )
    said: list[tuple[str, Any]] = [("drift", each) for each in state.drift]
    said += [("quality", each) for each in state.quality]
    for kind, each in said:
        colour = COLOURS[each.verdict]
        out.print(f"  {kind:8}[{colour}]{each.verdict:8}[/]{escaped(each.text)}", soft_wrap=True)
    for verdict in state.drift:
        if not verdict.fields:
            continue
        table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
        table.title = f"version {verdict.version} {verdict.segment}".rstrip()
        for name in ("field", "", "PSI", "KS", "missing", "before", "values"):
            table.add_column(name, justify="left" if name in ("field", "") else "right")
        for field in verdict.fields:
            table.add_row(
                escaped(field.field),
                f"[{COLOURS[field.verdict]}]{field.verdict}[/]",
                "" if field.psi is None else f"{field.psi:.3f}",
                "" if field.ks is None else f"{field.ks:.3f}",
                f"{field.missing:.1%}",
                f"{field.missing_before:.1%}",
                f"{field.values:,}",
            )
        out.print(table)
