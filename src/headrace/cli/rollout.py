"""`headrace rollout`: new versions to their callers, step by step, and back."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.control import ControlUrl, TokenFile, reach
from headrace.cli.told import DEFAULT_FILE, File, Json, console, say_hint, say_json

if TYPE_CHECKING:
    from headrace.client import Control

STRATEGIES = ("canary", "rolling", "blue-green", "shadow")
WATCH_S = 1.0

rollout = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""New versions to their callers, and back.

    \b
      headrace promote iris 4 --reason "better on the night shift"    starts one, too
      headrace rollout show iris --watch       who has the calls, what the gates see
      headrace rollout pause iris --reason "a closer look"
      headrace rollout promote iris --reason "seen enough"
      headrace rollout rollback iris --reason "complaints"
      headrace rollout history iris

    A version whose workers break, or that a gate finds worse than production, is rolled back by
    itself. How is set in [models.NAME.deploy].
    """,
)

Model = Annotated[str, typer.Argument(help="As in `headrace rollout show`.", metavar="MODEL")]
Why = Annotated[str, typer.Option("--reason", help="For those who ask later.", metavar="TEXT")]
Wait = Annotated[
    bool, typer.Option("--wait", help="Until it is done; status 1 where it was rolled back.")
]


@rollout.command()
def start(
    model: Model,
    version: Annotated[int, typer.Argument(help="Of the registry.", metavar="VERSION", min=1)],
    reason: Why,
    strategy: Annotated[
        str,
        typer.Option(
            help="In place of the settings'.", metavar="|".join(STRATEGIES), show_default=False
        ),
    ] = "",
    wait: Wait = False,
    file: File = DEFAULT_FILE,
    url: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:
    """Roll a version out, also one that was rolled back before.

    \b
      headrace rollout start iris 4 --reason "better on the night shift" --wait
      headrace rollout start iris 4 --strategy shadow --reason "what would it have said?"
      headrace rollout start iris 3 --strategy blue-green --reason "back, at once"

    canary: a few calls, then more, compared with production. rolling: worker by worker.
    blue-green: at full strength first, then all at once. shadow: it is shown calls, and nobody gets
    its answers. But for shadow, the alias is moved to it: the registry says what is in production.
    """
    if strategy and strategy not in STRATEGIES:
        raise typer.BadParameter(
            f"{strategy!r}: expected {', '.join(STRATEGIES)}", param_hint="--strategy"
        )
    with reach(file, url, token_file) as house:
        order(house, model, "start", reason, json, wait, version=version, strategy=strategy)


@rollout.command()
def pause(
    model: Model,
    reason: Why,
    file: File = DEFAULT_FILE,
    url: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:
    """Keep the open rollout where it is.

    \b
      headrace rollout pause iris --reason "a closer look at the night shift"

    The gates still watch, and may roll it back.
    """
    with reach(file, url, token_file) as house:
        order(house, model, "pause", reason, json)


@rollout.command()
def resume(
    model: Model,
    reason: Why,
    file: File = DEFAULT_FILE,
    url: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:
    """Let a paused rollout go on.

    \b
      headrace rollout resume iris --reason "nothing found"
    """
    with reach(file, url, token_file) as house:
        order(house, model, "resume", reason, json)


@rollout.command()
def promote(
    model: Model,
    reason: Why,
    wait: Wait = False,
    file: File = DEFAULT_FILE,
    url: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:
    """Give the new version all calls, now.

    \b
      headrace rollout promote iris --reason "seen enough" --wait

    Without the steps that are left. The old version stands by for a while (deploy.keep_s).
    """
    with reach(file, url, token_file) as house:
        order(house, model, "promote", reason, json, wait)


@rollout.command()
def rollback(
    model: Model,
    reason: Why,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is over.")] = False,
    file: File = DEFAULT_FILE,
    url: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:
    """Give all calls back to the old version.

    \b
      headrace rollout rollback iris --reason "complaints"
      headrace rollout rollback iris --reason "complaints" --wait

    Of the open rollout. Where none is open: of the last one that was done, by starting the version
    before it again, at once (blue-green).
    """
    with reach(file, url, token_file) as house:
        order(house, model, "rollback", reason, json, wait)


@rollout.command()
def show(
    model: Annotated[
        str, typer.Argument(help="That one, with all of it.", metavar="MODEL", show_default="all")
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again, until Ctrl-C.")] = False,
    file: File = DEFAULT_FILE,
    url: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:
    """Show who has the calls, and what the gates see.

    \b
      headrace rollout show
      headrace rollout show iris --watch
      headrace rollout show iris --json | jq .rollout.figures
    """
    from headrace.cli import rollout_tables as tables
    from headrace.client.rollout import deployed, deployed_one

    if watch and (json or not model):
        raise typer.BadParameter("--watch is of one MODEL, and for people: without --json")
    with reach(file, url, token_file) as house:
        if watch:
            watched(house, model)
            return
        if model:
            one = house.ask(deployed_one(model))
            say_json(one) if json else tables.show_one(one)
        else:
            found = house.ask(deployed())
            say_json(found) if json else tables.show_all(found)


@rollout.command()
def history(
    model: Model,
    id: Annotated[
        str,
        typer.Argument(
            help="What happened in that one; its first characters do.", metavar="ID",
            show_default="all rollouts",
        ),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=200, help="The newest so many.")] = 20,
    file: File = DEFAULT_FILE,
    url: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:  # fmt: skip
    """List the rollouts of a model, or tell of one.

    \b
      headrace rollout history iris
      headrace rollout history iris 01a2040df71f
      headrace rollout history iris --json | jq -r '.[] | [.to_version, .state, .why] | @tsv'
    """
    from headrace.cli import rollout_tables as tables
    from headrace.client.rollout import rollout as told
    from headrace.client.rollout import rollouts

    with reach(file, url, token_file) as house:
        found = house.ask(rollouts(model, 200 if id else limit)).rollouts
        if id:
            fits = [one for one in found if one.id.startswith(id)]
            if len(fits) != 1:
                raise typer.BadParameter(
                    f"{id!r}: expected the id of one rollout of {model}", param_hint="ID"
                )
            one = house.ask(told(model, fits[0].id))
            say_json(one) if json else tables.show_told(one)
            return
    if json:
        say_json(found)
    elif found:
        console().print(tables.listed(found))
    else:
        console().print(f"{model} has had no rollout", markup=False)


def order(
    house: Control,
    model: str,
    kind: str,
    reason: str,
    json: bool,
    wait: bool = False,
    *,
    version: int | None = None,
    strategy: str = "",
) -> None:
    from headrace.cli.rollout_wait import follow
    from headrace.client import rollout as asks

    if wait and json:
        raise typer.BadParameter("--wait is for people: ask `rollout show --json` instead")
    before: frozenset[str] = frozenset()
    if wait:
        view = house.ask(asks.deployed_one(model))
        opened = [view.rollout] if view.rollout else []
        seen = opened if kind != "start" and opened else [*opened, *view.last]
        before = frozenset(one.id for one in seen)
    done = house.ask(asks.order(model, kind, reason, version=version, strategy=strategy or None))
    if json:
        say_json(done)
        return
    moved = done.promotion
    if moved and moved.before != moved.to:
        said = f"{moved.alias} of {model}: {moved.before or 'none'} -> {moved.to or 'none'}"
        console().print(said, markup=False)
    of = "" if done.order.version is None else f" of {done.order.version or 'its own files'}"
    console().print(f"{model}: {done.order.kind}{of} is ordered", markup=False)
    if wait:
        follow(house, model, done.order, before)
    else:
        say_hint(f"headrace rollout show {model} --watch")


def watched(house: Control, model: str) -> None:
    """At a terminal in place; elsewhere whenever it has changed."""
    from rich.live import Live

    from headrace.cli import rollout_tables as tables
    from headrace.client.rollout import DeployedModel, deployed_one

    one = house.ask(deployed_one(model))
    if sys.stdout.isatty():
        with Live(tables.view(one), console=console(), auto_refresh=False) as drawn:
            while True:
                time.sleep(WATCH_S)
                one = house.ask(deployed_one(model))
                drawn.update(tables.view(one), refresh=True)
    shown: DeployedModel | None = None
    while True:
        if one != shown:
            console().print(tables.view(one))
            sys.stdout.flush()
        shown = one
        time.sleep(WATCH_S)
        one = house.ask(deployed_one(model))
