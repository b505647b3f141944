"""`headrace control`: who may use the control API over TCP; and how the commands reach it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.told import (
    DEFAULT_FILE,
    REFUSED,
    File,
    Json,
    console,
    say_error,
    say_hint,
    say_json,
)

if TYPE_CHECKING:
    from headrace.client import Control

ControlUrl = Annotated[
    str,
    typer.Option(
        "--control",
        envvar="HEADRACE_CONTROL",
        help="The control API, if not this machine's.",
        metavar="URL",
        show_default=False,
    ),
]
TokenFile = Annotated[
    str,
    typer.Option(
        "--token-file",
        envvar="HEADRACE_TOKEN_FILE",
        help="Your token for it.",
        metavar="FILE",
        show_default=False,
    ),
]
ROLES = ("viewer", "operator", "admin")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_BARE = re.compile(r"[A-Za-z0-9_-]+")

control = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Who may change the house.

    \b
      headrace control token ann --role operator    a token, and what to write into the settings
      headrace control whoami                       as whom does the house know me?

    On the machine of a house its own user needs no token: the commands find the socket by the
    settings file (-f). From elsewhere: --control URL --token-file FILE.
    """,
)


@control.command()
def token(
    name: Annotated[str, typer.Argument(help="Of the person.", metavar="NAME")],
    role: Annotated[
        str, typer.Option(help="What they may.", metavar="viewer|operator|admin")
    ] = "viewer",
) -> None:
    """Make a token for a person, and show it, once.

    \b
      headrace control token ann
      headrace control token ann --role operator

    viewer reads, operator changes capacity and versions, too, admin everything. The lines that it
    prints go into the settings file of the house; the token goes to the person, and is kept nowhere
    else.
    """
    if not _NAME.fullmatch(name):
        raise typer.BadParameter(
            f"{name!r}: expected 1 to 63 of A-Z a-z 0-9 . _ @ -", param_hint="NAME"
        )
    if role not in ROLES:
        raise typer.BadParameter(f"{role!r}: expected {', '.join(ROLES)}", param_hint="--role")
    from headrace.control.tokens import digest, new_token

    made = new_token()
    key = name if _BARE.fullmatch(name) else f'"{name}"'
    out = console()
    out.print("[bold]token[/]  ", end="")
    out.print(made, markup=False, soft_wrap=True)
    out.print("[dim]For the person alone: it is not shown again.[/]\n")
    out.print("[dim]For the settings file:[/]")
    lines = (
        f"[control.people.{key}]",
        f'token_sha256 = "{digest(made.encode())}"',
        f'role = "{role}"',
    )
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


@control.command()
def whoami(
    file: File = DEFAULT_FILE, url: ControlUrl = "", token_file: TokenFile = "", json: Json = False
) -> None:
    """Say as whom the house knows you, and what you may.

    \b
      headrace control whoami
      headrace control whoami --control https://control.example --token-file ~/.headrace-token
    """
    from headrace.client.scale import whoami as who

    with reach(file, url, token_file) as house:
        me = house.ask(who())
    if json:
        say_json(me)
    else:
        console().print(f"{me.name}, {me.role}", markup=False)


@contextlib.contextmanager
def reach(file: str, url: str, token_file: str) -> Iterator[Control]:
    """The control API of the settings file's house on this machine, or the one at `url`.

    Raises SettingsError, OSError, BadParameter."""
    from headrace.client import CallFailed, Control
    from headrace.client.control import SOCKET

    where: str | Path = url
    if not url:
        from headrace.settings import load

        where = load(file).state() / SOCKET
    token = read_token(token_file) if token_file else ""
    try:
        house = Control(where, token=token)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--control") from None
    try:
        with house:
            yield house
    except CallFailed as error:
        say_error(str(error))
        if not url:
            say_hint(
                "a clerk of the house serves it: is `headrace up` running here, with this settings"
                " file? --control names another machine's"
            )
        raise typer.Exit(REFUSED) from None


def read_token(name: str) -> str:
    """Raises OSError, BadParameter."""
    token = Path(name).expanduser().read_text().strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise typer.BadParameter(f"{name}: expected one line, the token", param_hint="--token-file")
    return token
