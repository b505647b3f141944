"""What a house allows in a version, beyond what is always allowed."""

from __future__ import annotations

import msgspec

GIB = 1 << 30


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    #: Domains of ONNX operators beside ONNX's own, such as "com.microsoft".
    domains: tuple[str, ...] = ()
    #: SHA-256 (hex) of a Python file -> who has read it, when, and what for.
    trusted: dict[str, str] = {}
    #: All files of a version together.
    max_bytes: int = 8 * GIB
