"""What the commands share: options, plain errors, a console."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.errors import Refusal

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.client import CallRefused, Client

REFUSED, MISUSED = 1, 2  # exit statuses

Url = Annotated[
    str,
    typer.Option("--url", envvar="HEADRACE_URL", help="The gateway.", metavar="URL"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
File = Annotated[str, typer.Option("-f", "--file", help="The settings file.", metavar="FILE")]
Broker = Annotated[
    str | None, typer.Option(help="Overrides broker.url.", metavar="URL", show_default=False)
]
DEFAULT_URL = "http://127.0.0.1:8100"
DEFAULT_FILE = "headrace.toml"


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """Errors that the caller can mend end the process with one line, not with a traceback."""
    try:
        yield
    except Exception as error:
        status = _tell(error)
        if status is None:
            raise
        sys.exit(status)
    except KeyboardInterrupt:
        sys.exit(130)


def _tell(error: Exception) -> int | None:
    """The exit status, or None where the error is ours. Imports nothing that was not used: an
    error can only be of a module that is loaded."""
    client, settings = sys.modules.get("headrace.client"), sys.modules.get("headrace.settings")
    if client and isinstance(error, client.CallRefused):
        tell_refusal(error)
        return REFUSED
    if client and isinstance(error, client.CallError):
        say_error(str(error))
        if str(error).startswith("cannot connect"):
            say_hint(
                "is the house up? `headrace up` starts one; --url or HEADRACE_URL names another"
            )
        return REFUSED
    schemes = sys.modules.get("headrace.schemes")
    if (settings and isinstance(error, settings.SettingsError)) or (
        schemes and isinstance(error, schemes.UnknownScheme)
    ):
        say_error(str(error))
        return MISUSED
    if isinstance(error, OSError | ImportError | OverflowError):  # the last: a port above 65535
        say_error(str(error))
        return MISUSED
    if isinstance(error, Refusal):  # no broker, for one
        say_error(error.detail)
        return REFUSED
    return None


def at_a_terminal() -> bool:
    return sys.stdin.isatty()


def must_agree(question: str, yes: bool) -> None:
    """Ends the command where the person says no, or where there is nobody to ask."""
    if yes:
        return
    if not at_a_terminal():
        raise typer.BadParameter(f"{question} There is nobody to ask: say --yes")
    typer.confirm(question, abort=True, err=True)


def say_error(text: str) -> None:
    typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(text, err=True)


def say_hint(text: str) -> None:
    typer.secho(f"hint: {text}", fg="yellow", err=True)


def tell_refusal(refusal: CallRefused) -> None:
    say_error(f"{refusal.status} {refusal.code}: {refusal.detail}")
    for place in refusal.errors:
        if place.pointer:
            said = place.detail in ("", refusal.detail)
            typer.echo(f"  at {place.pointer}" + ("" if said else f": {place.detail}"), err=True)
    if refusal.retry_after_s:
        say_hint(f"try again in {refusal.retry_after_s:g} s")
    if refusal.request_id:
        typer.secho(f"request id {refusal.request_id}", dim=True, err=True)


def client(url: str, deadline_s: float = 10.0) -> Client:
    """Raises BadParameter for what is no URL."""
    from headrace.client import Client

    try:
        return Client(url, deadline_s=deadline_s)
    except Exception as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None


def console() -> Console:
    """On stdout; as wide as it needs to be where nobody looks at it."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
    return Console(highlight=False, width=width, soft_wrap=False)


def say_json(value: Any) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


DAY_S = 86_400.0
_UNITS = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", DAY_S))


def seconds(text: str, most_s: float = DAY_S) -> float:
    """ "2s", "500ms", "1m", "12h", "7d" or "2" -> seconds. Raises BadParameter."""
    value, unit = text.strip(), 1.0
    for suffix, scale in _UNITS:
        if value.endswith(suffix):
            value, unit = value.removesuffix(suffix), scale
            break
    try:
        number = float(value) * unit
    except ValueError:
        number = 0.0
    if not 0 < number <= most_s:
        example = "2s, 500ms or 1m" if most_s <= DAY_S else "30s, 12h or 7d"
        raise typer.BadParameter(f"{text!r}: expected a time such as {example}")
    return number
