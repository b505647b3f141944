"""What can be asked of a house about webhooks."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, urlencode

import msgspec

from headrace.client.asks import Ask
from headrace.client.read import read_as
from headrace.client.write import Body


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tenant is told. `secret` is known only of one just made or rotated. Times are Unix
    seconds; `failing_since`: from when on no delivery was taken."""

    id: str
    url: str
    events: list[str]
    enabled: bool
    created: float
    failing_since: float | None = None
    note: str = ""
    old_secret_until: float | None = None
    secret: str = ""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way. `state`: waiting, delivered, failed (given up), dropped."""

    id: str
    event: str
    state: str
    tries: int
    created: float
    job_id: str = ""
    due: float | None = None
    last_status: int | None = None
    last_error: str = ""


class DeliveryPage(msgspec.Struct, frozen=True):
    """`next`: the cursor of the page that follows, None on the last."""

    deliveries: list[Delivery]
    next: str | None = None


class _List(msgspec.Struct):
    webhooks: list[Webhook]


class _Event(msgspec.Struct):
    id: str


def add(url: str, events: Iterable[str], note: str) -> Ask[Webhook]:
    return _hook("POST", "/webhooks", {"url": url, "events": list(events) or ["*"], "note": note})


def listed() -> Ask[list[Webhook]]:
    return Ask("GET", "/webhooks", lambda reply: read_as(reply, _List).webhooks, timed=False)


def show(id: str) -> Ask[Webhook]:
    return _hook("GET", _path(id))


def rotate(id: str, overlap_s: float | None) -> Ask[Webhook]:
    return _hook(
        "POST", f"{_path(id)}/rotate", {} if overlap_s is None else {"overlap_s": overlap_s}
    )


def test(id: str) -> Ask[str]:
    """The id of the test event."""
    return Ask(
        "POST", f"{_path(id)}/test", lambda reply: read_as(reply, _Event).id, answers=(202,),
        timed=False,
    )  # fmt: skip


def remove(id: str) -> Ask[None]:
    return Ask("DELETE", _path(id), lambda _: None, timed=False)


def deliveries(id: str, limit: int, cursor: str | None = None) -> Ask[DeliveryPage]:
    query = urlencode({"limit": limit} | ({"cursor": cursor} if cursor else {}))
    path = f"{_path(id)}/deliveries?{query}"
    return Ask("GET", path, lambda reply: read_as(reply, DeliveryPage), timed=False)


def _hook(method: str, path: str, body: object = None) -> Ask[Webhook]:
    data = None if body is None else Body("application/json", msgspec.json.encode(body))
    return Ask(method, path, lambda reply: read_as(reply, Webhook), data, timed=False)


def _path(id: str) -> str:
    return f"/webhooks/{quote(id, safe='')}"
