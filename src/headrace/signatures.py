"""Signed webhooks, as the Standard Webhooks specification has them.

    webhook-id: evt_2b7c          stable over retries: what was seen before is a repetition
    webhook-timestamp: 1700000000 of this attempt
    webhook-signature: v1,base64(HMAC-SHA256(id.timestamp.body)) v1,...

One signature for each secret that is valid: two while a secret is being rotated. What is signed are
the bytes of the body as they travel, never JSON read and written again.
"""

from __future__ import annotations

import binascii
import hmac
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping

PREFIX = "whsec_"
TOLERANCE_S = 300
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"


class SignatureWrong(ValueError):
    """The bytes do not come from who shares the secret, or not now. Says nothing of the secret."""


def new_secret() -> str:
    """256 random bits, as `whsec_...`."""
    return PREFIX + b64encode(secrets.token_bytes(32)).decode()


def sign(keys: Iterable[str], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers. `keys`: the valid secrets, the newest first. `id` has no full stop.

    Raises ValueError."""
    if "." in id:  # id "a.1", time 2 and id "a", time 1, body "2...." would sign the same bytes
        raise ValueError(f"webhook id {id!r}: no full stop")
    signed = _signed(id, timestamp, body)
    signatures = [f"v1,{b64encode(_mac(key, signed)).decode()}" for key in keys]
    if not signatures:
        raise ValueError("no secret to sign with")
    return {ID: id, TIMESTAMP: str(timestamp), SIGNATURE: " ".join(signatures)}


def verify(
    keys: str | Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float | None = None,
    tolerance_s: float = TOLERANCE_S,
) -> str:
    """The id of a webhook whose signature is right by one of the secrets. `body`: the raw bytes.

    Who acts on webhooks keeps the ids for a day and drops what it has seen: deliveries repeat.

    Raises SignatureWrong; ValueError where a secret is none."""
    given = {name.lower(): value for name, value in headers.items()}
    try:
        name, at, signatures = given[ID], given[TIMESTAMP], given[SIGNATURE]
    except KeyError as missing:
        raise SignatureWrong(f"header {missing.args[0]} is missing") from None
    if not name or not name.isascii() or "." in name:
        raise SignatureWrong(f"header {ID}: expected ASCII without full stops")
    if not (at.isascii() and at.isdigit() and len(at) <= 15):
        raise SignatureWrong(f"header {TIMESTAMP}: expected Unix seconds")
    if abs((time.time() if now is None else now) - int(at)) > tolerance_s:
        raise SignatureWrong(f"sent more than {tolerance_s:g} s ago, or the clocks disagree")
    signed = _signed(name, at, body)
    wanted = [_mac(key, signed) for key in ([keys] if isinstance(keys, str) else keys)]
    # All are compared, and each in constant time: how long it takes tells nothing.
    equal = [hmac.compare_digest(a, b) for a in wanted for b in _v1(signatures)]
    if not any(equal):
        raise SignatureWrong("no signature matches")
    return name


def check_secret(key: str) -> None:
    """Raises ValueError, without the secret in its words."""
    _key(key)


def _signed(id: str, timestamp: int | str, body: bytes) -> bytes:
    return f"{id}.{timestamp}.".encode() + body


def _mac(key: str, signed: bytes) -> bytes:
    return hmac.digest(_key(key), signed, "sha256")


def _key(key: str) -> bytes:
    text = key.removeprefix(PREFIX)
    try:
        raw = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not 16 <= len(raw) <= 64:
        raise ValueError(f"webhook secret: expected {PREFIX} and 16 to 64 bytes in base64")
    return raw


def _v1(signatures: str) -> list[bytes]:
    """Those of other versions are for others to judge; what is no base64 matches nothing."""
    found = []
    for entry in signatures.split(" ")[:16]:
        version, _, text = entry.partition(",")
        if version == "v1":
            try:
                found.append(b64decode(text, validate=True))
            except (binascii.Error, ValueError):
                continue
    return found
