"""A version in the class that will serve it: does it load, is it right, how long does it take?"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

from headrace.errors import Refusal
from headrace.jobs import Form
from headrace.likeness import close
from headrace.model import Model
from headrace.signature import Signature

#: Latency is of this many calls, or of as many as fit into the time.
CALLS = 200
WARM_CALLS = 5
BUDGET_S = 2.0
GOLDEN_CALLS = 8
#: Golden calls travel in the manifest: larger ones stay out.
GOLDEN_BYTES = 4_096


class Latency(NamedTuple):
    p50_ms: float
    p95_ms: float


class Trial:
    def __init__(self, kind: type[Model], files: Path) -> None:
        """Loads it, in this process. Raises what `load` raises."""
        self.signature = Signature(kind)
        self.model = kind()
        self.model.load(files)

    def schemas(self) -> dict[str, Any]:
        return {"input": self.signature.input_schema, "output": self.signature.output_schema}

    def golden(self) -> str:
        """ "right", "wrong: ..." or "" where the model has none."""
        golden = self.model.golden()
        if golden is None:
            return ""
        given, expected = golden
        try:
            [result] = self.model.predict([given])
        except Exception as error:
            return f"wrong: {type(error).__name__}: {error}"
        if isinstance(result, Refusal):
            return f"wrong: {result.detail}"
        right = expected(result) if callable(expected) else self._close(result, expected)
        return "right" if right else f"wrong: it answers {_short(repr(result))}"

    def _close(self, result: Any, expected: Any) -> bool:
        return close(self._plain(result), self._plain(expected))

    def inputs(self, examples: list[Any]) -> list[Any]:
        golden = self.model.golden()
        return list(examples) or ([golden[0]] if golden else [])

    def latency(self, inputs: list[Any]) -> Latency | None:
        """Of single inputs in turn. None without any."""
        if not inputs:
            return None
        for each in inputs[:WARM_CALLS]:
            self.model.predict([each])
        took: list[float] = []
        began = time.perf_counter()
        while len(took) < CALLS and time.perf_counter() - began < BUDGET_S:
            each = inputs[len(took) % len(inputs)]
            start = time.perf_counter()
            self.model.predict([each])
            took.append((time.perf_counter() - start) * 1000)
        took.sort()
        return Latency(_quantile(took, 0.5), _quantile(took, 0.95))

    def calls(self, inputs: list[Any]) -> list[dict[str, Any]]:
        """What it answers, as JSON: the golden calls of this version."""
        found = []
        for each in inputs[:GOLDEN_CALLS]:
            [result] = self.model.predict([each])
            if isinstance(result, Exception):
                continue
            call = {"input": self._plain(each), "output": self._plain(result)}
            if len(json.dumps(call)) <= GOLDEN_BYTES:
                found.append(call)
        return found

    def _plain(self, value: Any) -> Any:
        return json.loads(self.signature.encode(value, Form.JSON))


def _quantile(ordered: list[float], share: float) -> float:
    """The least that `share` of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."
