"""The table of contents of the command line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import headrace
from headrace.cli.autoscale import autoscale
from headrace.cli.build import build
from headrace.cli.call import call
from headrace.cli.check import check
from headrace.cli.clerk import clerk
from headrace.cli.control import control
from headrace.cli.dead import dead
from headrace.cli.deploy import deploy
from headrace.cli.gateway import gateway
from headrace.cli.jobs import jobs
from headrace.cli.models import models
from headrace.cli.monitor import monitor
from headrace.cli.plan import plan
from headrace.cli.profile import profile
from headrace.cli.promote import promote
from headrace.cli.registry import registry
from headrace.cli.retrain import retrain
from headrace.cli.rollout import rollout
from headrace.cli.runs import runs
from headrace.cli.scale import scale
from headrace.cli.simulate import simulate
from headrace.cli.status import status
from headrace.cli.told import told_plainly
from headrace.cli.train import train
from headrace.cli.up import up
from headrace.cli.webhooks import webhooks
from headrace.cli.worker import worker

app = typer.Typer(
    name="headrace",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

for command in (
    up,
    check,
    call,
    models,
    status,
    gateway,
    worker,
    clerk,
    simulate,
    plan,
    profile,
    train,
    promote,
    build,
):
    app.command()(command)
for name, noun in (
    ("jobs", jobs), ("dead", dead), ("webhooks", webhooks), ("scale", scale),
    ("autoscale", autoscale), ("control", control), ("registry", registry), ("runs", runs),
    ("rollout", rollout), ("deploy", deploy), ("retrain", retrain),
    ("monitor", monitor),
):  # fmt: skip
    app.add_typer(noun, name=name)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headrace {headrace.__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say which, and end."),
    ] = False,
) -> None:
    """From a Python class with `load` and `predict` to an API that keeps its latency promise.

    \b
    A model, and the house that serves it:
      headrace check models:Iris          is anything wrong with it?
      headrace up                         serve what headrace.toml names
      headrace call iris '[5.1, 3.5]'     ask it
      headrace status                     how it goes
      headrace jobs submit iris '[5.1]'   ask it later: a job that outlives its caller
      headrace dead list                  jobs that used up their tries
      headrace scale show                 how many workers, and your hand on it
      headrace autoscale explain iris     why so many
      headrace profile iris               what it carries, and how to pack it
      headrace train pipeline:Iris        data to a version, through gates
      headrace promote iris 4             a version into production
      headrace monitor show iris          has its world changed, and is it still right?
      headrace retrain show iris          when it is trained again, and what came of it
      headrace build iris@4               a version as an image
      headrace rollout show iris          how it comes to its callers, and back
      headrace simulate                   what a policy of capacity comes to, on past traffic

    \b
    `headrace COMMAND --help` shows examples.
    """


def main() -> None:
    """The entry point: errors that are the caller's are told in one line."""
    with told_plainly():
        app(sys.argv[1:], prog_name="headrace")
