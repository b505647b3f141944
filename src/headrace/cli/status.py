"""`headrace status`: the gateway, the models, their workers, what waits, and the pace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cli.table import table_of
from headrace.cli.told import DEFAULT_URL, Json, Url, client, console, say_json

if TYPE_CHECKING:
    from headrace.client import ModelStatus, Status


def status(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the models, their workers, what waits, and the pace.

    \b
      headrace status
      headrace status --json | jq '.models[] | {name, ready, per_second}'
      watch -n1 headrace status

    "stored jobs" are those that wait in the database, "waiting" are messages on the broker.
    The exit status is 0 where the house is ready, 1 where it is not.
    """
    import typer

    with client(url) as house:
        found = house.status()
    if json:
        say_json(found)
    else:
        show(found, url)
    if not found.ready:
        raise typer.Exit(1)


def show(found: Status, url: str) -> None:
    out = console()
    state = "[green]ready[/]" if found.ready else "[yellow]not ready[/]"
    if found.draining:
        state = "[yellow]draining[/]"
    out.print(f"gateway {found.gateway[:8]} at {url}: {state}\n")
    numbers = ["workers", "slots ready", "busy", "in hand", "waiting", "open calls", "pace/s"]
    stored = any(one.jobs_waiting is not None for one in found.models)
    numbers += ["stored jobs"] * stored
    table = table_of("model", "state", *numbers, right=numbers)
    for one in found.models:
        table.add_row(*row(one), *[f"{one.jobs_waiting or 0:,}"] * stored)
    out.print(table)
    for one in found.models:
        for worker in one.workers:
            if not worker.ready:
                out.print(f"{worker.worker}: {worker.reason}", markup=False, soft_wrap=True)


def row(one: ModelStatus) -> list[str]:
    from headrace.cli.models import readiness

    workers = one.workers
    slots = sum(worker.slots for worker in workers)
    return [
        one.name,
        readiness(one),
        str(len(workers)),
        f"{sum(worker.slots_ready for worker in workers)}/{slots}",
        str(sum(worker.busy for worker in workers)),
        str(sum(worker.in_hand for worker in workers)),
        # Every worker of a model looks at the same queue.
        str(max((worker.waiting for worker in workers), default=0)),
        str(one.outstanding + one.elsewhere),
        pace(one.per_second),
    ]


def pace(per_second: float) -> str:
    """0 is not known yet: it is learned from batches."""
    if not per_second:
        return "-"
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.2g}"
