"""Envelope encryption of bytes at rest, wherever they rest: an object or a column of a row.

    "HRS" 1 | length of the key's id, 1 byte | id | wrapped data key, 60 bytes | nonce, 12 | sealed

Each piece of data has a data key of its own (AES-256-GCM), wrapped by the tenant's key. Tenant,
purpose and name are authenticated with both: what is moved to another place does not open there.
A rotation wraps the data key anew and leaves the data as it is.
"""

from __future__ import annotations

import secrets
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headrace.objects.keyring import Key, Keyring, KeyUnknown

_MAGIC = b"HRS\x01"
_NONCE = 12
_WRAPPED = _NONCE + 32 + 16


class SealBroken(Exception):
    """Not what was sealed, not for this place, or sealed by a key that is no more."""


class KeyGone(SealBroken):
    """Sealed by a key that this house does not have, or no longer."""


class Sealer:
    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring

    def seal(self, tenant: str, purpose: str, name: str, data: bytes) -> bytes:
        """Raises KeyUnknown where the tenant has no key."""
        place, key = _place(tenant, purpose, name), self.keyring.newest(tenant)
        return _sealed(key, place, data)

    def open(self, tenant: str, purpose: str, name: str, sealed: bytes) -> bytes:
        """Raises SealBroken."""
        place, (key_id, wrapped, rest) = _place(tenant, purpose, name), _parts(sealed)
        cipher = AESGCM(_unwrap(self._key(tenant, key_id), place, wrapped))
        return _decrypt(cipher, rest, place)

    def rewrap(self, tenant: str, purpose: str, name: str, sealed: bytes) -> bytes:
        """The same data under the tenant's newest key. Raises SealBroken, KeyUnknown."""
        place, (key_id, wrapped, rest) = _place(tenant, purpose, name), _parts(sealed)
        newest = self.keyring.newest(tenant)
        if key_id == newest.id:
            return sealed
        old = self._key(tenant, key_id)
        return _head(newest) + _wrap(newest, place, _unwrap(old, place, wrapped)) + rest

    def _key(self, tenant: str, key_id: str) -> Key:
        try:
            return self.keyring.key(tenant, key_id)
        except KeyUnknown as error:
            raise KeyGone(error.args[0]) from None


def key_id(sealed: bytes) -> str:
    """The id of the key that it is sealed by. Raises SealBroken."""
    return _parts(sealed)[0]


def _place(tenant: str, purpose: str, name: str) -> bytes:
    """What is authenticated, with lengths: `a|bc` and `ab|c` are two places."""
    parts = [part.encode() for part in (tenant, purpose, name)]
    return _MAGIC + b"".join(struct.pack(">I", len(part)) + part for part in parts)


def _head(key: Key) -> bytes:
    return _MAGIC + bytes([len(key.id)]) + key.id.encode()


def _parts(sealed: bytes) -> tuple[str, bytes, bytes]:
    """Key id, wrapped data key, the rest."""
    if sealed[:4] != _MAGIC or len(sealed) < 5:
        raise SealBroken("not sealed by this version")
    start = 5 + sealed[4]
    name, wrapped = sealed[5:start], sealed[start : start + _WRAPPED]
    rest = sealed[start + _WRAPPED :]
    if len(rest) < _NONCE + 16:
        raise SealBroken("cut short")
    return name.decode("ascii", "replace"), wrapped, rest


# A data key is handed on and not named where SealBroken is raised: tracebacks can show names.


def _sealed(key: Key, place: bytes, data: bytes) -> bytes:
    secret = AESGCM.generate_key(256)
    return _head(key) + _wrap(key, place, secret) + _encrypt(AESGCM(secret), data, place)


def _wrap(key: Key, place: bytes, secret: bytes) -> bytes:
    return _encrypt(key.cipher(), secret, _head(key) + place)


def _unwrap(key: Key, place: bytes, wrapped: bytes) -> bytes:
    return _decrypt(key.cipher(), wrapped, _head(key) + place)


def _encrypt(cipher: AESGCM, data: bytes, place: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE)
    return nonce + cipher.encrypt(nonce, data, place)


def _decrypt(cipher: AESGCM, sealed: bytes, place: bytes) -> bytes:
    try:
        return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place)
    except InvalidTag:
        raise SealBroken("not what was sealed here") from None
