"""Where the next page of a list begins, as an opaque text that only its own tenant can use."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from headrace.errors import BadRequest

_ID = re.compile(r"[0-9a-f]{32}")


def write_cursor(tenant: str, last: str) -> str:
    return base64.urlsafe_b64encode(_check(tenant, last) + last.encode()).decode().rstrip("=")


def read_cursor(tenant: str, cursor: str) -> str:
    """The id after which the page begins. Raises BadRequest."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        data = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
        last = data[6:].decode("ascii")
    except (binascii.Error, ValueError):
        last, data = "", b""
    if not _ID.fullmatch(last) or data[:6] != _check(tenant, last):
        raise BadRequest("cursor: expected one that a list gave", code="invalid-cursor")
    return last


def _check(tenant: str, last: str) -> bytes:
    return hashlib.blake2b(f"{tenant}\0{last}".encode(), digest_size=6).digest()
