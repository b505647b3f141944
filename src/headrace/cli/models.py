"""`headrace models`: what the house serves; with a name, what that model takes and gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.table import escaped, table_of
from headrace.cli.told import DEFAULT_URL, Json, Url, client, console, say_json

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.client import ServedModel


def models(
    name: Annotated[
        str | None, typer.Argument(help="Show this one's input and output.", metavar="NAME")
    ] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List the models, or show what one takes and gives.

    \b
      headrace models
      headrace models face-match        its fields, and a call to copy
      headrace models iris --json       its JSON schemas
    """
    with client(url) as house:
        found: ServedModel | list[ServedModel] = house.model(name) if name else house.models()
    if json:
        say_json(found)
    elif isinstance(found, list):
        show_list(found)
    else:
        show_one(found)


def show_list(found: list[ServedModel]) -> None:

    from headrace.cli.describe import type_of

    table = table_of("model", "version", "ready", "input", "output", "description")
    for one in found:
        table.add_row(
            one.name,
            one.version or "-",
            readiness(one),
            escaped(type_of(one.input)) if one.input else "-",
            escaped(type_of(one.output)) if one.output else "-",
            escaped(one.description.partition("\n")[0]),
        )
    console().print(table)


def readiness(one: ServedModel) -> str:
    return "[green]ready[/]" if one.ready else f"[yellow]{escaped(one.reason or 'not ready')}[/]"


def show_one(one: ServedModel) -> None:
    out = console()
    out.print(f"[bold]{one.name}[/] version {one.version or '-'}, {readiness(one)}")
    if one.description:
        out.print(one.description, markup=False)
    for heading, schema in (("input", one.input), ("output", one.output)):
        if schema:
            show_schema(out, heading, schema)
    if one.input:
        out.print("\n[bold]try[/]")
        out.print("  " + example(one.name, one.input), markup=False, soft_wrap=True)


def show_schema(out: Console, heading: str, schema: dict[str, Any]) -> None:
    from rich.table import Table

    from headrace.cli.describe import describe

    first, *fields = describe(schema)
    note = f"  [dim]{escaped(first.note)}[/]" if first.note else ""
    out.print(f"\n[bold]{heading}[/]  [cyan]{escaped(first.type)}[/]{note}")
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for field in fields:
        indent = "  " * field.depth
        table.add_row(
            indent + escaped(field.name),
            f"[cyan]{escaped(field.type)}[/]",
            f"[dim]{escaped(field.note)}[/]",
        )
    if fields:
        out.print(table)


def example(name: str, schema: dict[str, Any]) -> str:
    """A command line that calls the model with something its schema allows."""
    import shlex

    import msgspec

    from headrace.cli.synthesize import CannotSynthesize, synthesize
    from headrace.schema import Reader

    reader = Reader(schema)
    if reader.is_image:
        return f"headrace call {name} @photo.jpg"
    pictures = [key for key, node in reader.properties.items() if "x-headrace-image" in node]
    try:
        value = synthesize(schema)
    except CannotSynthesize:
        return f"headrace call {name} @input.json"
    if pictures:
        fields = [f"-F {key}=@{key}.jpg" for key in pictures]
        required = set(reader.root.get("required", ()))
        fields += [
            "-F " + shlex.quote(f"{key}={msgspec.json.encode(value[key]).decode()}")
            for key in value
            if key in required and key not in pictures
        ]
        return f"headrace call {name} {' '.join(fields)}"
    text = msgspec.json.encode(value).decode()
    return f"headrace call {name} " + (shlex.quote(text) if len(text) < 300 else "@input.json")
