"""`headrace deploy`: the role that rolls versions out, by itself."""

from __future__ import annotations

import typer

from headrace.cli.told import DEFAULT_FILE, Broker, File

deploy = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Versions from the registry to their callers.

    \b
      headrace deploy run -f headrace.toml       the role by itself
      headrace rollout show MODEL                what it does, and why

    `headrace up` starts the role where a model has [models.NAME.deploy];
    docs/architecture/15-rollouts.md says how it decides.
    """,
)


@deploy.callback()
def group() -> None:
    """So that `run` is named also while it is the only one."""


@deploy.command()
def run(file: File = DEFAULT_FILE, broker: Broker = None) -> None:
    """Run one deploy role by itself, until SIGTERM.

    \b
      headrace deploy run -f headrace.toml --broker nats://broker:4222

    It asks the registry which version is meant, starts its workers, moves the calls to it step by
    step and takes them back where it is worse. Of two, on two machines, whoever comes first
    decides. Without one, all calls go on where they go.
    """
    from headrace import roles
    from headrace.settings import load

    settings = load(file, flags={"broker.url": broker})
    roles.run("deploy", settings, roles.run_deploy(settings))
