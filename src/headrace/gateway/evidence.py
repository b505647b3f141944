"""What becomes of each version's calls, for deploy to judge: totals, times, samples of predictions.

Only of versions whose route says `watched`: it costs some 7 us a call. 20 answers a second of a
version are decoded for what they predict.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import deque
from typing import Any

import msgspec

from headrace.announce import TIMES_MS, Evidence
from headrace.deployments import parted
from headrace.dispatch import POISON
from headrace.errors import Refusal
from headrace.jobs import Outcome

SAMPLE_EVERY_S = 0.05
SEEN_MOST = 200  # values of a field
FIELDS_MOST = 50
TEXT_MOST = 100  # characters
LARGEST = 65_536  # bytes of a result that is decoded
_REFUSED = (503, 504)

_decode = msgspec.json.Decoder().decode


class Witness:
    """Of one version at this gateway, since it was first watched."""

    __slots__ = (
        "_again_at", "_seen", "_times", "answered", "failed", "missing", "other", "refused", "same",
        "workload",
    )  # fmt: skip

    def __init__(self, workload: str) -> None:
        self.workload = workload
        self.answered = self.failed = self.refused = 0
        self.same = self.other = self.missing = 0
        self._times = [0] * len(TIMES_MS)
        self._seen: dict[str, deque[float | str]] = {}
        self._again_at = 0.0

    def note(self, outcome: Outcome | Refusal, took_ms: float, result: bytes = b"") -> None:
        """`result`: JSON of what was answered, to be looked at now and then."""
        if isinstance(outcome, Outcome) and outcome.problem is None:
            self.answered += 1
            self._times[min(bisect_left(TIMES_MS, took_ms), len(TIMES_MS) - 1)] += 1
            if result and (now := time.monotonic()) >= self._again_at:
                self._again_at = now + SAMPLE_EVERY_S
                self._look(result)
            return
        problem = outcome.problem() if isinstance(outcome, Refusal) else outcome.problem
        assert problem is not None
        if problem.code == POISON or (problem.status >= 500 and problem.status not in _REFUSED):
            self.failed += 1
        else:
            self.refused += 1

    def _look(self, result: bytes) -> None:
        if len(result) > LARGEST:
            return
        for field, value in fields_of(_decode(result)).items():
            seen = self._seen.get(field)
            if seen is None:
                if len(self._seen) >= FIELDS_MOST:
                    continue
                seen = self._seen[field] = deque(maxlen=SEEN_MOST)
            seen.append(value)

    def evidence(self, gateway: str) -> Evidence:
        model, version = parted(self.workload)
        return Evidence(
            gateway, model, version, self.answered, self.failed, self.refused,
            {ms: count for ms, count in zip(TIMES_MS, self._times, strict=True) if count},
            {field: list(values) for field, values in self._seen.items()},
            self.same, self.other, self.missing,
        )  # fmt: skip


class Witnesses:
    """Of all versions: their totals outlast the watching."""

    def __init__(self) -> None:
        self._all: dict[str, Witness] = {}

    def of(self, workload: str) -> Witness:
        witness = self._all.get(workload)
        if witness is None:
            witness = self._all[workload] = Witness(workload)
        return witness


def fields_of(value: Any) -> dict[str, float | str]:
    """Numbers, texts and truth values at the top and one level below: "score", "face.age"; "" where
    the result itself is one."""
    found: dict[str, float | str] = {}
    _add(found, "", value)
    if isinstance(value, dict):
        for name, each in value.items():
            _add(found, name, each)
            if isinstance(each, dict):
                for below, one in each.items():
                    _add(found, f"{name}.{below}", one)
    return found


def _add(found: dict[str, float | str], name: str, value: Any) -> None:
    if isinstance(value, bool):
        found[name] = "true" if value else "false"
    elif isinstance(value, int | float):
        if math.isfinite(value):
            found[name] = float(value)
    elif isinstance(value, str):
        found[name] = value[:TEXT_MOST]
