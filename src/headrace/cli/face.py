"""The table of contents of the command line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import headrace
from headrace.cli.call import call
from headrace.cli.check import check
from headrace.cli.clerk import clerk
from headrace.cli.dead import dead
from headrace.cli.gateway import gateway
from headrace.cli.jobs import jobs
from headrace.cli.models import models
from headrace.cli.plan import plan
from headrace.cli.simulate import simulate
from headrace.cli.status import status
from headrace.cli.told import told_plainly
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

for command in (up, check, call, models, status, gateway, worker, clerk, simulate, plan):
    app.command()(command)
for name, noun in (("jobs", jobs), ("dead", dead), ("webhooks", webhooks)):
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
      headrace simulate                   what a policy of capacity comes to, on past traffic

    \b
    `headrace COMMAND --help` shows examples.
    """


def main() -> None:
    """The entry point: errors that are the caller's are told in one line."""
    with told_plainly():
        app(sys.argv[1:], prog_name="headrace")
