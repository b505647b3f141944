"""What a client may ask of a job: `Prefer` (RFC 7240), `Idempotency-Key`, `Headrace-Priority`."""

from __future__ import annotations

import re
from typing import NamedTuple

from headrace.errors import BadRequest
from headrace.httpserver import Request
from headrace.records import Priority

MOST_WAIT_S = 60.0
_WAIT = re.compile(rb"(?:^|,)\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?:[;,]|$)")
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_PRIORITIES = {b"interactive": Priority.INTERACTIVE, b"bulk": Priority.BULK}


class Preference(NamedTuple):
    """`respond_async`: 202 and a job, no wait. `wait_s`: how long first, None: not said."""

    respond_async: bool
    wait_s: float | None


def asks_for_job(headers: dict[bytes, bytes]) -> bool:
    """Is this predict one that is stored?"""
    if b"idempotency-key" in headers:
        return True
    return b"prefer" in headers and b"respond-async" in headers[b"prefer"].lower()


def read_prefer(request: Request) -> Preference:
    """What is not understood is ignored, as the standard says."""
    value = request.headers.get(b"prefer", b"").lower()
    found = _WAIT.search(value)
    wait_s = min(float(found[1]), MOST_WAIT_S) if found else None
    words = [part.strip() for part in value.replace(b";", b",").split(b",")]
    return Preference(b"respond-async" in words, wait_s)


def read_key(request: Request) -> str:
    """The Idempotency-Key, "" for none. Raises BadRequest."""
    value = request.headers.get(b"idempotency-key")
    if value is None:
        return ""
    if len(value) > 1 and value[:1] == value[-1:] == b'"':  # a structured string
        value = value[1:-1]
    if not _KEY.fullmatch(value):
        raise BadRequest(
            "Idempotency-Key: expected 1 to 255 visible ASCII characters",
            code="idempotency-key-invalid",
        )
    return value.decode()


def read_priority(request: Request) -> Priority:
    """Raises BadRequest."""
    value = request.headers.get(b"headrace-priority", b"interactive").lower()
    if value not in _PRIORITIES:
        raise BadRequest("Headrace-Priority: expected interactive or bulk", code="priority-invalid")
    return _PRIORITIES[value]
