"""What a worker and its model process say to each other, over a Unix socket pair.

    worker --Start--> child ... --Ready or Broken--> worker
    worker --Run----> child ... --Done-------------> worker

A frame is a 4-byte little-endian length and msgpack.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from headrace.errors import Problem
from headrace.jobs import Form
from headrace.registry.version import Golden
from headrace.signature import Card


class Start(msgspec.Struct, tag="start", array_like=True):
    """What to load: `model` is "module:Class", looked up in `folder` first; where the version has
    `code` of its own, in `files` before that. `known`: its golden calls."""

    model: str
    folder: str
    files: str
    device: str
    slot: int
    max_size: int  # 0: as the model says
    code: bool = False
    known: list[Golden] = []


class Run(msgspec.Struct, tag="run", array_like=True):
    """One batch: the form wanted and the canonical body of each job."""

    items: list[tuple[Form, bytes]]


class Ready(msgspec.Struct, tag="ready", array_like=True):
    """Loaded, warm, and the golden call came out right (or there is none)."""

    card: Card
    load_ms: float
    golden: bool
    warm: list[tuple[int, float]]  # batch size, ms: the first points of the fit


class Broken(msgspec.Struct, tag="broken", array_like=True):
    """Will not serve: why, for a person to read."""

    reason: str


class Done(msgspec.Struct, tag="done", array_like=True):
    """The batch's outcomes in order: a result's bytes or a problem."""

    outcomes: list[bytes | Problem]


_encode = msgspec.msgpack.Encoder().encode
read_to_child = msgspec.msgpack.Decoder(Start | Run).decode
read_to_worker = msgspec.msgpack.Decoder(Ready | Broken | Done).decode


def frame(message: Any) -> bytes:
    body = _encode(message)
    return struct.pack("<I", len(body)) + body
