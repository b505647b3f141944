"""`headrace plan`: what nodes carry and cost, and a demand -> nodes, zones and cost a month."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.table import table_of
from headrace.cli.told import MISUSED, REFUSED, Json, console, say_error, say_hint, say_json

if TYPE_CHECKING:
    from headrace.autoscale.plan import Plan, WhatIf


def plan(
    file: Annotated[Path, typer.Argument(help="Nodes, zones and demand.", metavar="FILE.toml")],
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            help="Beside it, otherwise than the file says; repeat it.",
            metavar="packing=K,node=NAME,slo=SECONDS,mode=peak|follow",
        ),
    ] = None,
    json: Json = False,
    plot: Annotated[
        str | None, typer.Option(help="Draw it.", metavar="FILE.png", show_default=False)
    ] = None,
) -> None:
    """Work out nodes, zones and cost for a demand.

    \b
      headrace plan examples/capacity/ekyc.toml
      headrace plan nodes.toml --what-if node=a10 --what-if packing=1,slo=2
      headrace plan nodes.toml --json | jq '.[0] | {peak_nodes, cost_month}'

    Three plans are always made: the counts of the busiest hour all the time with one model process
    a node; the same with the best packing that was measured; and counts that follow the hours.
    The exit status is 1 where the demand cannot be met.
    """
    try:
        import scipy  # type: ignore[import-untyped]  # noqa: F401

        from headrace.autoscale.capacity import BadCapacity, read
        from headrace.autoscale.plan import NoPlan
    except ModuleNotFoundError as error:
        say_error(f"{error.name} is not installed")
        say_hint("pip install 'headrace[autoscale]'")
        raise typer.Exit(MISUSED) from None
    try:
        plans = _plans(read(file), [asked(text) for text in what_if or []])
    except BadCapacity as error:
        say_error(str(error))
        raise typer.Exit(MISUSED) from None
    except NoPlan as error:
        say_error(str(error))
        raise typer.Exit(REFUSED) from None
    if plot:
        _draw(plans, Path(plot))
    if json:
        import msgspec

        say_json([msgspec.to_builtins(one) | {"name": name} for name, one in plans.items()])
    else:
        show(plans)


def _plans(capacity: object, asked_for: list[WhatIf]) -> dict[str, Plan]:
    from headrace.autoscale.capacity import Capacity
    from headrace.autoscale.plan import WhatIf
    from headrace.autoscale.plan import plan as make

    assert isinstance(capacity, Capacity)
    wanted = [WhatIf(mode="peak"), WhatIf(mode="follow"), *asked_for]
    if any(p.workers == 1 for kind in capacity.nodes for p in kind.packing):
        wanted.insert(0, WhatIf(mode="peak", packing=1))
    return {title(what): make(capacity, what) for what in wanted}


def asked(text: str) -> WhatIf:
    """ "packing=1,slo=2" -> what it says. Raises BadParameter."""
    import msgspec

    from headrace.autoscale.plan import WhatIf

    names = {"packing": "packing", "node": "node", "slo": "slo_s", "mode": "mode"}
    given = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name.strip() not in names or not value:
            raise typer.BadParameter(
                f"{part!r}: expected packing=K, node=NAME, slo=SECONDS or mode=peak|follow",
                param_hint="--what-if",
            )
        given[names[name.strip()]] = value.strip()
    try:
        return msgspec.convert(given, WhatIf, strict=False)
    except msgspec.ValidationError as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint="--what-if") from None


def title(what: WhatIf) -> str:
    said = ["the peak, always" if what.mode == "peak" else "following the hours"]
    if what.packing is not None:
        said.append(f"k = {what.packing}")
    if what.node is not None:
        said.append(what.node)
    if what.slo_s is not None:
        said.append(f"p95 {what.slo_s:g} s")
    return ", ".join(said)


def show(plans: dict[str, Plan]) -> None:
    numbers = ("calls/s", "nodes", "node hours", "cost a month", "saved")
    table = table_of("plan", "k", "at the peak", *numbers, right=numbers, whole=("plan",))
    first = next(iter(plans.values())).cost_month
    for name, one in plans.items():
        saved = 1 - one.cost_month / first
        table.add_row(
            name,
            " ".join(sorted({str(k) for k in one.packing.values()})),
            zones(one),
            f"{one.peak_rate:,.0f}",
            str(one.peak_nodes),
            f"{one.node_hours_month:,.0f}",
            f"{one.cost_month:,.0f}",
            f"{saved:.0%}" if saved else "-",
        )
    console().print(table)


def zones(one: Plan) -> str:
    """ "9 t4 in a, 8 in b"."""
    said, last = [], ""
    for place in sorted(one.peak, key=lambda place: (place.node, place.zone)):
        kind = "" if place.node == last else f" {place.node}"
        said.append(f"{place.count}{kind} in {place.zone}")
        last = place.node
    return ", ".join(said)


def _draw(plans: dict[str, Plan], path: Path) -> None:
    try:
        from headrace.cli.capacity_plots import draw_plans
    except ModuleNotFoundError as error:
        say_error(f"--plot: {error.name} is not installed")
        say_hint("pip install 'headrace[plots]'")
        raise typer.Exit(MISUSED) from None
    draw_plans(plans, path)
