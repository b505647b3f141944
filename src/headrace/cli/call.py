"""`headrace call`: one call, its result, and where its time went."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.told import DEFAULT_URL, Json, Url, client, console, say_json, seconds

if TYPE_CHECKING:
    from headrace.client import Answer

BAR_WIDTH = 30


def call(
    model: Annotated[
        str, typer.Argument(help="The model's name, as in `headrace models`.", metavar="MODEL")
    ],
    input: Annotated[
        str | None,
        typer.Argument(help="JSON, @FILE with JSON or one image, or - for stdin.", metavar="INPUT"),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            "-F",
            help="One field of a record; repeat it.",
            metavar="NAME=VALUE|NAME=@FILE",
        ),
    ] = None,
    deadline: Annotated[
        str, typer.Option(help="How long to wait: 2s, 500ms.", metavar="TIME")
    ] = "30s",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Call a model and show where the time went.

    \b
      headrace call iris '[5.1, 3.5, 1.4, 0.2]'
      headrace call greet '"Ada"'                   a text is JSON, too: in quotes
      headrace call ocr @passport.jpg --deadline 3s
      headrace call face-match -F left=@a.jpg -F right=@b.jpg -F threshold=0.4
      cat row.json | headrace call iris - --json

    A field's VALUE is JSON where it can be, else text: id='"12"' is a text, id=12 a number.
    A refusal is printed with its code and the fields that are wrong; the exit status is 1.
    """
    deadline_s = seconds(deadline)
    value = read_fields(field) if field else read_input(input)
    if field and input is not None:
        raise typer.BadParameter("give INPUT or --field, not both")
    with client(url, deadline_s) as house:
        began = time.perf_counter()
        answer = house.predict(model, value)
        took_ms = (time.perf_counter() - began) * 1000
    if json:
        say_json(as_json(answer))
    else:
        show(answer, took_ms)


def read_input(text: str | None) -> Any:
    """Raises BadParameter."""
    if text is None:
        raise typer.BadParameter(
            "missing: give JSON, @FILE, - for stdin, or --field NAME=VALUE", param_hint="INPUT"
        )
    if text == "-":
        return read_bytes(sys.stdin.buffer.read(), "stdin")
    if text.startswith("@"):
        return read_bytes(_file(text[1:]), text[1:])
    return read_bytes(text.encode(), "INPUT")


def read_fields(texts: list[str]) -> dict[str, Any]:
    """NAME=VALUE: JSON where it is JSON, else text. NAME=@FILE: an image, JSON, or its bytes."""
    fields: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(
                f"{text!r}: expected NAME=VALUE or NAME=@FILE", param_hint="--field"
            )
        fields[name] = _file_field(value[1:]) if value.startswith("@") else _json_or_text(value)
    return fields


def read_bytes(data: bytes, source: str) -> Any:
    """An image's bytes, or JSON read."""
    import msgspec

    from headrace.client.write import image_type

    if image_type(data):
        return data
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        short = data[:40].decode(errors="replace")
        hint = f"; a text goes in quotes: '\"{short}\"'" if source == "INPUT" else ""
        raise typer.BadParameter(
            f"{source} is neither JSON ({error}) nor a JPEG, PNG or WEBP{hint}", param_hint="INPUT"
        ) from None


def _file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from None


def _file_field(path: str) -> Any:
    data = _file(path)
    try:
        return read_bytes(data, path)
    except typer.BadParameter:
        return data


def _json_or_text(value: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return value


def as_json(answer: Answer[Any]) -> dict[str, Any]:
    return {
        "result": answer.result,
        "model": answer.model,
        "version": answer.version,
        "request_id": answer.request_id,
        "timings": answer.timings,
    }


def show(answer: Answer[Any], took_ms: float) -> None:
    """The result, then a bar for each stage. `took_ms` is what this process saw."""
    import msgspec
    from rich.json import JSON
    from rich.table import Table

    out = console()
    out.print(JSON(msgspec.json.encode(answer.result).decode(), indent=2))
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, title_justify="left")
    rest_ms = max(0.0, took_ms - answer.timings.total_ms)
    stages = {name: ms for name, ms in answer.timings.stages().items() if ms} | {"network": rest_ms}
    for name, ms in stages.items():
        table.add_row(name, f"{ms:8.2f} ms", f"[cyan]{bar(ms, max(took_ms, 0.001))}[/]")
    table.add_row("[bold]total[/]", f"[bold]{took_ms:8.2f} ms[/]", "")
    out.print()
    out.print(table)
    out.print(
        f"\n[dim]{answer.model} version {answer.version}, request id {answer.request_id}[/]",
        soft_wrap=True,
    )


def bar(ms: float, whole_ms: float) -> str:
    """Eighths of a character: a share of 1 in 240 still shows."""
    eighths = max(1, round(BAR_WIDTH * 8 * min(1.0, ms / whole_ms))) if ms > 0 else 0
    full, part = divmod(eighths, 8)
    return "█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")
