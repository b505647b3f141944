"""Which runs may begin, and which may go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from headrace.model import kebab
from headrace.pipeline.run import STEPS, Code, Run, new_id, seen
from headrace.pipeline.target import code, find


class RunError(Exception):
    """This run cannot go on as asked."""


class CodeChanged(RunError):
    """The code is not that which the run was begun with."""


def waiting(
    target: str, folder: Path, given: dict[str, Any], *, id: str = "", asked_by: str = "train"
) -> Run:
    """A run that nobody has begun. What only the code can say is written when it begins: whoever
    asks for a run need not be able to import it."""
    return Run(
        id=id or new_id(),
        pipeline=kebab(target.rpartition(":")[2]),
        target=target,
        folder=str(folder),
        model="",
        params=given,
        asked=given,
        code=Code(""),
        created=time.time(),
        asked_by=asked_by,
    )


def check(run: Run, step: str, changed: bool) -> None:
    """May it go on, from there? Raises RunError, CodeChanged, TargetError."""
    state = seen(run)
    if step and step not in STEPS:
        raise RunError(f"{step!r} is not a step: expected one of {', '.join(STEPS)}")
    if state == "running":
        raise RunError(f"run {run.id} is running: process {run.process}")
    if state == "succeeded":
        raise RunError(f"run {run.id} has succeeded, with version {run.version}: begin a new one")
    if state == "refused" and not step:
        raise RunError(f"run {run.id} was refused by its gates: begin a new one, or say from which")
    reached = STEPS.index(run.step) if run.step else max(0, len(run.steps) - 1)
    if step and STEPS.index(step) > reached:
        raise RunError(f"run {run.id} came to {STEPS[reached]}: it cannot go on from {step}")
    began = run.code_now().source
    if not changed and began and code_of(run) != began:
        raise CodeChanged(f"the code of {run.target} is not that which run {run.id} was begun with")


def code_of(run: Run) -> str:
    """The digest of its modules as they lie there now. Raises TargetError."""
    folder = Path(run.folder)
    return code(find(run.target, folder), folder).source
