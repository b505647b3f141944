"""`headrace check`: runs a model without a server and says what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.told import Json, say_json

if TYPE_CHECKING:
    from headrace.cli.examine import Finding

MARKS = {"ok": ("✓", "green"), "advice": ("!", "yellow"), "wrong": ("✗", "red")}


def check(
    target: Annotated[
        str, typer.Argument(help="The class, looked up from here.", metavar="MODULE:CLASS")
    ],
    files: Annotated[
        str, typer.Option("-f", "--files", help="The folder given to `load`.", metavar="FOLDER")
    ] = ".",
    input: Annotated[
        list[str] | None,
        typer.Option(
            "-i", "--input", help="JSON or @FILE to try; repeat it.", metavar="JSON|@FILE"
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many to run together.", show_default="the model's, at most 8"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run a model without a server and say what is wrong with it.

    \b
      headrace check models:Iris
      headrace check models:FaceMatch -f weights -i @pair.json --batch 8
      headrace check models:Ocr -i @passport.jpg

    Are the types right, does it load, does the golden call come out right, do results have the
    declared type, does a batch give what single inputs give, does one bad item spoil its
    neighbours? Without --input and golden call, inputs are made up from the types.

    The exit status is 1 where anything is wrong (✗); advice (!) does not count.
    """
    from headrace.cli.examine import Wanted, examine

    given = [_read(text) for text in input or []]
    folder = str(Path.cwd())
    found: list[Finding] = []
    for finding in examine(Wanted(target, folder, str(Path(files).resolve()), given, batch)):
        found.append(finding)
        if not json:
            show(finding)
    if json:
        say_json([finding._asdict() for finding in found])
    else:
        conclude(found)
    if any(finding.mark == "wrong" for finding in found):
        raise typer.Exit(1)


def _read(text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{text[1:]}: {error.strerror}", param_hint="--input") from None


def show(finding: Finding) -> None:
    mark, colour = MARKS[finding.mark]
    typer.secho(mark, fg=colour, nl=False)
    typer.echo(f" {finding.what}: {finding.detail}" if finding.detail else f" {finding.what}")
    if finding.hint:
        typer.secho(f"    {finding.hint}", fg="cyan" if finding.mark == "wrong" else None, dim=True)
    sys.stdout.flush()


def conclude(found: list[Finding]) -> None:
    wrong = sum(finding.mark == "wrong" for finding in found)
    advice = sum(finding.mark == "advice" for finding in found)
    words = f"{wrong} wrong" if wrong else "nothing wrong"
    words += f", {advice} piece{'s'[: advice > 1]} of advice" if advice else ""
    typer.secho(f"\n{words}", fg="red" if wrong else "green", bold=True)
