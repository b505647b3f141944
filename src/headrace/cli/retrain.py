"""`headrace retrain`: the role that trains models again, and what it did and why."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.table import escaped, table_of
from headrace.cli.told import (
    DEFAULT_FILE,
    MISUSED,
    Broker,
    File,
    Json,
    console,
    say_error,
    say_json,
)

if TYPE_CHECKING:
    from headrace.retrain.decide import Start, Wait
    from headrace.retraining import Retrain, Training
    from headrace.settings import Settings

COLOURS = {"asked": "blue", "registered": "green", "promoted": "green", "out": "yellow",
           "failed": "red"}  # fmt: skip
Models = Annotated[
    list[str] | None,
    typer.Argument(help="Of these alone.", metavar="MODEL...", show_default="all"),
]

retrain = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Models that are trained again by themselves, and why.

    \b
      headrace retrain show wine      what it waits for, and what was trained before
      headrace retrain run            the role by itself

    `headrace up` starts the role where a model has [models.NAME.retrain].
    """,
)


@retrain.command()
def run(file: File = DEFAULT_FILE, broker: Broker = None) -> None:
    """Run one retrainer by itself, until SIGTERM.

    \b
      headrace retrain run -f headrace.toml --broker nats://broker:4222

    It also runs what `pipeline.seam` was asked for. One a house: two would do some work twice.
    """
    from headrace import roles
    from headrace.settings import load

    settings = load(file, flags={"broker.url": broker})
    roles.run("retrain", settings, roles.run_retrain(settings, file))


@retrain.command()
def show(
    models: Models = None,
    last: Annotated[int, typer.Option(min=1, max=200, help="So many, the newest.")] = 5,
    file: File = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Say what each model waits for, and what came of those that were trained before.

    \b
      headrace retrain show
      headrace retrain show wine --last 20 --json | jq -r '.wine.trainings[].outcome'

    It reads the house's database, which need not be up.
    """
    from headrace.settings import load

    settings = load(file)
    policies = {name: m.retrain for name, m in settings.models.items() if m.retrain}
    unknown = [name for name in models or [] if name not in policies]
    if unknown or not policies:
        known = ", ".join(policies) or "none: the settings have no [models.NAME.retrain]"
        say_error(f"model {', '.join(unknown) or '(none)'}: expected one of {known}")
        raise typer.Exit(MISUSED)
    wanted = {name: policies[name] for name in models or policies}
    found = asyncio.run(_read(settings, wanted))
    if json:
        say_json({
            name: {"next": now._asdict(), "trainings": past[:last]}
            for name, (now, past) in found.items()
        })  # fmt: skip
        return
    for name, (now, past) in found.items():
        _show(name, wanted[name], now, past[:last])


Found = tuple["Start | Wait", "list[Training]"]


async def _read(settings: Settings, policies: dict[str, Retrain]) -> dict[str, Found]:
    """Raises Unavailable."""
    from headrace.retrain.decide import Raised, decide
    from headrace.retrain.role import rolling
    from headrace.store.deploying import Deploying
    from headrace.store.engine import Database
    from headrace.store.migrate import migrate
    from headrace.store.retraining import Trainings
    from headrace.store.scaling import Scaling

    database = Database(settings.database_url(), timeout_s=settings.database.timeout_s)
    found: dict[str, Found] = {}
    try:
        await migrate(database)
        for name, policy in policies.items():
            past = await Trainings(database).of(name)
            alarms = await Scaling(database).alarms(name, open_only=True)
            rolled = await Deploying(database).rollouts(name, 1)
            decided = decide(
                policy,
                time.time(),
                past,
                [Raised(each.id, each.name, each.began, each.detail) for each in alarms],
                since=time.time(),
                **rolling(rolled[0] if rolled else None),
            )
            found[name] = decided, past
    finally:
        await database.close()
    return found


def _show(name: str, policy: Retrain, now: Start | Wait, past: list[Training]) -> None:
    from headrace.retraining import clock

    out, budget = console(), policy.budget
    out.print(f"[bold]{name}[/]  {policy.pipeline}, then {policy.then}")
    when = [f"at {policy.cron!r} {policy.zone}"] if policy.cron else []
    when += [f"on alarm {', '.join(policy.alarms)}"] if policy.alarms else []
    out.print(f"  [dim]when    [/] {'; '.join(when)}", highlight=False)
    spent = f"{budget.runs} runs and {budget.minutes:g} minutes in {budget.days:g} days"
    out.print(f"  [dim]at most [/] {spent}", highlight=False)
    out.print("  [dim]now     [/] ", end="")
    out.print(now.reason, markup=False, soft_wrap=True)
    if not past:
        return
    told = ("asked for", "state", "run")
    table = table_of(*told, "why, and what came of it", whole=told)
    table.padding = (0, 2, 0, 2)
    for each in past:
        said = f"{each.reason} -> {each.outcome}" if each.outcome else each.reason
        table.add_row(
            clock(each.at), f"[{COLOURS[each.state]}]{each.state}[/]", each.run, escaped(said)
        )
    out.print(table)
