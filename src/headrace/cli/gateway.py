"""`headrace gateway`: one gateway, by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.told import DEFAULT_FILE, Broker, File


def gateway(
    file: File = DEFAULT_FILE,
    listen: Annotated[
        str | None,
        typer.Option(help="Overrides gateway.listen.", metavar="HOST:PORT", show_default=False),
    ] = None,
    broker: Broker = None,
) -> None:
    """Run one gateway by itself, until SIGTERM.

    \b
      headrace gateway -f headrace.toml --broker nats://broker:4222
      headrace gateway --listen 0.0.0.0:8101       a second one, on the same broker

    It answers its open calls before it leaves. Every gateway answers for every model; workers
    run by themselves: `headrace worker`.
    """
    from headrace import roles
    from headrace.settings import load

    settings = load(file, flags={"gateway.listen": listen, "broker.url": broker})
    roles.run("gateway", settings, roles.run_gateway(settings))
