"""The header in front of an object by which damage is found and the newer of two copies known.

    "HRO" 1 | unix ms, 8 bytes | length, 8 bytes | SHA-256, 32 bytes | the object

The digest is of name, time, length and object: a copy under another name does not pass either.
It guards against accidents. Who can write to the store can write a digest: see `sealed`.
"""

from __future__ import annotations

import hashlib
import struct
import time
from typing import NamedTuple

from headrace.objects.port import ObjectCorrupt

_MAGIC = b"HRO\x01"
_HEADER = struct.Struct(">4sQQ32s")


class Stamped(NamedTuple):
    at_ms: int
    data: bytes


def stamp(name: str, data: bytes, at_ms: int = 0) -> bytes:
    """The object as it is stored; put now unless `at_ms` says when."""
    at_ms = at_ms or int(time.time() * 1000)
    return _HEADER.pack(_MAGIC, at_ms, len(data), _digest(name, at_ms, data)) + data


def unstamp(name: str, stored: bytes) -> Stamped:
    """Raises ObjectCorrupt."""
    if len(stored) < _HEADER.size:
        raise ObjectCorrupt(f"{name}: {len(stored)} bytes are no header")
    magic, at_ms, length, digest = _HEADER.unpack_from(stored)
    data = stored[_HEADER.size :]
    if magic != _MAGIC:
        raise ObjectCorrupt(f"{name}: not stored by this version")
    if length != len(data):
        raise ObjectCorrupt(f"{name}: {len(data)} of {length} bytes")
    if digest != _digest(name, at_ms, data):
        raise ObjectCorrupt(f"{name}: the digest differs")
    return Stamped(at_ms, data)


def _digest(name: str, at_ms: int, data: bytes) -> bytes:
    said = hashlib.sha256(f"{name}\n{at_ms}\n{len(data)}\n".encode())
    said.update(data)
    return said.digest()
