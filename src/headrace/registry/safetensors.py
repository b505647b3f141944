"""safetensors: eight bytes of length, a JSON header, numbers without a gap.

"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from headrace.registry.refusals import Rejected

MAX_HEADER = 100_000_000  # the format's own limit
MAX_RANK = 32
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16,
    "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,1000}")


def inspect_safetensors(name: str, data: memoryview) -> None:
    """Raises Rejected."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > MAX_HEADER or length > len(data) - 8:
        raise Rejected(f"{name}: says a header of {length} bytes, and has {len(data)} in all")
    header = _header(name, bytes(data[8 : 8 + length]))
    spans = []
    for tensor, said in header.items():
        if tensor == "__metadata__":
            if not (isinstance(said, dict) and all(isinstance(v, str) for v in said.values())):
                raise Rejected(f"{name}: its metadata are not texts")
        else:
            spans.append(_span(name, tensor, said))
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise Rejected(f"{name}: its tensors overlap, or leave a gap, at byte {begin}")
        at = end
    if at != len(data) - 8 - length:
        raise Rejected(f"{name}: its tensors have {at} bytes of {len(data) - 8 - length}")


def _header(name: str, text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise Rejected(f"{name}: its header is not JSON")
    try:
        header = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"{name}: its header is not JSON: {str(error)[:200]}") from None
    assert isinstance(header, dict)
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _span(name: str, tensor: str, said: Any) -> tuple[int, int]:
    """From and to. Raises Rejected."""
    if not (isinstance(said, dict) and said.keys() == {"dtype", "shape", "data_offsets"}):
        raise Rejected(f"{name}: {tensor[:200]!r} has no dtype, shape and data_offsets, alone")
    shape, offsets, bits = said["shape"], said["data_offsets"], BITS.get(str(said["dtype"]))
    if not (_NAME.fullmatch(tensor) and bits and _whole(shape) and _whole(offsets)):
        raise Rejected(f"{name}: {tensor[:200]!r} is {str(said)[:200]}")
    if len(shape) > MAX_RANK or len(offsets) != 2:
        raise Rejected(f"{name}: {tensor[:200]!r} is {str(said)[:200]}")
    begin, end = offsets
    if end - begin != -(-math.prod(shape) * bits // 8) or end < begin:
        raise Rejected(
            f"{name}: {tensor[:200]!r} says {'x'.join(map(str, shape))} of {said['dtype']} "
            f"and has {end - begin} bytes"
        )
    return begin, end


def _whole(values: Any) -> bool:
    """A list of whole numbers from 0 on; True is none."""
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 1 << 63 for value in values
    )
