"""Webhooks over HTTP: where a tenant is told of the ends of its jobs.

POST   /webhooks                   {"url", "events", "note"}; the secret is shown here alone
GET    /webhooks, /webhooks/{id}   the list; one
DELETE /webhooks/{id}              remove it, with what waits for it
POST   /webhooks/{id}/rotate       a new secret; the old one signs, too, for `overlap_s`
POST   /webhooks/{id}/test         a test event, sent as all others are
GET    /webhooks/{id}/deliveries   what was sent, and what came of it
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from headrace.errors import FieldError, Invalid, NotFound
from headrace.httpapi.answer import answer_json
from headrace.httpapi.body import read_struct
from headrace.httpapi.errands import Errands, bound
from headrace.httpapi.listing import cut, read_listing
from headrace.httpserver import Request
from headrace.records import EVENTS
from headrace.settings import WebhooksSettings

if TYPE_CHECKING:
    from headrace.egress import Egress
    from headrace.store.webhooks import Webhook, Webhooks

T = TypeVar("T")

PATH = re.compile(rb"/webhooks/([0-9a-f]{32})(?:/(rotate|test|deliveries))?")
EVENT_ID = "evt_"
OVERLAP_S, MOST_OVERLAP_S = 86_400.0, 7 * 86_400.0

#: No controls: a note is shown on terminals.
Note = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class Registration(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    url: str
    events: Annotated[list[str], Meta(min_length=1, max_length=len(EVENTS))] = msgspec.field(
        default_factory=lambda: ["*"]
    )
    note: Note = ""


class Rotation(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    overlap_s: Annotated[float, Meta(ge=0, le=MOST_OVERLAP_S)] = OVERLAP_S


class WebhooksApi:
    def __init__(self, errands: Errands[str], settings: WebhooksSettings) -> None:
        self._errands, self._settings = errands, settings
        self._egress: Egress | None = None

    def handle(self, request: Request) -> None:
        """A path that begins with /webhooks."""
        if request.path == b"/webhooks":
            self._errands.run(request, {b"GET": self._list, b"POST": self._add})
            return
        found = PATH.fullmatch(request.path)
        if found is None:
            raise _unknown()
        hook_id = found[1].decode()
        table: dict[bytes, dict[bytes, Any]] = {
            b"": {b"GET": self._get, b"DELETE": self._delete},
            b"rotate": {b"POST": self._rotate},
            b"test": {b"POST": self._test},
            b"deliveries": {b"GET": self._deliveries},
        }
        verbs = table[found[2] or b""]
        self._errands.run(request, {verb: bound(act, hook_id) for verb, act in verbs.items()})

    async def _hooks(self) -> Webhooks:
        store = await self._errands.store()  # first: it loads SQLAlchemy, off the loop
        from headrace.store.webhooks import Webhooks

        return Webhooks(store.database, self._settings.retry_hours * 3600)

    async def _check(self, url: str) -> None:
        """Raises Invalid `url-not-allowed`, `url-fetch-failed`. Connects to nobody."""
        if self._egress is None:
            self._egress = await asyncio.to_thread(_egress, self._settings)
        await self._egress.check(url)

    async def _add(self, request: Request, tenant: str) -> None:
        asked = read_struct(request, Registration)
        unknown = [n for n, event in enumerate(asked.events) if event not in EVENTS]
        if unknown:
            detail = f"expected some of {', '.join(sorted(EVENTS))}"
            raise Invalid(detail, errors=[
                FieldError(f"/events/{n}", "validation-failed", detail) for n in unknown
            ])  # fmt: skip
        await self._check(asked.url)
        events = list(dict.fromkeys(asked.events))
        hook, secret = await (await self._hooks()).add(tenant, asked.url, events, asked.note)
        answer_json(request, _view(hook) | {"secret": secret}, 200, _NO_STORE)

    async def _list(self, request: Request, tenant: str) -> None:
        hooks = await (await self._hooks()).all(tenant)
        answer_json(request, {"webhooks": [_view(hook) for hook in hooks]})

    async def _get(self, request: Request, tenant: str, hook_id: str) -> None:
        answer_json(request, _view(_known(await (await self._hooks()).get(tenant, hook_id))))

    async def _delete(self, request: Request, tenant: str, hook_id: str) -> None:
        if not await (await self._hooks()).delete(tenant, hook_id):
            raise _unknown()
        answer_json(request, {"id": hook_id, "removed": True})

    async def _rotate(self, request: Request, tenant: str, hook_id: str) -> None:
        asked = read_struct(request, Rotation) if request.body else Rotation()
        hooks = await self._hooks()
        hook, secret = _known(await hooks.rotate(tenant, hook_id, asked.overlap_s))
        answer_json(request, _view(hook) | {"secret": secret}, 200, _NO_STORE)

    async def _test(self, request: Request, tenant: str, hook_id: str) -> None:
        event_id = _known(await (await self._hooks()).test(tenant, hook_id))
        deliveries = f"/webhooks/{hook_id}/deliveries"
        answer_json(request, {"id": event_id, "links": {"deliveries": deliveries}}, 202)

    async def _deliveries(self, request: Request, tenant: str, hook_id: str) -> None:
        asked = read_listing(request, tenant)
        before = EVENT_ID + asked.before if asked.before else ""
        hooks = await self._hooks()
        _known(await hooks.get(tenant, hook_id))
        found = await hooks.deliveries(tenant, hook_id, before=before, limit=asked.limit + 1)
        page, after = cut(found, asked.limit, tenant, lambda d: d.id.removeprefix(EVENT_ID))
        deliveries = [msgspec.to_builtins(delivery) for delivery in page]
        answer_json(request, {"deliveries": deliveries, "next": after})


_NO_STORE = b"Cache-Control: no-store\r\n"  # a secret is in it


def _egress(settings: WebhooksSettings) -> Egress:
    """Imported here: a gateway that nobody gives an address has no use for it."""
    from headrace.egress import egress_of

    return egress_of(settings)


def _view(hook: Webhook) -> dict[str, Any]:
    view: dict[str, Any] = msgspec.to_builtins(hook)
    return view


def _known(found: T | None) -> T:
    """Raises NotFound: one word for what is not there and what is another tenant's."""
    if found is None:
        raise _unknown()
    return found


def _unknown() -> NotFound:
    return NotFound("no such webhook", code="webhook-not-found")
