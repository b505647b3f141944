"""Cursors: a page's end comes back as it was, and nothing else is taken for one."""

import base64
import hashlib

import pytest

from headrace.errors import BadRequest
from headrace.httpapi.cursor import read_cursor, write_cursor
from headrace.records import new_id


def test_there_and_back():
    last = new_id()
    cursor = write_cursor("acme", last)
    assert read_cursor("acme", cursor) == last
    assert cursor.isascii() and "=" not in cursor and last not in cursor


def forged(text: bytes, tenant: str = "acme") -> str:
    """By one who has read the source."""
    check = hashlib.blake2b(tenant.encode() + b"\0" + text, digest_size=6).digest()
    return base64.urlsafe_b64encode(check + text).decode().rstrip("=")


GOOD = write_cursor("acme", "0" * 32)
BAD = {
    "empty": "", "short": "AAAA", "no base64": "????", "not ASCII": "\xe9\xe9",
    "spaces": " " + GOOD,
    "longer": GOOD + "AAAA", "cut": GOOD[:-2], "changed": "A" + GOOD[1:], "padded": GOOD + "===",
    "another tenant's": write_cursor("other", "0" * 32), "nul": forged(b"\0" * 32),
    "no id": forged(b"zz"), "sql": forged(b"' OR 1=1 --"), "upper case": forged(b"A" * 32),
    "not UTF-8": forged(b"\xff" * 32), "huge": "A" * 8000,
}  # fmt: skip


@pytest.mark.parametrize("cursor", BAD.values(), ids=BAD.keys())
def test_what_no_list_gave(cursor):
    with pytest.raises(BadRequest) as refusal:
        read_cursor("acme", cursor)
    assert refusal.value.code == "invalid-cursor"
