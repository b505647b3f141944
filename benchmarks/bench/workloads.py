"""The workloads: what is sent, and what must come back.

Each workload has more inputs than there are connections, sent in turn: no two calls in flight are
the same, so a server that runs identical calls once gains nothing by it.
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
SEED = 20261122
ROWS = 4096
PHOTOS = 256
PROVEN = 64  # of the inputs, asked before and after each load
MEAN_TOLERANCE = 0.5  # decoders may round differently
SCORE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Case:
    """One input and its answer; the input is a JSON value, or bytes for a picture."""

    value: Any
    answer: Any


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    content_type: str
    tolerance: float
    cases: Sequence[Case]

    def sample(self) -> Sequence[Case]:
        """The inputs that a server is proven with."""
        return self.cases[:: max(1, len(self.cases) // PROVEN)]

    def accepts(self, case: Case, got: Any) -> bool:
        """Is this the right answer? Numbers and lists of numbers, within the tolerance."""
        wanted = case.answer if isinstance(case.answer, list) else [case.answer]
        given = got if isinstance(got, list) else [got]
        return len(wanted) == len(given) and all(
            isinstance(number, int | float)
            and math.isclose(number, want, rel_tol=0, abs_tol=self.tolerance)
            for want, number in zip(wanted, given, strict=True)
        )


def _sums() -> list[Case]:
    chance = random.Random(SEED)
    rows = [[round(chance.uniform(-1, 1), 4) for _ in range(16)] for _ in range(ROWS)]
    return [Case(row, sum(row)) for row in rows]


def _scores() -> list[Case]:
    known = json.loads((DATA / "expected.json").read_text())
    return [Case(row, scores) for row, scores in zip(known["rows"], known["scores"], strict=True)]


def _photos() -> list[Case]:
    photo = (DATA / "photo.jpg").read_bytes()
    mean = json.loads((DATA / "expected.json").read_text())["mean"]
    return [Case(_marked(photo, number), mean) for number in range(PHOTOS)]


def _marked(photo: bytes, number: int) -> bytes:
    """The same picture, other bytes: a comment segment after the start-of-image marker."""
    comment = f"{number:04}".encode()
    return photo[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + photo[2:]


@cache
def workload(name: str) -> Workload:
    as_json = "application/json"
    match name:
        case "w1":
            return Workload(name, "no-op JSON: 16 floats to their sum", as_json, 1e-6, _sums())
        case "w2":
            title = "fixed-cost batches: 5 ms + 0.2 ms an item, at most 32 (ideal 2807/s)"
            return Workload(name, title, as_json, 1e-6, _sums())
        case "w2slow":
            title = "W2 ten times slower: 50 ms + 2 ms an item (ideal 281/s)"
            return Workload(name, title, as_json, 1e-6, _sums())
        case "w3":
            title = "ONNX MLP: 64 floats to 8, batches to 64"
            return Workload(name, title, as_json, SCORE_TOLERANCE, _scores())
        case "w4":
            title = "60 KB JPEG decoded to RGB, then its mean"
            return Workload(name, title, "image/jpeg", MEAN_TOLERANCE, _photos())
    raise ValueError(f"unknown workload {name!r}: w1, w2, w3, w4 or w2slow")


NAMES = ("w1", "w2", "w3", "w4")
