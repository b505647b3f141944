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
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from headrace.errors import (
    BadRequest,
    FieldError,
    Invalid,
    NotFound,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from headrace.gateway.answer import answer_json
from headrace.gateway.cursor import read_cursor, write_cursor
from headrace.gateway.errands import Act, Errands
from headrace.gateway.read import JSON_TYPES, media_type_of, whole_body
from headrace.httpserver import Request
from headrace.records import TERMINAL
from headrace.schema import check_pairs
from headrace.settings import WebhooksSettings

if TYPE_CHECKING:
    from headrace.egress import Egress
    from headrace.store.webhooks import Webhook, Webhooks

T = TypeVar("T")

PATH = re.compile(rb"/webhooks/([0-9a-f]{32})(?:/(rotate|test|deliveries))?")
EVENTS = frozenset(f"job.{state}" for state in TERMINAL) | {"*"}
EVENT_ID = "evt_"
LIMIT, MOST_LISTED = 50, 200
MOST_BODY = 65_536
OVERLAP_S, MOST_OVERLAP_S = 86_400.0, 7 * 86_400.0
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")

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
    def __init__(self, errands: Errands, settings: WebhooksSettings) -> None:
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
        self._errands.run(request, {verb: _with(act, hook_id) for verb, act in verbs.items()})

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
        asked = _read(request, Registration)
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
        asked = _read(request, Rotation) if request.body else Rotation()
        hooks = await self._hooks()
        hook, secret = _known(await hooks.rotate(tenant, hook_id, asked.overlap_s))
        answer_json(request, _view(hook) | {"secret": secret}, 200, _NO_STORE)

    async def _test(self, request: Request, tenant: str, hook_id: str) -> None:
        event_id = _known(await (await self._hooks()).test(tenant, hook_id))
        deliveries = f"/webhooks/{hook_id}/deliveries"
        answer_json(request, {"id": event_id, "links": {"deliveries": deliveries}}, 202)

    async def _deliveries(self, request: Request, tenant: str, hook_id: str) -> None:
        limit, cursor = _page(request)
        before = EVENT_ID + read_cursor(tenant, cursor) if cursor else ""
        hooks = await self._hooks()
        _known(await hooks.get(tenant, hook_id))
        page = await hooks.deliveries(tenant, hook_id, before=before, limit=limit + 1)
        more, page = len(page) > limit, page[:limit]
        answer_json(request, {
            "deliveries": [msgspec.to_builtins(delivery) for delivery in page],
            "next": write_cursor(tenant, page[-1].id.removeprefix(EVENT_ID)) if more else None,
        })  # fmt: skip


_NO_STORE = b"Cache-Control: no-store\r\n"  # a secret is in it


def _egress(settings: WebhooksSettings) -> Egress:
    """Imported here: a gateway that nobody gives an address has no use for it."""
    from headrace.egress import egress_of

    return egress_of(settings)


def _with(act: Any, hook_id: str) -> Act:
    def bound(request: Request, tenant: str) -> Coroutine[Any, Any, None]:
        coroutine: Coroutine[Any, Any, None] = act(request, tenant, hook_id)
        return coroutine

    return bound


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


def _read(request: Request, kind: type[T]) -> T:
    """The body as JSON. Raises Refusal."""
    if media_type_of(request.headers.get(b"content-type", b"")) not in JSON_TYPES:
        raise UnsupportedMediaType("expected Content-Type application/json")
    body = whole_body(request, MOST_BODY)
    if len(body) > MOST_BODY:
        raise PayloadTooLarge(f"expected at most {MOST_BODY} bytes")
    if not body:
        raise BadRequest("the body is empty", code="empty-body")
    check_pairs(body)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        detail, _, place = str(error).partition(" - at `")
        steps = _STEP.findall(place)
        pointer = "".join(f"/{key or index}" for key, index in steps)
        raise Invalid(detail, errors=[FieldError(pointer, "validation-failed", detail)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("the body is not JSON", code="malformed-json") from None
    except RecursionError:
        raise BadRequest("the JSON is nested too deep", code="json-limits") from None


def _page(request: Request) -> tuple[int, str]:
    """limit and cursor. Raises Invalid."""
    pairs = parse_qsl(request.query.decode("latin-1"), keep_blank_values=True)
    query = dict(pairs)
    if len(query) != len(pairs) or query.keys() - {"limit", "cursor"}:
        raise Invalid("expected limit and cursor, once each")
    text = query.get("limit", str(LIMIT))
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise Invalid(f"limit: expected 1 to {MOST_LISTED}")
    return min(int(text), MOST_LISTED), query.get("cursor", "")
