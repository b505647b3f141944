"""Readiness proven by real work: the golden call, then warm-up batches of the sizes to come."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.worker.child import Runner

FULL_BATCH_MS = 1000.0


class GoldenFailed(Exception):
    """The golden call came out wrong: this model must not serve."""


def prove(runner: Runner) -> bool:
    """Runs the golden call. False where the model has none. Raises GoldenFailed."""
    golden = runner.model.golden()
    if golden is None:
        return False
    given, expected = golden
    [result] = runner.predict([given])
    if isinstance(result, Exception):
        raise GoldenFailed(f"golden call: predict answered {result!r}")
    right = expected(result) if callable(expected) else close(result, expected)
    if not right:
        raise GoldenFailed(
            f"golden call: got {_short(result)}"
            + ("" if callable(expected) else f", expected {_short(expected)}")
        )
    return True


def warm(runner: Runner, max_size: int) -> list[tuple[int, float]]:
    """Runs the golden input alone and in a full batch: allocators and kernels are warm, and the
    fit of batch times has its first two points. Gives (size, ms) of each run. A full batch that
    would take longer than a second is left to the first callers: readiness should not wait."""
    golden = runner.model.golden()
    if golden is None:
        return []
    points: list[tuple[int, float]] = []
    for size in sorted({1, max_size}):
        if points and points[0][1] * size > FULL_BATCH_MS:
            break
        began = time.perf_counter()
        runner.predict([golden[0]] * size)
        points.append((size, (time.perf_counter() - began) * 1000))
    return points


def close(got: Any, expected: Any) -> bool:
    """Equal, floats and arrays to 1e-3 relative: other processors round otherwise."""
    if hasattr(expected, "__array__"):
        import numpy as np

        return np.shape(got) == np.shape(expected) and bool(np.allclose(got, expected, rtol=1e-3))
    if isinstance(expected, float):
        return math.isclose(got, expected, rel_tol=1e-3, abs_tol=1e-6)
    if isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(map(close, got, expected))
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(close(got[k], expected[k]) for k in expected)
    fields = getattr(expected, "__dataclass_fields__", None) or getattr(
        expected, "__struct_fields__", None
    )
    if fields:
        return type(got) is type(expected) and all(
            close(getattr(got, f), getattr(expected, f)) for f in fields
        )
    return bool(got == expected)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
