"""Judging outcomes, and telling them in few words. Pure."""

from __future__ import annotations

import math
import traceback
from pathlib import Path
from sysconfig import get_path
from typing import Any

import msgspec

from headrace.errors import Problem, Refusal
from headrace.likeness import close


def same(got: bytes | Problem, expected: bytes | Problem) -> bool:
    if isinstance(got, Problem) or isinstance(expected, Problem):
        codes = [o.code if isinstance(o, Problem) else "" for o in (got, expected)]
        return codes[0] == codes[1]
    try:
        return close(msgspec.json.decode(got), msgspec.json.decode(expected))
    except (TypeError, AttributeError):  # a number here, a text or null there
        return False


def judged(expected: Any, result: Any) -> bool:
    try:
        return bool(expected(result) if callable(expected) else close(result, expected))
    except Exception:
        return False


def _all_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(_all_finite, value))


def is_finite(results: Any) -> bool:
    try:
        return _all_finite(msgspec.to_builtins(results, enc_hook=_plain))
    except TypeError:
        return True


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump()
    return repr(value)


def told(error: BaseException) -> str:
    """What was raised, and the last place in the author's own code."""
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, Refusal):
        return f"{type(error).__name__} {problem_words(error.problem())}"
    frames = traceback.extract_tb(error.__traceback__)
    authors = [f for f in frames if "site-packages" not in f.filename and not _ours(f.filename)]
    if isinstance(error, SyntaxError) or not authors:
        return words
    return f"{words} ({Path(authors[-1].filename).name}:{authors[-1].lineno})"


def _ours(filename: str) -> bool:
    return filename.startswith((str(Path(__file__).parents[1]), "<", get_path("stdlib")))


def problem_words(problem: Problem) -> str:
    places = ", ".join(error.pointer for error in problem.errors if error.pointer)
    return f"{problem.code}: {problem.detail}" + (f" at {places}" if places else "")


def told_outcome(outcome: bytes | Problem) -> str:
    if isinstance(outcome, Problem):
        return f"{outcome.status} {outcome.code}"
    return short(outcome.decode())


def short(value: Any, most: int = 80) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def milliseconds(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.1f} ms" if seconds >= 0.0001 else "less than 0.1 ms"
