"""`headrace runs`: what was trained, with what, and what came of it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from headrace.cli.told import DEFAULT_FILE, File, Json, say_hint, say_json
from headrace.cli.train import RegistryUrl, Tracking, conclude, misuse_told, placed, settled

runs = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Runs of pipelines, what they measured, and how they ended.

    \b
      headrace runs list                            the newest first
      headrace runs show last                       steps, gates, what went wrong
      headrace runs resume 20261122-193201-4f2a     behind the steps that have finished
      headrace runs compare 20261122-19 last        side by side
    """,
)

Id = Annotated[
    str, typer.Argument(help='A run, the beginning of its id, or "last".', metavar="RUN")
]


@runs.command("list")
def list_runs(
    pipeline: Annotated[
        str, typer.Option(help="Of this pipeline alone.", metavar="NAME", show_default="all")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    file: File = DEFAULT_FILE,
    tracking: Tracking = "",
    json: Json = False,
) -> None:
    """List runs, the newest first.

    \b
      headrace runs list
      headrace runs list --pipeline wines --json | jq -r '.[] | [.id, .state] | @tsv'

    "interrupted" is a run whose process is gone: `headrace runs resume` goes on with it. A "+"
    behind the commit: files were changed since.
    """
    from headrace.cli.run_tables import show_list

    with placed(settled(file), tracking) as at:
        found = at.tracker.runs(limit, pipeline)
    if json:
        say_json(found)
    else:
        show_list(found)


@runs.command("show")
def show_run(
    run: Id, file: File = DEFAULT_FILE, tracking: Tracking = "", json: Json = False
) -> None:
    """Show one run: steps, digests, metrics, the verdict of each gate.

    \b
      headrace runs show last
      headrace runs show 20261122-193201-4f2a --json | jq .verdicts
    """
    from headrace.cli.run_tables import show_one
    from headrace.pipeline.track import one

    with misuse_told(), placed(settled(file), tracking) as at:
        found = one(at.tracker, run)
        series = [] if json else at.tracker.series(found.id)
    if json:
        say_json(found)
    else:
        show_one(found, series)


@runs.command("resume")
def resume_run(
    run: Id,
    step: Annotated[
        str,
        typer.Option("--from", help="Again from this step on.", metavar="STEP", show_default=False),
    ] = "",
    changed: Annotated[
        bool, typer.Option("--changed", help="Also where the code is not that of its beginning.")
    ] = False,
    file: File = DEFAULT_FILE,
    tracking: Tracking = "",
    registry: RegistryUrl = "",
    json: Json = False,
) -> None:
    """Go on with a run that was interrupted, or whose step failed.

    \b
      headrace runs resume last
      headrace runs resume 20261122-193201-4f2a --changed      its code was mended
      headrace runs resume 20261122-193201-4f2a --from gate    its gates were

    Steps that have finished are not run again: what they left is read from the house's state.
    """
    from headrace.cli.run_view import Shown
    from headrace.pipeline.durable import Engine
    from headrace.pipeline.track import one

    with misuse_told(), placed(settled(file), tracking, registry) as at:
        found = one(at.tracker, run)
        try:
            with Shown(quiet=json) as shown, Engine(at, shown, f"run-{found.id}").open() as engine:
                ended = engine.resume(found, step, changed)
        except KeyboardInterrupt:
            # The step runs in a thread, which no signal reaches.
            say_hint(f"interrupted; headrace runs resume {found.id}")
            os._exit(130)
    conclude(ended, json)


@runs.command("compare")
def compare_runs(
    chosen: Annotated[list[str], typer.Argument(help="Two or more of them.", metavar="RUN...")],
    file: File = DEFAULT_FILE,
    tracking: Tracking = "",
    json: Json = False,
) -> None:
    """Compare runs: parameters, metrics, gates, code and data side by side.

    \b
      headrace runs compare 20261122-193201-4f2a last
      headrace runs compare 20261121-030000-77c1 last --json | jq .metrics

    What is the same in all of them is dim.
    """
    from headrace.cli.run_tables import compare, show_compared
    from headrace.pipeline.track import one

    if len(chosen) < 2:
        raise typer.BadParameter("expected two runs or more", param_hint="RUN")
    with misuse_told(), placed(settled(file), tracking) as at:
        found = compare([one(at.tracker, word) for word in chosen])
    if json:
        say_json(found)
    else:
        show_compared(found)
