"""Is what a model answered what was expected of it?"""

from __future__ import annotations

import math
from functools import partial
from numbers import Real
from typing import Any

TOLERANCE = 1e-3


def close(got: Any, expected: Any, tolerance: float = TOLERANCE) -> bool:
    """Equal, floats and arrays to that much relative: other processors round otherwise."""
    alike = partial(close, tolerance=tolerance)
    if hasattr(expected, "__array__"):
        import numpy as np

        near = np.shape(got) == np.shape(expected) and np.allclose(got, expected, rtol=tolerance)
        return bool(near)
    if isinstance(expected, float):
        number = isinstance(got, Real)
        return number and math.isclose(got, expected, rel_tol=tolerance, abs_tol=1e-6)
    if isinstance(expected, list | tuple):
        return _many(got) and len(got) == len(expected) and all(map(alike, got, expected))
    if isinstance(expected, dict):
        same = isinstance(got, dict) and got.keys() == expected.keys()
        return same and all(alike(got[k], expected[k]) for k in expected)
    fields = getattr(expected, "__dataclass_fields__", None) or getattr(
        expected, "__struct_fields__", None
    )
    if fields:
        same = type(got) is type(expected)
        return same and all(alike(getattr(got, f), getattr(expected, f)) for f in fields)
    return bool(got == expected)


def _many(got: Any) -> bool:
    """A list, a tuple, an array: not a text or a record, which have a length, too."""
    return hasattr(got, "__len__") and not isinstance(got, str | bytes | dict)
