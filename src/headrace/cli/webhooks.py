"""`headrace webhooks`: where you are told of the ends of stored jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from headrace.cli.table import escaped, moment, table_of
from headrace.cli.told import DEFAULT_URL, REFUSED, Json, Url, console, say_error, say_json

if TYPE_CHECKING:
    from headrace.client.asks import Ask
    from headrace.client.hooks import Delivery, Webhook

T = TypeVar("T")
TEST_S = 15.0  # `test` waits so long to see what comes of its event

Id = Annotated[str, typer.Argument(help="As in `headrace webhooks list`.", metavar="ID")]

webhooks = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Be told when stored jobs end.

    \b
      headrace webhooks add https://example.com/hook --event job.succeeded --event job.dead
      headrace webhooks test ID             did it arrive?
      headrace webhooks deliveries ID       what was sent, and what came of it

    Each event is signed with the secret that `add` shows once: docs/webhooks.md has ten lines of
    Python that verify it.
    """,
)


@webhooks.command()
def add(
    to: Annotated[str, typer.Argument(help="https:// and a public address.", metavar="URL")],
    event: Annotated[
        list[str] | None,
        typer.Option(help="Which ends; repeat it. All of them by default.", metavar="EVENT"),
    ] = None,
    note: Annotated[str, typer.Option(help="For you.", metavar="TEXT")] = "",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Register a webhook, and show its secret, once.

    \b
      headrace webhooks add https://example.com/hook
      headrace webhooks add https://example.com/hook --event job.dead --note "pages ops"

    Events: job.succeeded, job.failed (the model refused the input), job.dead (its runs came to no
    result), job.expired, job.cancelled; "*" is all.
    """
    from headrace.client import hooks

    show_secret(ask(url, hooks.add(to, event or [], note)), json)


@webhooks.command("list")
def list_(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """List the webhooks."""
    from headrace.client import hooks

    found = ask(url, hooks.listed())
    if json:
        say_json([plain(hook) for hook in found])
        return
    rows = [(h.id, h.url, ", ".join(h.events), state_of(h)[0], h.note) for h in found]
    table(("id", "url", "events", "state", "note"), rows)


@webhooks.command()
def show(id: Id, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show one webhook."""
    from headrace.client import hooks

    hook = ask(url, hooks.show(id))
    if json:
        say_json(plain(hook))
    else:
        show_one(hook)


@webhooks.command()
def rotate(
    id: Id,
    overlap: Annotated[
        str, typer.Option(help="How long the old secret signs, too: 24h, 30m, 0.", metavar="TIME")
    ] = "24h",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Make a new secret, and show it, once.

    \b
      headrace webhooks rotate ID                  both secrets sign for 24 hours
      headrace webhooks rotate ID --overlap 0      the old one has leaked

    Until the overlap is over each event has two signatures: change the secret at your side in that
    time, and no event is refused.
    """
    from headrace.client import hooks

    show_secret(ask(url, hooks.rotate(id, hours(overlap))), json)


@webhooks.command("test")
def send_test(id: Id, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Send a test event, and say what came of it. The exit status is 1 where it was not taken."""
    from headrace.client import hooks

    event_id = ask(url, hooks.test(id))
    end = time.monotonic() + TEST_S
    while True:
        found = [d for d in ask(url, hooks.deliveries(id, 50)).deliveries if d.id == event_id]
        if (found and found[0].tries) or time.monotonic() > end:
            break
        time.sleep(0.1)
    if json:
        say_json(found[0] if found else {"id": event_id})
    elif found and found[0].state == "delivered":
        console().print(f"[green]taken[/], answered with {found[0].last_status}")
    if not found or found[0].state != "delivered":
        if not json:
            say_error(why_not(found[0] if found else None))
        raise typer.Exit(REFUSED)


@webhooks.command()
def remove(id: Id, url: Url = DEFAULT_URL) -> None:
    """Remove a webhook, and what waits for it."""
    from headrace.client import hooks

    ask(url, hooks.remove(id))
    console().print("removed")


@webhooks.command()
def deliveries(
    id: Id,
    limit: Annotated[int, typer.Option(min=1, max=200, help="The newest so many.")] = 20,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List what was sent, newest first, and what came of it."""
    from headrace.client import hooks

    page = ask(url, hooks.deliveries(id, limit))
    if json:
        say_json(page)
        return
    rows = [
        (d.id, d.event, d.job_id or "-", d.state, str(d.tries), at(d.due),
         str(d.last_status or "-"), d.last_error)
        for d in page.deliveries
    ]  # fmt: skip
    table(("id", "event", "job", "state", "tries", "next", "status", "error"), rows)


def ask(url: str, what: Ask[T]) -> T:
    """Once: what was added or rotated twice has a secret that nobody saw."""
    from headrace.client import Client

    try:
        house = Client(url, deadline_s=10.0, retries=0)
    except Exception as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None
    with house:
        return house._run(what)


def show_secret(hook: Webhook, json: bool) -> None:
    if json:
        say_json(plain(hook) | {"secret": hook.secret})
        return
    show_one(hook)
    out = console()
    out.print(f"\n[bold]secret[/]  {hook.secret}", soft_wrap=True)
    out.print("[dim]Keep it where your receiver reads it: it is not shown again.[/]")


def plain(hook: Webhook) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = msgspec.to_builtins(hook)
    del fields["secret"]
    return fields


def show_one(hook: Webhook) -> None:
    out, (state, colour) = console(), state_of(hook)
    out.print(f"[bold]{hook.id}[/] [{colour}]{state}[/]")
    for name, value in (
        ("url", hook.url), ("events", ", ".join(hook.events)), ("note", hook.note),
        ("created", at(hook.created)),
    ):  # fmt: skip
        if value:
            out.print(f"{name:8}{value}", markup=False, soft_wrap=True)


def state_of(hook: Webhook) -> tuple[str, str]:
    """In words, and the colour of them."""
    if not hook.enabled:
        return "off", "red"
    if hook.failing_since:
        return f"failing since {at(hook.failing_since)}", "yellow"
    return "on", "green"


def why_not(delivery: Delivery | None) -> str:
    if delivery is None or not delivery.tries:
        return f"not sent in {TEST_S:g} s: is a clerk running? (`headrace status`)"
    again = f"; tried again at {at(delivery.due)}" if delivery.due else ""
    return f"not taken: {delivery.last_error}{again}"


def at(unix_s: float | None) -> str:
    return "-" if unix_s is None else moment(unix_s)


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    shown = table_of(*headings)
    for row in rows:
        shown.add_row(*map(escaped, row))
    console().print(shown)


def hours(text: str) -> float:
    """ "24h", "30m", "90s" or "0" -> seconds. Raises BadParameter."""
    scales = {"h": 3600.0, "m": 60.0, "s": 1.0}
    number, scale = (text[:-1], scales[text[-1]]) if text[-1:] in scales else (text, 1.0)
    try:
        value = float(number) * scale
    except ValueError:
        value = -1.0
    if not 0 <= value <= 7 * 86_400:
        raise typer.BadParameter(f"{text!r}: expected 0 to 168h, as 24h or 30m")
    return value
