"""`headrace train`: one run of a pipeline, here and now, step by step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.told import (
    DEFAULT_FILE,
    MISUSED,
    REFUSED,
    File,
    Json,
    say_error,
    say_hint,
    say_json,
)

if TYPE_CHECKING:
    from headrace.pipeline.place import Place
    from headrace.pipeline.run import Run
    from headrace.settings import Settings

Tracking = Annotated[
    str,
    typer.Option(
        envvar="HEADRACE_TRACKING",
        help="Where runs are written down.",
        metavar="mlflow://HOST:PORT|file",
        show_default="where versions are",
    ),
]
RegistryUrl = Annotated[
    str,
    typer.Option("--registry", help="Overrides registry.url.", metavar="URL", show_default=False),
]


def train(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="The class, looked up beside the settings file.", metavar="MODULE:PIPELINE"
        ),
    ],
    params: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", help="A parameter; repeat it.", metavar="KEY=VALUE"),
    ] = None,
    file: File = DEFAULT_FILE,
    tracking: Tracking = "",
    registry: RegistryUrl = "",
    json: Json = False,
) -> None:
    """Run a pipeline, from data to a registered version.

    \b
      headrace train pipeline:Wines
      headrace train pipeline:Wines -p seed=3 -p c=0.1
      headrace train pipeline:Wines --json | jq .metrics

    A version is registered where all gates are open. A run that was killed, or whose step raised,
    goes on behind what has finished: `headrace runs resume`.

    The exit status is 1 where a step failed or a gate is shut.
    """
    from headrace.cli.run_view import Shown
    from headrace.pipeline.durable import Engine

    settings = settled(file)
    given = pairs(params or [])
    with misuse_told(), placed(settings, tracking, registry) as at:
        _tell_of_others(at, pipeline)
        shown = Shown(quiet=json)
        try:
            with shown, Engine(at, shown).open() as engine:
                run = engine.run(pipeline, Path(settings.folder), given)
        except KeyboardInterrupt:
            if shown.run:
                say_hint(f"interrupted; headrace runs resume {shown.run}")
            raise
    conclude(run, json)


def settled(file: str) -> Settings:
    """The settings; where nobody wrote any the defaults, with the state below this folder."""
    from headrace.settings import load

    return load(None if file == DEFAULT_FILE and not Path(file).exists() else file)


@contextlib.contextmanager
def placed(settings: Settings, tracking: str, registry: str = "") -> Iterator[Place]:
    """Where the house's runs are. Raises SettingsError, UnknownScheme."""
    from headrace.pipeline.place import place

    at = place(settings, tracking=tracking, registry=registry)
    with contextlib.closing(at.tracker):
        yield at


def pairs(given: list[str]) -> dict[str, Any]:
    """ "seed=3" -> {"seed": "3"}; lists and objects are JSON. Raises BadParameter."""
    import msgspec

    found: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise typer.BadParameter(f"{text!r}: expected KEY=VALUE", param_hint="-p")
        found[name] = value
        if value[:1] in ("[", "{"):
            try:
                found[name] = msgspec.json.decode(value)
            except msgspec.DecodeError as error:
                raise typer.BadParameter(f"{text!r}: not JSON: {error}", param_hint="-p") from None
    return found


@contextlib.contextmanager
def misuse_told() -> Iterator[None]:
    """Ends the command with one line where a pipeline, a parameter or a run is not there."""
    from headrace.pipeline.entry import CodeChanged, RunError
    from headrace.pipeline.target import TargetError
    from headrace.pipeline.track import RunUnknown

    try:
        yield
    except (RunError, TargetError, RunUnknown) as error:
        say_error(str(error))
        if isinstance(error, CodeChanged):
            say_hint("go on with the code of now: --changed; or begin a new run: headrace train")
        raise typer.Exit(MISUSED) from None


def _tell_of_others(at: Place, target: str) -> None:
    from headrace.pipeline.run import seen

    for run in at.tracker.runs(20):
        if run.target == target and seen(run) == "interrupted":
            say_hint(f"run {run.id} was interrupted at {run.step}: headrace runs resume {run.id}")
            return


def conclude(run: Run, json: bool) -> None:
    """What came of it, and the exit status."""
    from headrace.cli.run_tables import show_end

    if json:
        say_json(run)
    else:
        show_end(run)
    if run.state != "succeeded":
        raise typer.Exit(REFUSED)
