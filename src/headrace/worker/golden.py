"""Readiness proven by real work: the golden calls, the class's own and those of the version, then
warm-up batches of the sizes to come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headrace import images
from headrace.errors import Refusal
from headrace.jobs import Form
from headrace.likeness import close
from headrace.registry.version import Golden
from headrace.schema import Reader

if TYPE_CHECKING:
    from headrace.worker.child import Runner

FULL_BATCH_MS = 1000.0


class GoldenFailed(Exception):
    """The golden call came out wrong: this model must not serve."""


def prove(runner: Runner) -> bool:
    """Runs the golden calls. False where there are none. Raises GoldenFailed."""
    known = runner.start.known
    for number, call in enumerate(known, 1):
        _prove_known(runner, call, f"golden call {number} of the version")
    golden = runner.model.golden()
    if golden is None:
        return bool(known)
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


def _prove_known(runner: Runner, call: Golden, name: str) -> None:
    """Raises GoldenFailed."""
    try:
        given = _given(runner, call)
    except (Refusal, OSError) as error:
        raise GoldenFailed(f"{name}: its input is not one of this class: {error}") from None
    [result] = runner.predict([given])
    if isinstance(result, Exception):
        raise GoldenFailed(f"{name}: predict answered {result!r}")
    got = msgspec.json.decode(runner.signature.encode(result, Form.JSON))
    if not close(got, call.output, call.tolerance):
        raise GoldenFailed(f"{name}: got {_short(got)}, expected {_short(call.output)}")


def _given(runner: Runner, call: Golden) -> Any:
    """As a client sends it: JSON, or the bytes of an image. Raises Refusal, OSError."""
    reader = Reader(runner.card.input)
    body = msgspec.json.encode(call.input)
    if call.file:
        body = (Path(runner.start.files) / call.file).read_bytes()
    if call.file and reader.is_image:
        images.inspect(body)
        return runner.signature.decode(msgspec.msgpack.encode(body))
    return runner.signature.decode(reader.json(body))


def warm(runner: Runner, max_size: int) -> list[tuple[int, float]]:
    """Runs a golden input alone and in a full batch: allocators and kernels are warm, and the
    fit of batch times has its first two points. Gives (size, ms) of each run. A full batch that
    would take longer than a second is left to the first callers: readiness should not wait."""
    golden = runner.model.golden()
    if golden is not None:
        given = golden[0]
    elif runner.start.known:
        given = _given(runner, runner.start.known[0])
    else:
        return []
    points: list[tuple[int, float]] = []
    for size in sorted({1, max_size}):
        if points and points[0][1] * size > FULL_BATCH_MS:
            break
        began = time.perf_counter()
        runner.predict([given] * size)
        points.append((size, (time.perf_counter() - began) * 1000))
    return points


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
