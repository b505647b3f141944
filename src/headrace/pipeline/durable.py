"""Runs on DBOS: a step that has finished is not run again, whatever becomes of the process.

DBOS keeps, for each run, its arguments and what each finished step came to: some hundred bytes; the
data lie in files by digest. There is one workflow for all pipelines, so any process that can import
a pipeline can go on with its runs. All that DBOS keeps is JSON, never a pickle.

Two processes never both finish a run: each claim writes a token into the run's row, and DBOS takes
the end of a step from the holder of the latest one alone.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from headrace.pipeline.author import Pipeline
from headrace.pipeline.entry import check, waiting
from headrace.pipeline.place import Place
from headrace.pipeline.run import STEPS, Resumed, Run, Step, id_of, process
from headrace.pipeline.target import code, find, params, plain
from headrace.pipeline.walk import Nobody, StepFailed, Walk, Watcher, said

#: Of what DBOS keeps for us; raised where older rows can no longer be read.
VERSION = "1"
WALK, SCHEDULED = "headrace.walk", "headrace.scheduled"
#: Where runs wait that nobody runs by hand: no process takes them off it but by their id.
QUEUE = "headrace-runs"
POLL_S = 0.1
#: What DBOS says of a workflow that it does not run again by itself.
ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


def application(house: str) -> str:
    """Houses that share a database do not see each other's runs."""
    return f"headrace-{house}"


class Engine:
    """DBOS in this process: one at a time, not on an event loop's thread."""

    def __init__(self, place: Place, watcher: Watcher | None = None, queue: str = "") -> None:
        self.place, self.watcher = place, watcher or Nobody()
        self._queue = queue

    @contextlib.contextmanager
    def open(self) -> Iterator[Engine]:
        """Raises ImportError that says what to install."""
        dbos = library()
        _workflows()
        _engines.append(self)
        try:
            dbos.DBOS(
                config={
                    "name": application(self.place.house),
                    "system_database_url": self.place.database,
                    "application_version": VERSION,
                    "executor_id": process(),
                    "serializer": dbos.DBOSPortableJSONSerializer(),
                    "use_listen_notify": False,
                    "log_level": "WARNING",
                    "scheduler_polling_interval_sec": 5.0,
                }
            )
            dbos.DBOS.listen_queues([self._queue] if self._queue else [])
            dbos.DBOS.launch()
            if self._queue:
                dbos.DBOS.register_queue(
                    self._queue, polling_interval_sec=POLL_S, worker_concurrency=1
                )
            yield self
        finally:
            dbos.DBOS.destroy()
            _engines.remove(self)

    def run(self, target: str, folder: Path, given: dict[str, Any]) -> Run:
        """A new run, here and now, in this thread. Raises TargetError."""
        params(find(target, folder), given)
        run = waiting(target, folder, given)
        self.place.tracker.create(run)
        return self._begin(run)

    def _begin(self, run: Run) -> Run:
        dbos = library()
        walk, _ = _workflows()
        with dbos.SetWorkflowID(run.id):
            walk(run.id, run.target, run.folder, run.asked, run.asked_by)
        return self.place.tracker.get(run.id)

    def resume(self, run: Run, step: str = "", changed: bool = False) -> Run:
        """Goes on with it in this process, behind what has finished, or from `step` on. Needs a
        queue of its own. Raises RunError, CodeChanged, TargetError."""
        dbos = library()
        check(run, step, changed)
        if step:
            run.step = step
            self.place.tracker.write(run)
        if dbos.DBOS.get_workflow_status(run.id) is None:
            return self._begin(run)  # it was written down, and killed before it began
        handle = self._go_on(run, step)
        with contextlib.suppress(dbos.error.DBOSException):
            handle.get_result(polling_interval_sec=POLL_S)
        return self.place.tracker.get(run.id)

    def _go_on(self, run: Run, step: str) -> Any:
        dbos = library().DBOS
        ended = dbos.get_workflow_status(run.id).status in ENDED
        if not ended and not step:
            return dbos.resume_workflow(run.id, queue_name=self._queue)
        if not ended:
            dbos.cancel_workflow(run.id)
        number = STEPS.index(step or run.step or STEPS[0]) + 1
        return dbos.rewind_workflow(run.id, start_step=number, queue_name=self._queue)

    def walk(
        self, id: str, target: str, folder: str, given: dict[str, Any], asked_by: str
    ) -> dict[str, Any]:
        """The body of the workflow: what it does twice it does the same way twice."""
        tracker = self.place.tracker
        tracker.create(waiting(target, Path(folder), given, id=id, asked_by=asked_by))
        run = tracker.get(id)
        try:
            pipeline = self._made(run)
        except Exception as error:  # the author's module may raise anything
            run.state, run.problem, run.began = "failed", said(error), run.began or time.time()
            run.ended = time.time()
            tracker.write(run)
            return {"state": run.state}
        walk = Walk(
            pipeline,
            run,
            kept=self.place.kept,
            shelf=self.place.shelf,
            tracker=tracker,
            work=self.place.work / id,
            watcher=self.watcher,
        )
        return {"state": walk.go(_once).state}

    def _made(self, run: Run) -> Pipeline[Any]:
        """The pipeline, and in the record what it and its code are. Raises TargetError."""
        kind = find(run.target, Path(run.folder))
        values, now = params(kind, run.asked), code(kind, Path(run.folder))
        if run.began:
            run.resumed.append(Resumed(time.time(), run.step, now))
        else:
            run.code = now
        run.pipeline, run.model, run.params = kind.name, kind.model.name, plain(values)
        return kind(values)


#: The one that is open.
_engines: list[Engine] = []


def _once(number: int, name: str, act: Callable[[], Step]) -> Step:
    dbos = library()

    def step() -> dict[str, Any]:
        built: dict[str, Any] = msgspec.to_builtins(act())
        return built

    try:
        return msgspec.convert(dbos.DBOS.run_step({"name": name}, step), Step)
    except dbos.PortableWorkflowError as error:  # as it failed before
        raise StepFailed(error.message) from None


@functools.cache
def _workflows() -> tuple[Any, Any]:
    dbos = library()

    @dbos.DBOS.workflow(name=WALK)  # type: ignore[untyped-decorator]
    def walk(
        id: str, target: str, folder: str, given: dict[str, Any], asked_by: str
    ) -> dict[str, Any]:
        return _engines[-1].walk(id, target, folder, given, asked_by)

    @dbos.DBOS.workflow(name=SCHEDULED)  # type: ignore[untyped-decorator]
    def scheduled(at: Any, context: dict[str, Any]) -> str:
        name, target = context["name"], context["target"]
        run = id_of(f"{name} {at}", target)
        with dbos.SetWorkflowID(run):
            dbos.DBOS.enqueue_workflow(
                QUEUE, walk, run, target, context["folder"], context["params"], name
            )
        _engines[-1].place.tracker.create(
            waiting(target, Path(context["folder"]), context["params"], id=run, asked_by=name)
        )
        return run

    return walk, scheduled


def library() -> Any:
    """DBOS, imported when a run needs it: it takes a second. Raises ImportError that says what to
    install."""
    try:
        import dbos
    except ImportError as error:
        raise ImportError(
            f"runs need {error.name}; install it with: pip install 'headrace[pipelines]'"
        ) from error
    return dbos
