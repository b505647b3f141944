"""A result that is kept.

    sealed = mark, BLAKE2b-128 of key and rest, rest (msgpack of `Kept`)

The seal says that these bytes were kept whole under this very key; with another key, cut short or
changed they are nothing. It is no defence against who may write to the cache: that is the server's
password's to be.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

#: Of the format: what an older or a newer house sealed otherwise is a miss.
_MARK = b"HR1\0"
_DIGEST = 16
_HEAD = len(_MARK) + _DIGEST


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """`version` of the model that gave it; `expires` is a Unix time."""

    version: str
    body: bytes
    expires: float


_write = msgspec.msgpack.Encoder().encode
_read = msgspec.msgpack.Decoder(Kept).decode


def seal(key: bytes, kept: Kept) -> bytes:
    rest = _write(kept)
    return b"".join((_MARK, _digest(key, rest), rest))


def unseal(key: bytes, data: bytes) -> Kept | None:
    """None where these are not the bytes that were sealed under this key."""
    rest = data[_HEAD:]
    if data[: len(_MARK)] != _MARK or data[len(_MARK) : _HEAD] != _digest(key, rest):
        return None
    try:
        return _read(rest)
    except msgspec.MsgspecError:
        return None


def _digest(key: bytes, rest: bytes) -> bytes:
    digest = blake2b(key, digest_size=_DIGEST, person=b"headrace-seal")
    digest.update(rest)
    return digest.digest()
