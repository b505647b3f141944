"""`headrace up`: the whole house on this machine, until Ctrl-C.

start -> wait for readiness, saying what is missing -> the table -> ... -> stop in order
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.told import DEFAULT_FILE, File, Json, console, plural, say_json

if TYPE_CHECKING:
    from headrace.client import AsyncClient, Readiness, ServedModel
    from headrace.house import House
    from headrace.settings import Settings

POLL_S = 0.03
PATIENCE_S = 3.0  # without a word, then the reasons


def up(
    file: File = DEFAULT_FILE,
    listen: Annotated[
        str | None,
        typer.Option(help="Overrides gateway.listen.", metavar="HOST:PORT", show_default=False),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="All logs, also at a terminal.")
    ] = False,
    json: Json = False,
) -> None:
    """Run the whole house on this machine: broker, gateways, workers.

    \b
      headrace up
      headrace up -f examples/quickstart/headrace.toml --listen 127.0.0.1:8200
      headrace up --json | head -1        one line when ready, for programs

    \b
    The smallest headrace.toml (the class is looked up beside it):
      [models.iris]
      class = "models:Iris"

    Ctrl-C stops it in order, a second one at once; nothing is left behind.
    """
    settings = settled(file, listen)
    level = log_level(settings.telemetry.log_level, verbose)
    os.environ["HEADRACE_TELEMETRY__LOG_LEVEL"] = level
    asyncio.run(serve(settings, file, level, json))


def settled(file: str, listen: str | None) -> Settings:
    """The settings, with a port found where 0 asks for any. What the flags say goes into the
    environment, where the roles read it."""
    from headrace.house import free_port
    from headrace.settings import load

    if listen:
        os.environ["HEADRACE_GATEWAY__LISTEN"] = listen
    settings = load(file)
    host, _, port = settings.gateway.listen.rpartition(":")
    return settled(file, f"{host}:{free_port()}") if port == "0" else settings


def log_level(configured: str, verbose: bool) -> str:
    """At a terminal the table tells what `info` would; whoever asked for a level has it."""
    if verbose and configured != "debug":
        return "info"
    return "warning" if configured == "info" and sys.stderr.isatty() else configured


async def serve(settings: Settings, file: str, level: str, json: bool) -> None:
    """Raises SettingsError."""
    from headrace.house import House
    from headrace.lifecycle import Stop
    from headrace.telemetry import logs

    logs.set_up("house", level=level)
    house = House(settings, file)
    stop, greeting = Stop(), None
    try:
        house.open()
        greeting = asyncio.create_task(welcome(house, json))
        await stop.wait()
        greeting.cancel()
    finally:
        say = farewell(json or greeting is None)
        await house.close(say, lambda: stop.hurry)
        say("")
    if not greeting.cancelled() and greeting.done():
        greeting.result()  # raises what went wrong there


async def welcome(house: House, json: bool) -> None:
    """Says what is waited for, and at last where the house is."""
    from headrace.cli import BEGAN
    from headrace.client import AsyncClient

    url = url_of(house.settings.gateway.listen)
    say = typer.echo if not json else lambda *_, **__: None
    say(f"starting house {house.settings.house.name!r}: {counts(house)}", err=True)
    async with AsyncClient(url, deadline_s=2.0, retries=0) as client:
        await until_ready(client, say)
        took_s = time.perf_counter() - BEGAN
        models = await client.models()
    if json:
        say_json(as_json(url, models, took_s))
    else:
        show(house.settings, url, models, took_s)


def counts(house: House) -> str:
    nouns = (
        ("gateway", house.gateways), ("worker", house.workers), ("clerk", house.clerks),
        ("autoscaler", house.autoscalers), ("deployer", house.deployers),
        ("monitor", house.monitors), ("retrainer", house.retrainers),
    )  # fmt: skip
    roles = [plural(len(roles), noun) for noun, roles in nouns if roles]
    return ", ".join(["a broker"] * bool(house.broker) + roles)


def url_of(listen: str) -> str:
    """Where to ask a gateway that listens there."""
    host, _, port = listen.rpartition(":")
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '*', '') else host}:{port}"  # noqa: S104


async def until_ready(client: AsyncClient, say: Any) -> None:
    from headrace.client import CallError

    began, told = time.monotonic(), ""
    while True:
        try:
            found = await client.ready()
            if found:
                return
            news = waiting_for(found)
        except CallError as error:
            news = f"the gateway does not answer yet: {error}"
        if news != told and time.monotonic() - began > PATIENCE_S:
            say(f"waiting: {news}", err=True)
            told = news
        await asyncio.sleep(POLL_S)


def waiting_for(found: Readiness) -> str:
    """ "iris: loading; ocr: golden call: got 3, expected 4" """
    reasons = [
        f"{name}: {model.reason or 'not ready'}"
        for name, model in found.models.items()
        if not model.ready
    ]
    return "; ".join(reasons) or "the gateway is about to leave"


def as_json(url: str, models: list[ServedModel], took_s: float) -> dict[str, Any]:
    return {
        "url": url,
        "docs": f"{url}/docs",
        "ready_after_s": round(took_s, 3),
        "models": [{"name": model.name, "version": model.version} for model in models],
        "pid": os.getpid(),
    }


def show(settings: Settings, url: str, models: list[ServedModel], took_s: float) -> None:
    from headrace.cli.table import escaped, table_of
    from headrace.deploy.apply import first_count

    out = console()
    out.print(f"\n[bold]{url}[/]   docs [bold]{url}/docs[/]")
    if settings.gateway.grpc:
        out.print(f"gRPC {settings.gateway.grpc} (Open Inference Protocol)")
    counts = ("workers", "slots")
    table = table_of("model", "version", *counts, "description", right=counts)
    for model in models:
        ours = settings.models.get(model.name)
        count = first_count(settings, model.name) if ours else 0
        workers, slots = (str(count), str(count * ours.slots)) if ours else ("-", "-")
        description = escaped(model.description.partition("\n")[0])
        table.add_row(model.name, model.version, workers, slots, description)
    out.print()
    out.print(table)
    out.print(f"\nfirst answer ready after {took_s:.1f} s. Ctrl-C stops the house.")


def farewell(silent: bool) -> Callable[[str], None]:
    """Hears the name of each role as it is stopped; "" when all are."""
    told: list[str] = []

    def say(name: str) -> None:
        if silent:
            return
        typer.echo("" if told else "\nstopping:", err=True, nl=False)
        typer.echo(f" {name}" if name else "; all gone", err=True, nl=not name)
        told.append(name)

    return say
