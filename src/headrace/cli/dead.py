"""`headrace dead`: the desk of the jobs that used up their tries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.jobs import Id, Ids, Limit, Model, newest, tell_list, tell_one
from headrace.cli.told import DEFAULT_URL, Json, Url, client, must_agree, plural

if TYPE_CHECKING:
    from headrace.client import Client

dead = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Dead jobs: every try failed, or the input is poison.

    \b
      headrace dead list                        what is there, and why
      headrace dead show 01a2040e0bc3...        its runs, and what was said of each
      headrace dead replay 01a2040e0bc3...      once more, with all its tries
      headrace dead discard --all --model ocr   gone, with input and result
    """,
)

All = Annotated[bool, typer.Option("--all", help="All dead jobs of --model.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dead.command("list")
def list_dead(
    model: Model = "", limit: Limit = 50, url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """List dead jobs, the newest first, with the reason of each.

    \b
      headrace dead list
      headrace dead list --model ocr --json | jq -r '.[] | [.id, .problem.detail] | @tsv'
    """
    with client(url) as house:
        found, more = newest(house, ["dead"], model, limit)
    tell_list(found, more, json, "no dead jobs")


@dead.command("show")
def show_dead(id: Id, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show one: its runs, how each ended, and what is known of it.

    \b
      headrace dead show 01a2040e0bc36ef752a12384b2910f81
    """
    with client(url) as house:
        job = house.job(id)
    tell_one(job, json)


@dead.command("replay")
def replay_dead(
    ids: Ids = None,
    all: All = False,
    model: Model = "",
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Let dead jobs wait again, with all their tries.

    \b
      headrace dead replay 01a2040e0bc36ef752a12384b2910f81
      headrace dead replay --all --model ocr          asks first
      headrace dead replay --all --model ocr --yes

    Mend the cause first: a job that dies again stands here again. One whose input is past its time
    cannot be replayed.
    """
    from headrace.cli.each import each

    with client(url) as house:
        chosen = choose(house, ids, all, model)
        if all and chosen:
            must_agree(f"Replay {plural(len(chosen), 'dead job')} of {model}?", yes)
        each(chosen, house.replay, "replayed", json)


@dead.command("discard")
def discard_dead(
    ids: Ids = None,
    all: All = False,
    model: Model = "",
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Remove jobs for good, with their input and result.

    \b
      headrace dead discard 01a2040e0bc36ef752a12384b2910f81
      headrace dead discard --all --model ocr         asks first

    Named by id it may also be a job that ended in another way; --all means dead ones.
    """
    from headrace.cli.each import each

    with client(url) as house:
        chosen = choose(house, ids, all, model)
        if all and chosen:
            must_agree(f"Discard {plural(len(chosen), 'dead job')} of {model}, for good?", yes)
        each(chosen, house.discard, "discarded", json)


def choose(house: Client, ids: list[str] | None, all: bool, model: str) -> list[str]:
    """The jobs that are named, or all dead ones of the model. Raises BadParameter."""
    if bool(ids) == all:
        raise typer.BadParameter("give ID..., or --all with --model", param_hint="ID")
    if ids:
        if model:
            raise typer.BadParameter("goes with --all, not with ID", param_hint="--model")
        return ids
    if not model:
        raise typer.BadParameter("--all needs it: of which model?", param_hint="--model")
    return [job.id for job in house.jobs(state="dead", model=model)]
