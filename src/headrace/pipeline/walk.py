"""One run from its first step to its end. What makes it durable is given: `once`.

once(number, name, act)   act's Step; where the step has finished before, the Step of then
"""

from __future__ import annotations

import contextlib
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from headrace.errors import Refusal, Unavailable
from headrace.failpoints import failpoint
from headrace.pipeline import outputs
from headrace.pipeline.author import Pipeline
from headrace.pipeline.gates import Verdict
from headrace.pipeline.kept import Kept
from headrace.pipeline.run import STEPS, Run, Step, process
from headrace.pipeline.shelf import Shelf
from headrace.pipeline.steps import DataInvalid, Done, Judgement, Registered, Steps, Trained
from headrace.pipeline.target import TargetError
from headrace.pipeline.track import Point, Tracker

#: Unavailable is tried again so often, whatever `retries` says.
REGISTRY_TRIES = 3
FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 30.0
#: Characters of a traceback that are kept.
TRACE = 8_000

Act = Callable[[], Step]
Once = Callable[[int, str, Act], Step]


class Watcher(Protocol):
    """Who is shown a run while it runs."""

    def begins(self, run: Run, step: str) -> None: ...

    def reports(self, run: Run, point: Point) -> None: ...

    def ends(self, run: Run, step: Step, repeated: bool) -> None:
        """`repeated`: it had finished before, and was not run again."""


class Nobody:
    def begins(self, run: Run, step: str) -> None:
        pass

    def reports(self, run: Run, point: Point) -> None:
        pass

    def ends(self, run: Run, step: Step, repeated: bool) -> None:
        pass


class Walk:
    def __init__(
        self,
        pipeline: Pipeline[Any],
        run: Run,
        *,
        kept: Kept,
        shelf: Shelf,
        tracker: Tracker,
        work: Path,
        watcher: Watcher,
    ) -> None:
        self.run = run
        self._kept, self._tracker, self._work, self._watcher = kept, tracker, work, watcher
        self._steps = Steps(pipeline, run, kept, shelf, work)
        pipeline.told_by(self._reported)

    def go(self, once: Once) -> Run:
        """The run, ended: succeeded, refused or failed. What is not the pipeline's fault (a signal,
        a database that is away) is raised and leaves it resumable."""
        run = self.run
        run.state, run.process, run.ended = "running", process(), 0.0
        run.problem = run.trace = run.version = ""
        run.began = run.began or time.time()
        run.steps, run.verdicts, run.metrics = [], [], {}
        for number, name in enumerate(STEPS, 1):
            try:
                self._step(once, number, name)
            except StepFailed as failed:
                return self._end("failed", failed.detail)
            if name == "gate" and not all(verdict.passed for verdict in run.verdicts):
                return self._end("refused")
        return self._end("succeeded")

    def _step(self, once: Once, number: int, name: str) -> None:
        run = self.run
        run.step = name
        self._tracker.write(run)
        self._watcher.begins(run, name)
        ran: list[bool] = []

        def act() -> Step:
            ran.append(True)
            try:
                return self._act(name)
            except Exception as error:
                run.trace = "".join(traceback.format_exception(error))[-TRACE:]
                raise StepFailed(said(error)) from error

        step = once(number, name, act)
        run.steps.append(step)
        self._note(step)
        self._tracker.write(run)
        self._watcher.ends(run, step, repeated=not ran)
        failpoint("pipeline.stepped")

    def _act(self, name: str) -> Step:
        began, start = time.time(), time.perf_counter()
        done = self._tried(name)
        output = outputs.keep(done.value, done.kind, self._kept)
        took_s = time.perf_counter() - start
        return Step(name, began, round(took_s, 6), output, done.note, done.metrics)

    def _tried(self, name: str) -> Done:
        """Again where the author allows it, and where the registry is away for a moment."""
        left = self._steps.pipeline.retries.get(name, 0)
        away = REGISTRY_TRIES
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return self._steps.do(name)
            except Exception as error:
                if isinstance(error, Unavailable) and away > 0:
                    away -= 1
                elif left > 0:
                    left -= 1
                else:
                    raise
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, MOST_PAUSE_S)

    def _note(self, step: Step) -> None:
        """What the record says at its top of what a step left."""
        run = self.run
        run.metrics = run.metrics | step.metrics
        if step.name == "extract":
            run.data = step.output
        elif step.name == "train":
            run.artifacts = dict(self._left(step, Trained).files)
        elif step.name == "gate":
            judgement = msgspec.convert(self._left(step, dict), Judgement)
            run.verdicts = list[Verdict](judgement.verdicts)
        elif step.name == "register":
            run.version = str(self._left(step, Registered).number)

    def _left(self, step: Step, kind: Any) -> Any:
        return outputs.load(step.output, kind, self._kept)

    def _reported(self, metrics: dict[str, float]) -> None:
        point = Point(time.time(), self.run.step, metrics)
        with contextlib.suppress(Unavailable):  # a point of a curve is not worth the step
            self._tracker.report(self.run, point)
        self._watcher.reports(self.run, point)

    def _end(self, state: str, problem: str = "") -> Run:
        run = self.run
        run.state, run.problem, run.ended = state, problem, time.time()
        run.step = run.step if state == "failed" else ""
        self._tracker.write(run)
        shutil.rmtree(self._work, ignore_errors=True)
        return run


class StepFailed(Exception):
    """A step raised. `detail` says what, for people."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def said(error: Exception) -> str:
    text = error.detail if isinstance(error, Refusal) else str(error)
    named = isinstance(error, Refusal | DataInvalid | outputs.OutputError | TargetError) and text
    return text if named else f"{type(error).__name__}: {text}" if text else type(error).__name__
