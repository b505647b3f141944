"""`headrace jobs`: submit, list, show, wait for and cancel stored jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.told import DAY_S, DEFAULT_URL, Json, Url, client, say_json, seconds

if TYPE_CHECKING:
    from headrace.client import Client, Job, JobView

jobs = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Stored jobs: they outlive their caller and any process.

    \b
      headrace jobs submit ocr @passport.jpg          prints the job's id
      headrace jobs wait 01a2040df71f...              its result, when it is there
      headrace jobs list --state waiting,running
      headrace dead list                              those that used up their tries
    """,
)

Id = Annotated[str, typer.Argument(help="The job, as `headrace jobs list` shows it.", metavar="ID")]
Ids = Annotated[list[str] | None, typer.Argument(help="Jobs, as `list` shows them.", metavar="ID")]
Model = Annotated[
    str, typer.Option("--model", help="Of this model alone.", metavar="MODEL", show_default=False)
]
Limit = Annotated[int, typer.Option(help="The newest so many.", min=1, metavar="N")]
STATES = ("waiting", "running", "succeeded", "failed", "dead", "expired", "cancelled")
WEEK_S = 7 * DAY_S


@jobs.command("list")
def list_jobs(
    state: Annotated[
        str,
        typer.Option(
            help="In these states, by commas.", metavar="STATE[,STATE]", show_default=False
        ),
    ] = "",
    model: Model = "",
    limit: Limit = 50,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List stored jobs, the newest first.

    \b
      headrace jobs list
      headrace jobs list --state failed,dead --model ocr
      headrace jobs list --limit 1000 --json | jq -r '.[].id'

    States: waiting, running, succeeded, failed (the input is to blame), dead (tries used up),
    expired, cancelled.
    """
    wanted = [word.strip() for word in state.split(",") if word.strip()]
    unknown = [word for word in wanted if word not in STATES]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r}: expected {', '.join(STATES)}", param_hint="--state"
        )
    with client(url) as house:
        found, more = newest(house, wanted, model, limit)
    tell_list(found, more, json, "no jobs" + (" in that state" if wanted else ""))


def newest(house: Client, states: list[str], model: str, limit: int) -> tuple[list[JobView], bool]:
    """At most `limit`, and whether there are more."""
    from itertools import islice

    page = min(limit + 1, 200)
    found = [
        job.view for job in islice(house.jobs(state=states, model=model, page=page), limit + 1)
    ]
    return found[:limit], len(found) > limit


def tell_list(found: list[JobView], more: bool, json: bool, empty: str) -> None:
    from headrace.cli.job_tables import as_json, show_list

    if json:
        say_json([as_json(view) for view in found])
    else:
        show_list(found, more, empty)


@jobs.command("show")
def show_job(id: Id, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show one job: state, runs, and its result or why it has none.

    \b
      headrace jobs show 01a2040df71fd3fbce42115a703e8fe3
    """
    with client(url) as house:
        job = house.job(id)
    tell_one(job, json)


def tell_one(job: Job[object], json: bool) -> None:
    from headrace.cli.job_tables import as_json, show_one

    if json:
        say_json(as_json(job.view, job.result_json))
    else:
        show_one(job.view, job.result_json)


@jobs.command("submit")
def submit_job(
    model: Annotated[
        str, typer.Argument(help="The model's name, as in `headrace models`.", metavar="MODEL")
    ],
    input: Annotated[
        str | None,
        typer.Argument(help="JSON, @FILE with JSON or one image, or - for stdin.", metavar="INPUT"),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            "-F",
            help="One field of a record; repeat it.",
            metavar="NAME=VALUE|NAME=@FILE",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="Submitted again with it: the same job.", show_default=False),
    ] = None,
    bulk: Annotated[
        bool, typer.Option("--bulk", help="It may wait while others are in a hurry.")
    ] = False,
    ttl: Annotated[
        str | None,
        typer.Option(
            help="It expires after that: 30s, 12h, 7d.", metavar="TIME", show_default=False
        ),
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(
            help="Wait so long for the result: 30s, 5m.", metavar="TIME", show_default=False
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Store a job; print its id once it is safe in the database.

    \b
      headrace jobs submit iris '[5.1, 3.5, 1.4, 0.2]'
      headrace jobs submit ocr @passport.jpg --wait 1m
      headrace jobs submit ocr @page-17.jpg --bulk --ttl 7d --key scan-4711-17

    With --key a command that failed half-way may be given again: the job is stored once. A key
    that stood for another input or model is refused.
    """
    from headrace.cli.call import read_fields, read_input

    ttl_s = seconds(ttl, 53 * WEEK_S) if ttl else None
    wait_s = seconds(wait, WEEK_S) if wait else None
    value = read_fields(field) if field else read_input(input)
    if field and input is not None:
        raise typer.BadParameter("give INPUT or --field, not both")
    with client(url) as house:
        priority = "bulk" if bulk else "interactive"
        job = house.submit(model, value, idempotency_key=key, priority=priority, ttl_s=ttl_s)
        if wait_s:
            end_of([job], wait_s, json)
        elif json:
            tell_one(job, json)
        else:
            typer.echo(job.id)


@jobs.command("wait")
def wait_for_jobs(
    ids: Annotated[list[str], typer.Argument(help="Jobs.", metavar="ID")],
    timeout: Annotated[
        str, typer.Option(help="At most so long, all together: 30s, 5m, 12h.", metavar="TIME")
    ] = "1d",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Wait until jobs have ended, and print their results.

    \b
      headrace jobs wait 01a2040df71fd3fbce42115a703e8fe3 --timeout 5m
      headrace jobs list --state waiting --json | jq -r '.[].id' | xargs headrace jobs wait

    The exit status is 0 where all succeeded, 1 where one did not, or not in time. Ctrl-C ends the
    waiting, not the jobs. --json: one line each.
    """
    with client(url) as house:
        end_of([house.job(one) for one in ids], seconds(timeout, WEEK_S), json)


def end_of(waited: list[Job[object]], timeout_s: float, json: bool) -> None:
    """Tells of each as it ends; the status of the command says whether all succeeded."""
    import time

    end = time.monotonic() + timeout_s
    good = True
    for job in waited:
        job.wait(max(0.0, end - time.monotonic()))
        tell_one(job, json)
        good = good and job.state == "succeeded"
    if not good:
        raise typer.Exit(1)


@jobs.command("cancel")
def cancel_jobs(
    ids: Annotated[list[str], typer.Argument(help="Jobs.", metavar="ID")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Take back jobs that have not ended.

    \b
      headrace jobs cancel 01a2040df71fd3fbce42115a703e8fe3
      headrace jobs list --state waiting --json | jq -r '.[].id' | xargs headrace jobs cancel

    A run under way is not stopped by it, but what it comes to is dropped.
    """
    from headrace.cli.each import each

    with client(url) as house:
        each(ids, house.cancel, "cancelled", json)
