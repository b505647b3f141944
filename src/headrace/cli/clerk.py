"""`headrace clerk`: one clerk, by itself."""

from __future__ import annotations

from headrace.cli.told import DEFAULT_FILE, Broker, File


def clerk(file: File = DEFAULT_FILE, broker: Broker = None) -> None:
    """Run one clerk by itself, until SIGTERM.

    \b
      headrace clerk -f headrace.toml --broker nats://broker:4222

    It looks after the stored jobs: publishes again what was lost on the way, gives away what a
    dead worker held, ends what expired, removes what is past its time, and brings the database's
    schema up to date. Two of them, on two machines, share the work; without one, jobs are still
    taken and run.
    """
    from headrace import roles
    from headrace.settings import load

    settings = load(file, flags={"broker.url": broker})
    roles.run("clerk", settings, roles.run_clerk(settings))
