"""Protocol buffers without their library: the fields of one message, nothing copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """These bytes are not a message."""


class Field(NamedTuple):
    """`value`: an int of a VARINT, else the bytes."""

    number: int
    wire: int
    value: int | memoryview


def fields(data: memoryview) -> Iterator[Field]:
    """Raises Malformed. Groups are refused: no format that we read has them."""
    at, end = 0, len(data)
    while at < end:
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise Malformed(f"field number {number}")
        if wire == VARINT:
            value, at = varint(data, at)
            yield Field(number, wire, value)
            continue
        if wire == BYTES:
            size, at = varint(data, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise Malformed(f"wire type {wire}")
        if size > end - at:
            raise Malformed(f"field {number} is cut off: {size} bytes, {end - at} are left")
        yield Field(number, wire, data[at : at + size])
        at += size


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at that place, and where the next thing begins. Raises Malformed."""
    value = shift = 0
    end = len(data)
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift > 63:
            raise Malformed("a number of more than ten bytes")
    raise Malformed("a number is cut off")


def signed(value: int) -> int:
    """int64 travels as its two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value


def numbers(field: Field) -> Iterator[int]:
    """Of a repeated integer, packed or not. Raises Malformed."""
    if isinstance(field.value, int):
        yield signed(field.value)
        return
    if field.wire != BYTES:
        raise Malformed(f"field {field.number} is no integer")
    at = 0
    while at < len(field.value):
        value, at = varint(field.value, at)
        yield signed(value)


def text(field: Field) -> str:
    """Raises Malformed."""
    if field.wire != BYTES or isinstance(field.value, int):
        raise Malformed(f"field {field.number} is no text")
    try:
        return bytes(field.value).decode()
    except UnicodeDecodeError:
        raise Malformed(f"field {field.number} is no UTF-8") from None
