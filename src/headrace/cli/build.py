"""`headrace build`: one version of a model as an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.registry import Registry_, at, named, settled
from headrace.cli.table import table_of
from headrace.cli.told import (
    DEFAULT_FILE,
    MISUSED,
    REFUSED,
    File,
    Json,
    console,
    say_error,
    say_hint,
    say_json,
)

if TYPE_CHECKING:
    from headrace.packaging.build import Context, Naive
    from headrace.packaging.tools import Image, Tool
    from headrace.registry.choose import Desk
    from headrace.registry.version import Version


def build(
    workload: Annotated[str, typer.Argument(help="A number or an alias.", metavar="MODEL@VERSION")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The context.",
            metavar="FOLDER",
            show_default="build/MODEL-VERSION",
        ),
    ] = None,
    base: Annotated[
        str,
        typer.Option(
            help="With the Python that runs this.", metavar="IMAGE", show_default="python:3.N-slim"
        ),
    ] = "",
    tag: Annotated[
        str, typer.Option(help="Of the image.", metavar="NAME:TAG", show_default="MODEL:VERSION")
    ] = "",
    tool: Annotated[
        str,
        typer.Option(
            help="podman, buildah or docker, with options; none: the context alone.",
            metavar="COMMAND",
            show_default="the one that is here",
        ),
    ] = "",
    lock: Annotated[
        Path | None,
        typer.Option(
            help="Pins with hashes, as pip reads them.",
            metavar="FILE",
            show_default="what is installed",
        ),
    ] = None,
    wheels: Annotated[
        Path | None,
        typer.Option(help="Take wheels from there alone.", metavar="FOLDER", show_default=False),
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(help="One of headrace's extras: postgresql, ...; repeat it.", metavar="NAME"),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(help="Further files beside the settings; repeat it.", metavar="GLOB"),
    ] = None,
    file: File = DEFAULT_FILE,
    url: Registry_ = "",
    json: Json = False,
) -> None:
    """Build an image with one version of a model in it.

    \b
      headrace build iris@4
      headrace build iris@production --lock requirements.lock --extra postgresql
      headrace build iris@4 --tool none -o /tmp/iris        the context alone
      headrace build iris@4 --tool "buildah --storage-driver vfs" --tag registry.internal/iris:4

    It has what a worker of that version needs, and no more; it runs as `headrace worker --model
    iris@4` does, without a registry. Of the settings file it has the model's section: the addresses
    of broker and database come from its environment, as HEADRACE_BROKER__URL and so on.

    The exit status is 1 where the context was written and nobody here makes an image of it.
    """
    from headrace.packaging.tools import INSTALL
    from headrace.packaging.tools import tool as find
    from headrace.packaging.unbuildable import Unbuildable

    try:
        maker = None if tool == "none" else find(tool)
        with console().status("building the context ...") if not json else _silence():
            context, folder, beside = _context(
                workload, output, base, lock, wheels, extra, include, file, url
            )
        image = _image(maker, folder, tag or context.workload.replace("@", ":"), context, json)
    except Unbuildable as error:
        say_error(str(error))
        raise typer.Exit(MISUSED) from None
    if json:
        say_json(plain(context, folder, beside, image))
    else:
        show(context, folder, beside, image)
    if maker is None and tool != "none":
        say_error(f"nobody here makes images; the context lies in {folder}")
        say_hint(INSTALL)
        raise typer.Exit(REFUSED)


def plain(context: Context, folder: Path, beside: Naive, image: Image | None) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = msgspec.to_builtins(context)
    return fields | {
        "folder": str(folder),
        "bytes": context.bytes,
        "naive": msgspec.to_builtins(beside) | {"bytes": beside.bytes},
        "image": image._asdict() if image else None,
    }


def show(context: Context, folder: Path, beside: Naive, image: Image | None) -> None:
    from headrace.cli.registry_tables import size

    out = console()
    base = max(0, image.bytes - sum(image.layers[-len(context.layers) :])) if image else 0
    whole = context.bytes + (base if image and image.layers else 0)
    numbers = ("files", "size", "share")
    table = table_of("layer", "changes", *numbers, right=numbers)
    if image and image.layers:
        table.add_row("base", f"with {context.base}", "", size(base), f"{base / whole:.0%}")
    for layer in context.layers:
        table.add_row(
            layer.name, layer.changes, f"{layer.files:,}", size(layer.bytes),
            f"{layer.bytes / whole:.0%}",
        )  # fmt: skip
    table.add_row("[bold]together[/]", "", "", f"[bold]{size(whole)}[/]", "")
    out.print(table)
    out.print(
        f"\nan image of everything: {size(beside.bytes)} above its base "
        f"(what is installed {size(beside.environment)}, this folder {size(beside.folder)}, "
        f"all versions {size(beside.versions)}); this one {size(context.bytes)}"
    )
    golden = "its golden call is right" if context.proof.golden else "it has no golden call"
    out.print(f"loaded from what is packed in {context.proof.load_ms:.0f} ms; {golden}")
    out.print(f"\n[bold]{context.workload}[/]  {context.digest}", soft_wrap=True)
    out.print(f"context  {folder}", markup=False, soft_wrap=True)
    if image:
        out.print(f"image    {image.id}", markup=False, soft_wrap=True)


def _context(
    workload: str,
    output: Path | None,
    base: str,
    lock: Path | None,
    wheels: Path | None,
    extra: list[str] | None,
    include: list[str] | None,
    file: str,
    url: str,
) -> tuple[Context, Path, Naive]:
    from headrace.packaging.build import Wanted, naive
    from headrace.packaging.build import build as make
    from headrace.packaging.containerfile import BASE

    model, sign, version = workload.partition("@")
    if not sign or not model or not version:
        raise typer.BadParameter(
            f"{workload!r}: expected MODEL@VERSION", param_hint="MODEL@VERSION"
        )
    settings = settled(file)
    found, files, held = at(file, url, lambda desk: _fetched(desk, model, version))
    wanted = Wanted(
        base=base or BASE,
        lock=lock.read_text() if lock else "",
        wheels=wheels,
        include=tuple(include or ()),
        extras=tuple(extra or ()),
    )
    folder = output or Path("build") / f"{model}-{found.number}"
    return make(settings, found, files, folder, wanted), folder, naive(settings, held)


async def _fetched(desk: Desk, model: str, version: str) -> tuple[Version, Path, int]:
    """The version, its files compared with their digests, and the bytes of all versions."""
    found, _ = await named(desk.registry, model, version)
    found = await desk.kept.get(desk.registry, model, found.number)
    files = await desk.kept.files(desk.registry, found)
    held = 0
    for each in await desk.registry.state():
        held += sum(one.bytes for one in await desk.registry.versions(each))
    return found, files, held


def _image(
    maker: Tool | None, folder: Path, tag: str, context: Context, quiet: bool
) -> Image | None:
    if maker is None:
        return None
    with console().status(f"{maker.name} builds the image ...") if not quiet else _silence():
        return maker.build(folder, tag, context.base, context.created)


def _silence() -> Any:
    import contextlib

    return contextlib.nullcontext()
