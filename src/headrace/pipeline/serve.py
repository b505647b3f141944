"""Runs that were triggered or scheduled: one after the other, each in a process of its own.

A pipeline is somebody's code with somebody's memory: its process ends with its run, and the next
run has the code of its own day. A run whose process died goes on in a new one.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from headrace.pipeline.durable import QUEUE, Engine, library
from headrace.pipeline.entry import RunError, waiting
from headrace.pipeline.place import Place, place
from headrace.pipeline.run import Run, seen
from headrace.pipeline.target import TargetError

log = structlog.get_logger("headrace.pipeline")

#: A run whose process died so often is left to a person.
MOST_DEATHS = 5
GRACE_S = 10.0
#: Runs that are looked at for those whose process died.
RECENT = 100

Command = Callable[[str], list[str]]
#: Seconds that one process of a run may take.
Limit = Callable[[Run], float]


def command_for(file: str, tracking: str = "", registry: str = "") -> Command:
    """The process of a run: with the settings of this file ("": defaults)."""
    return lambda run: [
        sys.executable, "-m", "headrace.pipeline.serve", file, tracking, registry, run,
    ]  # fmt: skip


def _no_limit(run: Run) -> float:
    return math.inf


def serve(
    engine: Engine,
    command: Command,
    stop: Callable[[], bool],
    every_s: float = 0.5,
    limit_s: Limit = _no_limit,
) -> None:
    """Until told to stop: what runs then is stopped, too, and goes on when somebody serves again.
    The engine is open, and has no queue: it is there for its schedules. One server a house: two
    would do some work twice, and record it once."""
    while not stop():
        run = _next(engine.place)
        if run is None:
            time.sleep(every_s)
            continue
        log.info("a run begins", run=run.id, target=run.target, asked_by=run.asked_by)
        within_s = limit_s(run)
        status = _watched(command(run.id), stop, within_s)
        ended = engine.place.tracker.get(run.id)
        if status is None:
            _fail(engine.place, ended, f"it took longer than {within_s:g} s, in {ended.step}")
        elif ended.state == "waiting" and not stop():
            # Its process could not even be started: it would be so for ever.
            _fail(
                engine.place, ended, f"its process ended with status {status} before the run began"
            )
        log.info("a run has ended", run=run.id, state=seen(ended), status=status)


def _next(place: Place) -> Run | None:
    """What died first, then what waits longest."""
    tracker = place.tracker
    for run in reversed(tracker.runs(RECENT)):
        if run.asked_by == "train" or seen(run) != "interrupted":
            continue
        if len(run.resumed) + 1 < MOST_DEATHS:
            return run
        run.state, run.ended = "failed", time.time()
        run.problem = f"its process died {len(run.resumed) + 1} times, at last in {run.step}"
        tracker.write(run)
    queued = library().DBOS.list_queued_workflows(queue_name=QUEUE, status="ENQUEUED", limit=1)
    for workflow in queued:
        wanted, target, folder, given, asked_by = workflow.input["args"]
        tracker.create(waiting(target, Path(folder), given, id=wanted, asked_by=asked_by))
        return tracker.get(wanted)
    return None


def _fail(place: Place, run: Run, problem: str) -> None:
    library().DBOS.cancel_workflow(run.id)
    run.state, run.ended, run.problem = "failed", time.time(), problem
    place.tracker.write(run)


def _watched(command: list[str], stop: Callable[[], bool], within_s: float) -> int | None:
    """Its status; None where it was ended because its time was over."""
    process = subprocess.Popen(command)
    over_at = time.monotonic() + within_s
    late = False
    while process.poll() is None:
        late = time.monotonic() > over_at
        if late or stop():
            process.terminate()
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    status = process.wait()
    return None if late and status else status


def main(arguments: list[str]) -> None:
    """`python -m headrace.pipeline.serve FILE TRACKING REGISTRY RUN`."""
    from headrace.lifecycle import die_with_parent
    from headrace.settings import load

    die_with_parent(signal.SIGTERM)
    file, tracking, registry, wanted = arguments
    at = place(load(file or None), tracking=tracking, registry=registry)
    run = at.tracker.get(wanted)
    try:
        with Engine(at, queue=f"run-{wanted}").open() as engine:
            engine.resume(run)
    except (RunError, TargetError) as error:
        run.state, run.problem, run.ended = "failed", str(error), time.time()
        at.tracker.write(run)
    finally:
        at.tracker.close()


if __name__ == "__main__":
    main(sys.argv[1:])
