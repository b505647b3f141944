"""Bugs on purpose: the harness must be able to fail.

    HEADRACE_FAULTS_BUG=no-fencing PYTHONPATH=tests/faults/bugs python -m headrace.roles ...

Python imports a module of this name when it starts. It waits for modules of the house to be
imported and takes away, in the process alone, one thing that the promises rest on; the house knows
nothing of it. Several names are separated by commas. Each bug writes its name into the file named
by HEADRACE_FAULTS_ACTED when it does what it is for.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

BUGS = set(filter(None, os.environ.get("HEADRACE_FAULTS_BUG", "").split(",")))
Patch = Callable[[Any], None]


def acted(bug: str) -> None:
    path = os.environ.get("HEADRACE_FAULTS_ACTED", os.devnull)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{bug}\n".encode())
    os.close(file)


def some(job_id: str) -> bool:
    """One in eight, and every process draws the same."""
    return int(job_id[-1], 16) < 2


async def forget_dues(store: Any, ids: list[str]) -> None:
    """Nobody looks at these jobs again."""
    from sqlalchemy import update

    jobs = sys.modules["headrace.store.tables"].jobs
    statement = update(jobs).where(jobs.c.id.in_(ids)).values(due=None, lease_until=None)
    await store.database.write(lambda connection: connection.execute(statement))


# -- I1: what was accepted is lost -----------------------------------------------------------------


def early_202(submit: Any) -> None:
    """Answers first, commits later."""
    honest = submit.Submits.submit

    async def answer_first(self: Any, submission: Any) -> None:
        async def commit() -> None:
            await asyncio.sleep(0.3)
            await honest(self, submission)

        self.late = getattr(self, "late", set())
        self.late.add(asyncio.ensure_future(commit()))
        acted("early-202")

    submit.Submits.submit = answer_first


def drop_publish(submit: Any) -> None:
    """Some jobs are committed and not published."""
    honest = submit.post_stored

    def forgetful(broker: Any, queue: str, ids: list[str], *rest: Any) -> None:
        kept = [job_id for job_id in ids if not some(job_id)]
        honest(broker, queue, kept, *rest)
        if len(kept) < len(ids):
            acted("drop-publish")

    submit.post_stored = forgetful


def no_outbox(jobs: Any) -> None:
    """The same jobs are committed without the time at which somebody looks whether they were."""
    from sqlalchemy import update

    honest = jobs.Jobs._submit

    def forgetful(self: Any, connection: Any, batch: Any) -> Any:
        answers = honest(self, connection, batch)
        ids = [each.id for each in batch if some(each.id)]
        rows = jobs.jobs
        if ids:
            connection.execute(update(rows).where(rows.c.id.in_(ids)).values(due=None))
            acted("no-outbox")
        return answers

    jobs.Jobs._submit = forgetful


class Nowhere:
    """In place of a parcel that was acked when it came."""

    attempt = 1
    held_at = float("inf")

    def done(self, *, give_back: bool = False) -> None: ...

    def hold(self, now: float) -> None: ...


def ack_first(take: Any) -> None:
    """A stored job is off the broker before it is run."""
    honest = take.Take._take

    def hasty(self: Any, held: Any) -> None:
        if held.job.stored:
            held.parcel.done()
            held.parcel = Nowhere()
            acted("ack-first")
        honest(self, held)

    take.Take._take = hasty


def no_lease(jobs: Any) -> None:
    """Who claims a job has it for ever."""
    from sqlalchemy import update

    honest = jobs.Jobs.claim

    async def for_ever(self: Any, ids: list[str], worker: str, lease_s: float) -> Any:
        claims = await honest(self, ids, worker, lease_s)
        rows = jobs.jobs
        mine = rows.c.id.in_([claim.id for claim in claims])
        statement = update(rows).where(mine).values(due=None, lease_until=None)
        await self._database.write(lambda connection: connection.execute(statement))
        acted("no-lease")
        return claims

    async def renew(self: Any, owned: Any, worker: str, lease_s: float) -> set[str]:
        return set()

    jobs.Jobs.claim, jobs.Jobs.renew = for_ever, renew


def forget_queued(role: Any) -> None:
    """A worker that leaves drops what waits in its hands."""
    honest = role.Worker.drain

    async def forgetful(self: Any, grace_s: float) -> None:
        queued = self._gather.drain()
        for held in queued:
            self._claims.forget(held)
            self._take.in_hand.pop(held.key, None)
            held.parcel = Nowhere()
        if queued:
            acted("forget-queued")
        if queued and "no-way-back" in BUGS:
            store = await self._claims._door.open()
            await forget_dues(store, [held.job.stored for held in queued])
            acted("no-way-back")
        await honest(self, grace_s)

    role.Worker.drain = forgetful


# -- I2, I5: twice, or undone ----------------------------------------------------------------------


def no_dedup(jobs: Any) -> None:
    """A key is looked up where it never is: each submit makes a job."""
    import msgspec
    from sqlalchemy import select

    honest = jobs.Jobs._submit

    def anew(self: Any, connection: Any, batch: Any) -> Any:
        known = select(jobs.jobs.c.key).where(jobs.jobs.c.key.in_([each.key for each in batch]))
        if connection.execute(known).first():
            acted("no-dedup")
        return honest(self, connection, [
            msgspec.structs.replace(each, tenant=f"t{random.getrandbits(64):x}") for each in batch
        ])  # fmt: skip

    async def unknown(self: Any, tenant: str, key: str) -> None:
        return None

    async def get(self: Any, tenant: str, job_id: str) -> Any:
        found = await self.many([job_id])
        return found[0] if found else None

    jobs.Jobs._submit, jobs.Jobs.by_key, jobs.Jobs.get = anew, unknown, get


def no_fencing(jobs: Any) -> None:
    """Whoever comes with a result has it written."""
    honest = jobs.Jobs._finish

    def trusting(self: Any, connection: Any, endings: list[Any]) -> set[str]:
        given_back = [each for each in endings if each.state.value == "waiting"]
        ended = {each.id: each for each in endings if each.state.value != "waiting"}
        written = honest(self, connection, given_back) if given_back else set()
        rows = connection.execute(jobs._OWNED, {"b_ids": list(ended)}).all()
        for row in rows:
            if row.attempt != ended[row.id].attempt or row.state != "running":
                acted("no-fencing")
        self._ends.end(connection, [
            jobs._ended(row, ended[row.id].state, ended[row.id]) for row in rows
        ])  # fmt: skip
        return written | ended.keys()

    jobs.Jobs._finish = trusting


def any_claim(jobs: Any) -> None:
    """A claim takes what it is asked for, whoever has it and whether or not it is over."""
    from sqlalchemy import update

    honest = jobs.Jobs.claim

    async def greedy(self: Any, ids: list[str], worker: str, lease_s: float) -> Any:
        rows = jobs.jobs
        taken = update(rows).where(rows.c.id.in_(ids), rows.c.state != "waiting")
        freed = taken.values(state="waiting", not_before=0)
        count = await self._database.write(lambda connection: connection.execute(freed).rowcount)
        if count:
            acted("any-claim")
        return await honest(self, ids, worker, lease_s)

    jobs.Jobs.claim = greedy


# -- I3, I4, I6, I8 --------------------------------------------------------------------------------


def hung_call(submit: Any) -> None:
    """Some calls are never answered."""
    honest = submit.Submits.submit

    async def forgetful(self: Any, submission: Any) -> Any:
        record = await honest(self, submission)
        if some(submission.id):
            acted("hung-call")
            await asyncio.get_running_loop().create_future()
        return record

    submit.Submits.submit = forgetful


def swapped(reply: Any) -> None:
    """The results of a batch go to one another's jobs."""
    honest = reply.Reply.batch

    def careless(self: Any, batch: Any, outcomes: list[Any], executed_ms: float) -> None:
        if len(outcomes) > 1 and all(held.claim for held in batch):
            outcomes = outcomes[::-1]
            acted("swapped")
        honest(self, batch, outcomes, executed_ms)

    reply.Reply.batch = careless


def always_ready(pages: Any) -> None:
    """Readiness is a constant."""

    def ready(self: Any, request: Any) -> None:
        acted("always-ready")
        pages.answer_json(request, {"ready": True, "models": {}}, 200)

    pages.Pages.ready = ready


def left_behind(house: Any) -> None:
    """The house does not clear its folders away."""

    def remove_nothing(self: Any) -> None:
        acted("left-behind")

    house.House._remove_folders = remove_nothing


def no_sync(engine: Any) -> None:
    """SQLite leaves it to the kernel when a commit comes to the disk."""
    honest = engine._sqlite

    def careless(url: str) -> Any:
        made = honest(url)

        @engine.event.listens_for(made, "connect")
        def unset(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA synchronous = OFF")
            acted("no-sync")

        return made

    engine._sqlite = careless


# -- no bug of ours, but not to be had from outside ------------------------------------------------


def deliver_again(dispatch: Any) -> None:
    """A broker that has each message five times: at once, soon, and when it is long over."""
    honest = dispatch.post_stored

    def again(*all_of_it: Any) -> None:
        loop = asyncio.get_running_loop()
        honest(*all_of_it)
        for late_s in (0.0, 0.01, 0.5, 3.0):
            loop.call_later(late_s, honest, *all_of_it)
        acted("deliver-again")

    dispatch.post_stored = again


PATCHES: dict[str, tuple[str, Patch]] = {
    "early-202": ("headrace.gateway.submit", early_202),
    "drop-publish": ("headrace.gateway.submit", drop_publish),
    "no-outbox": ("headrace.store.jobs", no_outbox),
    "ack-first": ("headrace.worker.take", ack_first),
    "no-lease": ("headrace.store.jobs", no_lease),
    "forget-queued": ("headrace.worker.role", forget_queued),
    "no-way-back": ("headrace.worker.role", lambda _: None),  # a part of forget-queued
    "no-dedup": ("headrace.store.jobs", no_dedup),
    "no-fencing": ("headrace.store.jobs", no_fencing),
    "any-claim": ("headrace.store.jobs", any_claim),
    "hung-call": ("headrace.gateway.submit", hung_call),
    "swapped": ("headrace.worker.reply", swapped),
    "always-ready": ("headrace.gateway.pages", always_ready),
    "deliver-again": ("headrace.dispatch", deliver_again),
    "left-behind": ("headrace.house", left_behind),
    "no-sync": ("headrace.store.engine", no_sync),
}


class Seeder(MetaPathFinder):
    """Lets a module be found as ever, and patches it when it has run."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        patches = [
            patch for bug, (module, patch) in PATCHES.items() if module == name and bug in BUGS
        ]
        spec = PathFinder.find_spec(name, path) if patches else None
        if spec is None or spec.loader is None:
            return None
        honest = spec.loader.exec_module

        def run(module: Any) -> None:
            honest(module)
            for patch in patches:
                patch(module)

        spec.loader.exec_module = run  # type: ignore[method-assign]
        return spec


if unknown := BUGS - PATCHES.keys():
    raise SystemExit(f"HEADRACE_FAULTS_BUG: no bug {', '.join(sorted(unknown))}")
if BUGS:
    sys.meta_path.insert(0, Seeder())
