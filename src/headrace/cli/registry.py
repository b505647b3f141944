"""`headrace registry`: the versions of models, and which is where."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from headrace.cli.control import ControlUrl, TokenFile, reach
from headrace.cli.told import DEFAULT_FILE, File, Json, console, say_error, say_json

if TYPE_CHECKING:
    from headrace.registry.audit import Entry
    from headrace.registry.choose import Desk
    from headrace.registry.port import Registry
    from headrace.registry.version import Version
    from headrace.settings import Settings

T = TypeVar("T")

registry = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""The versions of models, and which is where.

    \b
      headrace registry list                   models, and what is in production
      headrace registry list iris              its versions
      headrace registry show iris 3            what it is made of, and by what run
      headrace registry register folder/       a new version: inspected, never run
      headrace registry log iris               who moved an alias, when, and why
      headrace registry serve                  an MLflow server on this machine
      headrace registry hook                   have it tell the house what moves

    Without registry.url in the settings it is a folder in house.state, and needs nothing.
    `headrace promote` puts a version into production.
    """,
)

Registry_ = Annotated[
    str,
    typer.Option(
        "--registry",
        help="Overrides registry.url: file:///folder, mlflow://host:port.",
        metavar="URL",
        show_default=False,
    ),
]
Model = Annotated[str, typer.Argument(help="As in `headrace registry list`.", metavar="MODEL")]


@registry.command("list")
def list_(
    model: Annotated[
        str, typer.Argument(help="Its versions.", metavar="MODEL", show_default="all models")
    ] = "",
    file: File = DEFAULT_FILE,
    url: Registry_ = "",
    json: Json = False,
) -> None:
    """List the models, or the versions of one, the newest first.

    \b
      headrace registry list
      headrace registry list iris --json | jq -r '.[] | [.number, .digest] | @tsv'
    """
    from headrace.cli import registry_tables as tables

    if not model:
        state = at(file, url, lambda desk: desk.registry.state())
        say_json(state) if json else tables.show_models(state)
        return
    versions, aliases = at(file, url, lambda desk: of_model(desk.registry, model))
    if json:
        say_json([tables.plain(version, aliases) for version in versions])
    else:
        tables.show_versions(model, versions, aliases)


@registry.command()
def show(
    model: Model,
    version: Annotated[
        str, typer.Argument(help="A number, or an alias.", metavar="VERSION")
    ] = "production",
    file: File = DEFAULT_FILE,
    url: Registry_ = "",
    json: Json = False,
) -> None:
    """Show one version: its digest, its files, what its maker says of it.

    \b
      headrace registry show iris              the one in production
      headrace registry show iris 3
      headrace registry show iris canary --json | jq .manifest.metrics
    """
    from headrace.cli import registry_tables as tables

    found, aliases = at(file, url, lambda desk: named(desk.registry, model, version))
    if json:
        say_json(tables.plain(found, aliases))
    else:
        tables.show_version(found, aliases)


@registry.command()
def register(
    folder: Annotated[
        Path, typer.Argument(help="With a manifest.json in it.", metavar="FOLDER|ARCHIVE")
    ],
    file: File = DEFAULT_FILE,
    url: Registry_ = "",
    json: Json = False,
) -> None:
    """Register a folder, or a tar or zip of one, as a new version.

    \b
      headrace registry register build/iris
      headrace registry register iris.tar.gz
      headrace promote iris 4 --reason "better on the night shift"

    \b
    The smallest manifest.json, beside a model.onnx:
      {"model": "iris", "format": "onnx"}

    Every file is inspected, and none is loaded or run. ONNX and safetensors are taken; pickles,
    archives, links, foreign ONNX operators and code that nobody has vouched for are refused. The
    same files again are the version that they are.
    """
    made = at(file, url, lambda desk: registered(desk, folder))
    if json:
        from headrace.cli import registry_tables as tables

        say_json(tables.plain(made, {}))
        return
    out = console()
    out.print(f"[bold]{made.model} {made.number}[/]  {made.digest}", soft_wrap=True)
    promote = f"headrace promote {made.model} {made.number} --reason ..."
    out.print(f"[dim]into production with: {promote}[/]")


@registry.command()
def log(
    model: Annotated[
        str, typer.Argument(help="Of one alone.", metavar="MODEL", show_default="all models")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    file: File = DEFAULT_FILE,
    url: Registry_ = "",
    control: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:
    """List who moved an alias, when, and why, the newest first.

    \b
      headrace registry log
      headrace registry log iris --json | jq -r '.[] | [.author, .reason] | @tsv'

    The database of a house has what was moved through it, a file in house.state what was moved on
    this machine without one. Where a house runs here, or --control names one, both are shown.
    """
    from headrace.cli import registry_tables as tables

    entries = at(file, url, lambda desk: desk.audit.entries(model, 2 * limit))
    entries += of_the_house(model, min(2 * limit, 200), file, control, token_file)
    entries.sort(key=lambda entry: entry.at, reverse=True)
    shown = tables.outcomes(entries)[:limit]
    say_json(shown) if json else tables.show_log(shown)


@registry.command()
def serve(
    listen: Annotated[
        str, typer.Option(help="MLflow asks nobody who they are.", metavar="HOST:PORT")
    ] = "127.0.0.1:5000",
    python: Annotated[
        str,
        typer.Option(
            help="One that has MLflow.", metavar="FILE", show_default="the one that runs this"
        ),
    ] = sys.executable,
    private_webhooks: Annotated[
        bool, typer.Option("--private-webhooks", help="It may send them to http:// and this net.")
    ] = False,
    file: File = DEFAULT_FILE,
) -> None:
    """Run an MLflow server on this machine, until SIGTERM: its data lie in house.state/mlflow.

    \b
      pip install 'mlflow==3.17.2'             850 MB: a Python of its own may be the better place
      headrace registry serve
      headrace registry serve --python /opt/mlflow/bin/python

    \b
    Then, in the settings:
      [registry]
      url = "mlflow://127.0.0.1:5000"

    One process of 260 MB, up after some ten seconds. Its pages are at the same address. Whoever
    reaches it may change everything in it: put a proxy that asks for a password in front of any
    address but the loopback's.
    """
    from headrace.house import check_free
    from headrace.registry import serve as mlflow

    settings = settled(file)
    mlflow.check(python)
    check_free("--listen", listen)
    host, _, port = listen.rpartition(":")
    environment = os.environ | mlflow.environment(
        settings.state(), private_webhooks=private_webhooks
    )
    console().print(f'http://{listen}   registry.url = "mlflow://{listen}"', soft_wrap=True)
    sys.stdout.flush()
    command = mlflow.command(python, host, int(port))
    os.execve(python, command, environment)  # noqa: S606 - signals come to it as to us


@registry.command()
def hook(
    to: Annotated[
        str,
        typer.Argument(
            help="Of the house's control API.",
            metavar="URL",
            show_default="http://, control.listen of the settings, /hooks/registry",
        ),
    ] = "",
    file: File = DEFAULT_FILE,
    url: Registry_ = "",
) -> None:
    """Have MLflow send the house a signed webhook whenever an alias moves.

    \b
      headrace registry hook
      headrace registry hook https://control.example.org/hooks/registry

    The secret is the first line of the file that registry.webhook_secrets names; after a rotation
    the same command renews it. One is sent at once: the exit status is 1 where the house did not
    take it. Without webhooks the house finds what has moved within two seconds anyway.

    MLflow refuses http:// and private addresses unless its server was told otherwise: by
    `headrace registry serve --private-webhooks`, for one.
    """
    from headrace.registry.choose import webhook_secrets
    from headrace.registry.hooks import mlflow_secret
    from headrace.settings import SettingsError

    settings = settled(file)
    place = to or (settings.control.listen and f"http://{settings.control.listen}/hooks/registry")
    if not place:
        raise typer.BadParameter("control.listen is not set: name one", param_hint="URL")
    secrets = webhook_secrets(settings)
    if not secrets:
        raise SettingsError("registry.webhook_secrets names no file: the house takes no webhooks")
    try:
        mlflow_secret(secrets[0])
    except ValueError as error:
        raise SettingsError(f"registry.webhook_secrets: its first line: {error}") from None
    if failed := at(file, url, lambda desk: desk.registry.hook(place, secrets[0])):
        say_error(f"{place} did not take the webhook that was sent to try it: {failed}")
        raise typer.Exit(1)
    console().print(f"[bold]{place}[/]  took a webhook, and gets one for each move", soft_wrap=True)


def of_the_house(model: str, limit: int, file: str, control: str, token_file: str) -> list[Entry]:
    """None where no house runs."""
    from msgspec import convert

    from headrace.client.control import SOCKET, is_served
    from headrace.client.promotion import promotions
    from headrace.registry.audit import Entry

    if not control and not is_served(settled(file).state() / SOCKET):
        return []
    with reach(file, control, token_file) as house:
        found = house.ask(promotions(model, limit))
    return [convert(one, Entry, from_attributes=True) for one in found]


# -- shared with `headrace promote` ----------------------------------------------------------------


def at(file: str, url: str, ask: Callable[[Desk], Awaitable[T]]) -> T:
    """Raises what the registry raises; SettingsError."""
    from headrace.registry.choose import desk

    async def asked() -> T:
        opened = desk(settled(file), url)
        await opened.registry.open()
        try:
            return await ask(opened)
        finally:
            await opened.registry.close()

    return asyncio.run(asked())


def settled(file: str) -> Settings:
    """Of the file; where there is none and none was named, the defaults. Raises SettingsError."""
    from headrace.settings import load

    return load(None if file == DEFAULT_FILE and not Path(file).exists() else file)


async def of_model(registry: Registry, model: str) -> tuple[list[Version], dict[str, int]]:
    return await registry.versions(model), (await registry.state()).get(model, {})


async def named(registry: Registry, model: str, version: str) -> tuple[Version, dict[str, int]]:
    """Raises NotFound."""
    from headrace.errors import NotFound

    aliases = (await registry.state()).get(model, {})
    number = int(version) if version.isascii() and version.isdigit() else aliases.get(version)
    if number is None:
        known = ", ".join(f"{alias} is {one}" for alias, one in sorted(aliases.items()))
        raise NotFound(f"{model} has no {version!r}; {known or 'no alias names a version of it'}")
    return await registry.get(model, number), aliases


async def registered(desk: Desk, folder: Path) -> Version:
    """Raises Rejected, Unavailable, OSError."""
    import tempfile

    from headrace.registry.promote import register

    with tempfile.TemporaryDirectory(prefix="headrace-") as place:
        inside = await asyncio.to_thread(unpacked, folder, Path(place) / "version", desk)
        return await register(desk.registry, inside, desk.rules)


def unpacked(folder: Path, place: Path, desk: Desk) -> Path:
    """The folder itself, or what is in it where it is an archive. Raises Rejected, OSError."""
    from headrace.registry.unpack import unpack

    if folder.is_dir():
        return folder
    unpack(folder, place, desk.rules)
    return alone(place)


def alone(folder: Path) -> Path:
    """Many archives hold one folder with everything in it."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
