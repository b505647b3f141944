"""The workers of a house, counted: who works for which workload, and who was told to go. Workloads
are the models of the house, and any version of one: `wine`, `wine@3`.

A worker that has to go gets SIGTERM: it takes no more, finishes what it runs, replies and leaves.
Nobody starts it again, and SIGKILL comes only when the grace is over.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import structlog

from headrace.deployments import parted
from headrace.lifecycle import end
from headrace.orchestrator import refusals
from headrace.orchestrator.port import Status

log = structlog.get_logger("headrace.orchestrator")

#: Worker processes of one workload on one machine: more is a mistake of somebody's.
MOST = 256


class Member(Protocol):
    """A process that can be started again."""

    name: str
    process: subprocess.Popen[bytes] | None

    def start(self) -> None: ...

    @property
    def alive(self) -> bool: ...


M = TypeVar("M", bound=Member)


class Crew(Generic[M]):
    """`make(workload, number)` gives a worker, not yet started. Numbers are given lowest first, and
    not before who had one has left."""

    def __init__(
        self, models: Iterable[str], make: Callable[[str, int], M], grace_s: float
    ) -> None:
        self._make, self._grace_s = make, grace_s
        self._models = tuple(models)
        self._working: dict[str, dict[int, M]] = {model: {} for model in self._models}
        self._leaving: dict[tuple[str, int], tuple[M, asyncio.Task[int]]] = {}
        self._era = secrets.token_hex(4)  # tokens of an earlier house are none of ours
        self._changes: Counter[str] = Counter()
        self._closing = False
        self._hurry: Callable[[], bool] = lambda: False

    @property
    def members(self) -> list[M]:
        """Those that are to run, by workload, in the order of their coming."""
        return [member for crew in self._working.values() for member in crew.values()]

    @property
    def leaving(self) -> list[M]:
        return [member for member, _ in self._leaving.values()]

    def status(self, workload: str) -> Status:
        """Raises NotFound."""
        crew = self._crew(workload)
        return Status(
            desired=len(crew),
            running=sum(member.alive for member in crew.values()),
            ready=None,  # workers tell the gateways, and nobody here listens
            moving=False,
            token=f"{self._era}.{self._changes[workload]}",
        )

    def scale(self, workload: str, count: int, reason: str, token: str = "") -> None:
        """Starts workers, or tells the newest to go. Raises NotFound, Invalid, Conflict where
        `token` is not the workload's, Unavailable at the end of the house."""
        crew = self._crew(workload)
        if not 0 <= count <= MOST:
            raise refusals.out_of_bounds(f"{count} workers of {workload!r}: expected 0 to {MOST}")
        if self._closing:
            raise refusals.unreachable("the house is closing")
        if token and token != self.status(workload).token:
            raise refusals.changed(f"the count of {workload!r} was changed by somebody else")
        was = len(crew)
        while len(crew) < count:
            number = self._free(workload, crew)
            self._working[workload] = crew  # of a version it is new
            crew[number] = self._make(workload, number)
            try:
                crew[number].start()
            except OSError:  # out of processes, or of memory: whoever watches tries again
                log.exception("not started", workload=workload, number=number)
        while len(crew) > count:
            number, member = crew.popitem()
            self._let_go((workload, number), member)
        if not crew and workload not in self._models:
            self._working.pop(workload, None)
        if count != was:
            self._changes[workload] += 1
            log.info("scaled", workload=workload, was=was, count=count, reason=reason)

    def note(self, workload: str, text: str) -> None:
        """Raises NotFound."""
        self._crew(workload)
        log.info("note", workload=workload, text=text)

    async def close(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """All go; `hurry` ends the waiting for them."""
        self._closing, self._hurry = True, hurry
        for workload, crew in self._working.items():
            while crew:
                number, member = crew.popitem()
                self._let_go((workload, number), member)
        await asyncio.gather(*(task for _, task in self._leaving.values()))

    def _crew(self, workload: str) -> dict[int, M]:
        """Of a version that was never started, or has left: a new one."""
        crew = self._working.get(workload)
        if crew is not None:
            return crew
        try:
            model, _ = parted(workload)
        except ValueError:
            model = ""
        if model not in self._models:
            known = ", ".join(self._models)
            raise refusals.unknown(f"no model {workload!r} in this house; expected one of {known}")
        return {}

    def _free(self, workload: str, crew: dict[int, M]) -> int:
        """The lowest number that nobody has."""
        return next(
            number
            for number in range(len(crew) + len(self._leaving) + 1)
            if number not in crew and (workload, number) not in self._leaving
        )

    def _let_go(self, place: tuple[str, int], member: M) -> None:
        task = asyncio.create_task(self._see_off(member))
        self._leaving[place] = member, task
        task.add_done_callback(lambda _: self._leaving.pop(place))

    async def _see_off(self, member: M) -> int:
        if member.process is None:
            return 0
        return await end(member.process, self._grace_s, self._in_hurry)

    def _in_hurry(self) -> bool:
        return self._hurry()
