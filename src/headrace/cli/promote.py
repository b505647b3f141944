"""`headrace promote`: a version into production, or back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.control import ControlUrl, TokenFile, reach
from headrace.cli.registry import Model, Registry_, at, settled
from headrace.cli.told import DEFAULT_FILE, File, Json, console, say_hint, say_json

if TYPE_CHECKING:
    from headrace.client.promotion import Promotion
    from headrace.registry.audit import Entry


def promote(
    model: Model,
    version: Annotated[
        str, typer.Argument(help="A number; none: the alias is taken away.", metavar="VERSION|none")
    ],
    reason: Annotated[str, typer.Option(help="For those who ask later.", metavar="TEXT")],
    to: Annotated[str, typer.Option(help="The alias.", metavar="ALIAS")] = "production",
    author: Annotated[
        str, typer.Option(help="Who you are.", metavar="NAME", show_default="your user name here")
    ] = "",
    instead_of: Annotated[
        int | None,
        typer.Option(
            help="Only if that version is there now.", metavar="VERSION", show_default=False
        ),
    ] = None,
    file: File = DEFAULT_FILE,
    url: Registry_ = "",
    control: ControlUrl = "",
    token_file: TokenFile = "",
    json: Json = False,
) -> None:
    """Put a version into production, and write down who and why.

    \b
      headrace promote iris 4 --reason "better on the night shift"
      headrace promote iris 3 --reason "4 is slow" --instead-of 4       back again
      headrace promote iris 5 --to canary --reason "ten per cent first"
      headrace promote iris none --to canary --reason "seen enough"

    It moves an alias in the registry: through the house, where one runs here or --control names it,
    which then knows who you are, and begins the rollout. Without one, or with --registry, the
    registry itself is asked: not where control.people says who may promote. `headrace registry log`
    shows who moved what.
    """
    from headrace.client import promotion as asks
    from headrace.client.control import SOCKET, is_served
    from headrace.registry.promote import promote as move
    from headrace.settings import SettingsError

    number = numbered(version)
    done: Promotion | Entry
    if not url and (control or is_served(settled(file).state() / SOCKET)):
        if author:
            raise typer.BadParameter(
                "the house says who you are: leave it out", param_hint="--author"
            )
        asked = asks.promote(model, number, reason, alias=to, instead_of=instead_of)
        with reach(file, control, token_file) as house:
            done = house.ask(asked)
        if not control and (known := settled(file).models.get(model)) and known.deploy:
            say_hint(f"headrace rollout show {model} --watch")
    else:
        said = "--registry" if url else "no house runs here"
        if settled(file).control.people:
            raise SettingsError(
                f"{said}: control.people says who may promote, and the house alone knows who you "
                "are: --control names its API"
            )
        say_hint(f"{said}: the registry itself is asked, and no house is told")
        done = at(
            file,
            url,
            lambda desk: move(
                desk.registry,
                desk.audit,
                model,
                number,
                alias=to,
                author=author or whoami(),
                reason=reason,
                seen=instead_of,
            ),
        )
    if json:
        say_json(done)
    elif done.before == done.to:
        console().print(f"{to} of {model} was {done.to or 'no version'} already", markup=False)
    else:
        console().print(
            f"{to} of {model}: {done.before or 'none'} -> {done.to or 'none'}", markup=False
        )


def numbered(version: str) -> int | None:
    """Raises BadParameter."""
    if version == "none":
        return None
    if not (version.isascii() and version.isdigit() and 0 < len(version) < 10 and int(version)):
        raise typer.BadParameter(f"{version!r}: expected a number, or none", param_hint="VERSION")
    return int(version)


def whoami() -> str:
    """The user of this machine, by whatever name it is known."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
