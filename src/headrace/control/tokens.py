"""What people show over TCP: 256 random bits, of which the settings know a digest alone."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "hrc_"  # what finds lost secrets can find these


def new_token() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: bytes) -> str:
    """As in control.people.NAME.token_sha256. No slow hash: there is nothing to guess."""
    return hashlib.sha256(token).hexdigest()
