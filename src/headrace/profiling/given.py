"""What a model takes: its golden input and the schema of its inputs.

In a process of its own, as a model process is: a model that was loaded does not leave.

    python -m headrace.profiling.given FILE     reads Start from FILE, writes Given there
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from headrace.client.write import plain_of
from headrace.worker.child import ModelNotFound, Runner
from headrace.worker.frames import Start


class Given(msgspec.Struct):
    """`golden`: what JSON knows, and bytes, in a list of one; empty where there is none.
    `problem`: why the model was not loaded."""

    golden: list[Any] = []
    schema: dict[str, Any] = {}
    problem: str = ""


class NotGiven(Exception):
    """The model was not loaded: the message says why."""


def given(start: Start, limit_s: float, folder: Path) -> Given:
    """`folder`: for the file that passes. Raises NotGiven."""
    file = folder / "given"
    file.write_bytes(msgspec.msgpack.encode(start))
    command = [sys.executable, "-m", "headrace.profiling.given", str(file)]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise NotGiven(f"load took more than {limit_s:g} s") from None
    if ended.returncode:
        last = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise NotGiven(last or f"its process ended with {ended.returncode}")
    found = msgspec.msgpack.decode(file.read_bytes(), type=Given)
    if found.problem:
        raise NotGiven(found.problem)
    return found


def _look(start: Start) -> Given:
    try:
        runner = Runner(start)
    except ModelNotFound as error:
        return Given(problem=str(error))
    golden = runner.model.golden()
    inputs = [] if golden is None else [plain_of(golden[0])]
    return Given(golden=inputs, schema=runner.card.input)


def main(file: Path) -> None:
    start = msgspec.msgpack.decode(file.read_bytes(), type=Start)
    file.write_bytes(msgspec.msgpack.encode(_look(start)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
