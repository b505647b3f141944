"""`headrace worker`: one worker for each named model, by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.told import DEFAULT_FILE, Broker, File


def worker(
    file: File = DEFAULT_FILE,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Serve this one, or a version of it: NAME@3; repeat it.",
            show_default="all of the file",
        ),
    ] = None,
    broker: Broker = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Serve /metrics, /health/live and /health/ready there.",
            metavar="HOST:PORT",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run workers by themselves, until SIGTERM.

    \b
      headrace worker -f headrace.toml --broker nats://broker:4222
      headrace worker --model ocr --metrics 0.0.0.0:9100
      headrace worker --model ocr@3

    What runs is finished and answered before they leave. Start as many as are needed, on as many
    machines: they share one queue for each model. A version comes from the registry; it gets
    calls when it is rolled out (headrace rollout).
    """
    from headrace import roles
    from headrace.settings import load

    settings = load(file, flags={"broker.url": broker})
    models = list(model or settings.models)
    if metrics and len(models) > 1 and not metrics.endswith(":0"):
        raise typer.BadParameter(
            f"{len(models)} models cannot share {metrics}: name one --model, or use port 0",
            param_hint="--metrics",
        )
    roles.run("worker", settings, roles.run_worker(settings, models, metrics))
