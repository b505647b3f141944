"""Jobs in the database: submitted, claimed, renewed, ended. Every write of a worker names its
attempt, the fencing token; one that is older than the row's is refused.

submit (gateway) --> claim, renew, finish (worker) --> get, list (gateway)
                     look (clerk): what is due
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Double,
    Integer,
    LargeBinary,
    and_,
    bindparam,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from headrace.records import (
    TERMINAL,
    UNCLAIMED_S,
    Claim,
    Due,
    Ending,
    Lost,
    Move,
    Priority,
    Queue,
    Record,
    State,
    Submission,
    problem_bytes,
    read_problem,
)
from headrace.store.ends import Ended, Ends
from headrace.store.engine import NOW, AnyRow, Database, Ids, now, one_of
from headrace.store.tables import jobs, losses
from headrace.store.together import Together

GET_MOST = 256  # jobs read together
RECALL_MOST = 2_000  # in one statement


class Posting(NamedTuple):
    """A job to be published."""

    id: str
    model: str
    queue: Queue


class Looked(NamedTuple):
    """What came of a look: jobs to be published, jobs that ended, how many were due."""

    postings: list[Posting]
    ended: list[str]
    due: int


class Jobs:
    def __init__(self, database: Database, ends: Ends) -> None:
        self._database, self._ends = database, ends
        self._gets = Together(self._get_all, GET_MOST)

    # -- gateway -------------------------------------------------------------------------------

    async def submit(self, batch: list[Submission]) -> list[Record | None]:
        """One transaction for all. None: it is new; a record: the job that the key stood for."""
        if any(each.key for each in batch):
            return await self._database.write(lambda connection: self._submit(connection, batch))
        rows = [_row(each) for each in batch]
        insert = _INSERT[self._database.sqlite]
        await self._database.write_lean(
            lambda connection: connection.execute(insert, rows), alone=True
        )
        return [None] * len(batch)

    def _submit(self, connection: Connection, batch: list[Submission]) -> list[Record | None]:
        rows = [_row(each) for each in batch]
        # In one order: two batches that share keys wait for one another once, and not both ways.
        rows.sort(key=lambda row: (row["tenant"] or "", row["key"] or ""))
        connection.execute(_INSERT[self._database.sqlite], rows)
        keyed = {(each.tenant, each.key) for each in batch if each.key}
        found = connection.execute(
            _RECORDS.add_columns(jobs.c.key).where(tuple_(jobs.c.tenant, jobs.c.key).in_(keyed))
        ).all()
        by_key = {(row.tenant, row.key): _record(row) for row in found}
        # A key's job that the clerk removed since the insert met it: neither that one is there nor
        # the new one, which nobody may be told is stored.
        gone = [each for each in batch if each.key and (each.tenant, each.key) not in by_key]
        if gone:
            for each, record in zip(gone, self._submit(connection, gone), strict=True):
                if record:
                    by_key[each.tenant, each.key] = record
        answers: list[Record | None] = []
        for each in batch:
            record = by_key.get((each.tenant, each.key)) if each.key else None
            answers.append(record if record and record.id != each.id else None)
        return answers

    async def get(self, tenant: str, job_id: str) -> Record | None:
        record = await self._gets.ask(job_id)
        return record if record and record.tenant == tenant else None

    async def _get_all(self, ids: list[str]) -> list[Record | None]:
        query = _RECORDS.where(jobs.c.id.in_(set(ids)))
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        found = {row.id: _record(row) for row in rows}
        return [found.get(job_id) for job_id in ids]

    async def by_key(self, tenant: str, key: str) -> Record | None:
        query = _RECORDS.where(jobs.c.tenant == tenant, jobs.c.key == key)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return _record(row) if row else None

    async def page(
        self,
        tenant: str,
        *,
        states: Iterable[State] = (),
        model: str = "",
        before: str = "",
        limit: int = 50,
    ) -> list[Record]:
        """Newest first; `before`: the id of the last one of the page before. Without results."""
        query = select(
            *(c for c in _RECORDS.selected_columns if c.name != "result"),
            _no_bytes.label("result"),
        ).where(jobs.c.tenant == tenant)
        wanted = [state.value for state in states]
        if wanted:
            query = query.where(jobs.c.state.in_(wanted))
        if model:
            query = query.where(jobs.c.model == model)
        if before:
            query = query.where(jobs.c.id < before)
        query = query.order_by(jobs.c.id.desc()).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_record(row) for row in rows]

    async def lost_runs(self, job_id: str) -> list[Lost]:
        query = select(losses).where(losses.c.job_id == job_id).order_by(losses.c.attempt)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [Lost(row.attempt, row.worker, row.at, row.reason) for row in rows]

    async def waiting(self) -> dict[str, int]:
        """Jobs that wait, by model."""
        query = (
            select(jobs.c.model, func.count().label("waiting"))
            .where(jobs.c.state == State.WAITING.value)
            .group_by(jobs.c.model)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {row.model: row.waiting for row in rows}

    async def cancel(self, tenant: str, job_id: str) -> Record | None:
        """Takes back a job that has not ended; gives it as it is then. A run under way is not
        stopped by it, but what it writes is refused."""
        mine = and_(jobs.c.tenant == tenant, jobs.c.id == job_id)

        def work(connection: Connection) -> AnyRow | None:
            live = jobs.c.state.in_([State.WAITING.value, State.RUNNING.value])
            row = connection.execute(_ENDED.where(mine, live).with_for_update()).first()
            if row:
                self._ends.end(connection, [_ended(row, State.CANCELLED)])
            return connection.execute(_RECORDS.where(mine)).first()

        row = await self._database.write(work)
        return _record(row) if row else None

    async def replay(self, tenant: str, job_id: str, ttl_s: float) -> Record | None:
        """A dead job waits again, with all its tries. None: there is no dead job of this id, or its
        input is gone."""
        mine = and_(jobs.c.tenant == tenant, jobs.c.id == job_id)

        def work(connection: Connection) -> AnyRow | None:
            done = connection.execute(
                update(jobs)
                .where(mine, jobs.c.state == State.DEAD.value)
                .where(or_(jobs.c.input.is_not(None), jobs.c.input_ref != ""))
                # what the clerk may be removing just now is gone already
                .where(jobs.c.input_until > now(), jobs.c.row_until > now())
                .values(state=State.WAITING.value, tries=0, looks=0, due=now(), not_before=now(),
                        deadline=now() + ttl_s, finished=None, problem=None, input_until=None,
                        row_until=None)
            )  # fmt: skip
            if not done.rowcount:
                return None
            return connection.execute(_RECORDS.where(mine)).first()

        row = await self._database.write(work)
        return _record(row) if row else None

    async def discard(self, tenant: str, job_id: str) -> bool:
        """Removes a job that has ended, now: its row goes with the clerk's next round."""
        ended = [state.value for state in TERMINAL]
        statement = (
            update(jobs)
            .where(jobs.c.tenant == tenant, jobs.c.id == job_id, jobs.c.state.in_(ended))
            .values(row_until=now(), input_until=now())
        )
        done = await self._database.write(lambda connection: connection.execute(statement).rowcount)
        return bool(done)

    # -- worker --------------------------------------------------------------------------------

    async def claim(self, ids: list[str], worker: str, lease_s: float) -> list[Claim]:
        """Those of the jobs that are this worker's now. The others have an owner, or an end, or a
        pause ahead of them; the clerk looks after them."""
        given = {"b_ids": ids, "b_worker": worker, "b_lease_s": lease_s}
        rows = await self._database.write_lean(
            lambda connection: connection.execute(_CLAIM, given).all(), alone=True
        )
        return [
            Claim(r.id, r.attempt, r.tries, r.max_attempts, r.tenant, r.left_s, r.input or b"",
                  r.input_ref)
            for r in rows
        ]  # fmt: skip

    async def renew(self, owned: dict[str, int], worker: str, lease_s: float) -> set[str]:
        """`owned`: id -> attempt. Gives those that are owned no more: cancelled, expired, or given
        to somebody else."""
        given = {"b_ids": list(owned), "b_worker": worker, "b_lease_s": lease_s}
        rows = await self._database.write_lean(
            lambda connection: connection.execute(_RENEW, given).all(), alone=True
        )
        kept = {row.id for row in rows if owned[row.id] == row.attempt}
        return owned.keys() - kept

    async def finish(self, endings: list[Ending]) -> set[str]:
        """Writes what became of claimed jobs, in one transaction. Gives the ids that were written;
        the others are not the worker's any more."""
        return await self._database.write_lean(lambda c: self._finish(c, endings))

    def _finish(self, connection: Connection, endings: list[Ending]) -> set[str]:
        by_id = {ending.id: ending for ending in endings}
        rows = connection.execute(_OWNED, {"b_ids": list(by_id)}).all()
        # Written before, where the answer to the commit was lost: still the worker's word.
        mine = [
            row
            for row in rows
            if row.attempt == by_id[row.id].attempt
            and row.state in (State.RUNNING.value, by_id[row.id].state.value)
        ]
        ended, again = [], []
        for row in mine:
            ending = by_id[row.id]
            if row.state != State.RUNNING.value:
                continue
            if ending.state is State.WAITING:
                again.append((row, ending))
            else:
                ended.append(_ended(row, ending.state, ending))
        self._ends.end(connection, ended)
        self._again(connection, again)
        return {row.id for row in mine}

    @staticmethod
    def _again(connection: Connection, again: list[tuple[AnyRow, Ending]]) -> None:
        if not again:
            return
        connection.execute(_AGAIN, [
            # given back: its message goes to another worker, who should meet it unclaimed
            {"b_id": row.id, "b_charged": int(ending.charged), "b_wait_s": ending.wait_s,
             "b_look_s": ending.wait_s or UNCLAIMED_S}
            for row, ending in again
        ])  # fmt: skip
        charged = [(row, ending) for row, ending in again if ending.charged]
        if charged:
            at = connection.execute(NOW).scalar_one()
            connection.execute(_LOSE, [
                {"job_id": row.id, "attempt": row.attempt, "worker": row.worker, "at": at,
                 "reason": _text(ending.problem.detail) if ending.problem else ""}
                for row, ending in charged
            ])  # fmt: skip

    # -- clerk ---------------------------------------------------------------------------------

    async def due_models(self) -> list[tuple[str, Priority]]:
        """Whose jobs are due: the clerk asks the broker for the length of their queues."""
        query = select(jobs.c.model, jobs.c.priority).where(jobs.c.due <= now()).distinct()
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [(row.model, Priority(row.priority)) for row in rows]

    async def recall(self, model: str, priority: Priority, most: int) -> int:
        """Jobs that wait while their queue is empty: their messages were lost, or refused for want
        of room. The oldest `most` are due now; how many that were."""
        old = (
            select(jobs.c.id)
            .where(jobs.c.state == State.WAITING.value, jobs.c.model == model)
            .where(jobs.c.priority == int(priority), jobs.c.due > now())
            .where(jobs.c.not_before <= now(), jobs.c.created < now() - UNCLAIMED_S)
            .order_by(jobs.c.id)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        statement = update(jobs).where(jobs.c.id.in_(old)).values(due=now())
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def recall_all(self) -> int:
        """The broker was away, and may have come back empty, or nobody can say what was published:
        all that waits is published again."""
        count, last = 0, ""
        while page := await self._recall_page(last):
            count, last = count + len(page), max(page)
        return count

    async def _recall_page(self, after: str) -> Sequence[str]:
        """The next of them by id: a hundred thousand in one statement would take too long."""
        old = (
            select(jobs.c.id)
            .where(jobs.c.state == State.WAITING.value, jobs.c.not_before <= now())
            .where(jobs.c.id > after)
            .order_by(jobs.c.id)
            .limit(RECALL_MOST)
            .with_for_update(skip_locked=True)  # which somebody has in hand just now
        )
        statement = (
            update(jobs)
            .where(jobs.c.id.in_(old))
            .values(due=now(), not_before=now(), looks=0)
            .returning(jobs.c.id)
        )
        return await self._database.write(
            lambda connection: connection.execute(statement).scalars().all()
        )

    async def look(self, decide: Callable[[Due, float], Move], limit: int) -> Looked:
        """Moves up to `limit` jobs that are due, as `decide` says, of each and the time. Two clerks
        never look at the same."""
        return await self._database.write(lambda connection: self._look(connection, decide, limit))

    def _look(
        self, connection: Connection, decide: Callable[[Due, float], Move], limit: int
    ) -> Looked:
        at: float = connection.execute(select(now())).scalar_one()
        rows = connection.execute(
            _DUE.where(jobs.c.due <= at)
            .order_by(jobs.c.due)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        postings: list[Posting] = []
        ended, looked, lost = [], [], []
        for row in rows:
            job = Due(
                row.id, row.model, row.tenant, Priority(row.priority), State(row.state),
                row.attempt, row.tries, row.max_attempts, row.looks, row.created, row.deadline,
                row.not_before, row.worker,
            )  # fmt: skip
            move = decide(job, at)
            if move.lost:
                lost.append({"job_id": job.id, "attempt": job.attempt, "worker": job.worker,
                             "at": at, "reason": move.lost})  # fmt: skip
            if move.state in TERMINAL:
                ended.append(_ended(row, move.state, problem=move.problem))
                continue
            looked.append({
                "b_id": job.id, "b_state": move.state.value,
                "b_due": min(at + move.look_again_s, job.deadline),
                "b_looks": move.looks, "b_tries": job.tries + bool(move.lost),
            })  # fmt: skip
            if move.publish is not None:
                postings.append(Posting(job.id, job.model, move.publish))
        if looked:
            connection.execute(
                update(jobs).where(jobs.c.id == bindparam("b_id")).values(
                    state=bindparam("b_state"), due=bindparam("b_due"),
                    looks=bindparam("b_looks"), tries=bindparam("b_tries"), lease_until=None),
                looked,
            )  # fmt: skip
        if lost:
            connection.execute(losses.insert(), lost)
        self._ends.end(connection, ended)
        return Looked(postings, [end.id for end in ended], len(rows))


def _row(each: Submission) -> dict[str, Any]:
    return {
        "id": each.id, "tenant": each.tenant, "model": each.model, "state": "waiting",
        "priority": int(each.priority), "max_attempts": each.max_attempts,
        "request_id": each.request_id, "input": each.input or None, "input_ref": each.input_ref,
        "input_digest": each.input_digest, "key": each.key or None,
        "fingerprint": each.fingerprint, "b_ttl_s": each.ttl_s,
    }  # fmt: skip


def _is(state: State) -> ColumnElement[bool]:
    """As no index knows it: the one by state is right while the table is empty, and reads all that
    waits later."""
    return jobs.c.state.concat("") == state.value


# -- what is done for every job: made once (see `lean`) ----------------------------------------
#
# Of one table and by its ids, with no join that a plan could turn round. They are met in the order
# of the index: of two transactions that meet on several rows one waits, and never each for the
# other (PostgreSQL finds that out after a second, and ends one).

_IDS = bindparam("b_ids", type_=Ids)
_LEASE_END = now() + bindparam("b_lease_s", type_=Double)
_INSERT = {
    on_sqlite: kind(jobs)
    .values(
        created=now(),
        due=now() + UNCLAIMED_S,
        deadline=now() + bindparam("b_ttl_s", type_=Double),
    )
    .on_conflict_do_nothing(index_elements=["tenant", "key"])
    for on_sqlite, kind in ((True, sqlite.insert), (False, postgresql.insert))
}
_CLAIM = (
    update(jobs)
    .where(one_of(jobs.c.id, _IDS), _is(State.WAITING))
    .where(jobs.c.not_before <= now(), jobs.c.deadline > now())
    .values(
        state=State.RUNNING.value,
        attempt=jobs.c.attempt + 1,
        worker=bindparam("b_worker"),
        started=func.coalesce(jobs.c.started, now()),
        lease_until=_LEASE_END,
        due=_LEASE_END,
    )
    .returning(jobs.c.id, jobs.c.attempt, jobs.c.tries, jobs.c.max_attempts, jobs.c.tenant,
               (jobs.c.deadline - now()).label("left_s"), jobs.c.input, jobs.c.input_ref)
)  # fmt: skip
_RENEW = (
    update(jobs)
    .where(one_of(jobs.c.id, _IDS), _is(State.RUNNING), jobs.c.worker == bindparam("b_worker"))
    .values(lease_until=_LEASE_END, due=_LEASE_END)
    .returning(jobs.c.id, jobs.c.attempt)
)
_AGAIN = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .values(
        state=State.WAITING.value,
        lease_until=None,
        looks=0,
        tries=jobs.c.tries + bindparam("b_charged", type_=Integer),
        due=now() + bindparam("b_look_s", type_=Double),
        not_before=now() + bindparam("b_wait_s", type_=Double),
    )
)
_LOSE = losses.insert()

_no_bytes: BindParameter[bytes] = bindparam("no_bytes", b"", LargeBinary)
_RECORDS = select(
    jobs.c.id, jobs.c.tenant, jobs.c.model, jobs.c.state, jobs.c.priority, jobs.c.attempt,
    jobs.c.tries, jobs.c.max_attempts, jobs.c.request_id, jobs.c.created, jobs.c.deadline,
    jobs.c.started, jobs.c.finished, jobs.c.worker, jobs.c.version, jobs.c.executed_ms,
    jobs.c.result, jobs.c.result_ref, jobs.c.problem, jobs.c.fingerprint,
    and_(jobs.c.input.is_(None), jobs.c.input_ref == "").label("input_gone"),
)  # fmt: skip
_ENDED = select(
    jobs.c.id, jobs.c.tenant, jobs.c.model, jobs.c.attempt, jobs.c.worker, jobs.c.input_ref
)
_OWNED = (
    _ENDED.add_columns(jobs.c.state)
    .where(one_of(jobs.c.id, _IDS))
    .order_by(jobs.c.id)
    .with_for_update()
)
_DUE = select(
    jobs.c.id, jobs.c.model, jobs.c.tenant, jobs.c.priority, jobs.c.state, jobs.c.attempt,
    jobs.c.tries, jobs.c.max_attempts, jobs.c.looks, jobs.c.created, jobs.c.deadline,
    jobs.c.not_before, jobs.c.worker, jobs.c.input_ref,
)  # fmt: skip


def _record(row: AnyRow) -> Record:
    return Record(
        row.id, row.tenant, row.model, State(row.state), Priority(row.priority), row.attempt,
        row.tries, row.max_attempts, row.request_id, row.created, row.deadline, row.started,
        row.finished, row.worker, row.version, row.executed_ms, row.result or b"", row.result_ref,
        read_problem(row.problem) if row.problem else None, row.fingerprint, bool(row.input_gone),
    )  # fmt: skip


def _text(said: str, most: int = 4000) -> str:
    """What an author's code said, as PostgreSQL takes it."""
    return said.replace("\0", "\ufffd")[:most]


def _ended(
    row: AnyRow, state: State, ending: Ending | None = None, problem: bytes | None = None
) -> Ended:
    if ending is None:
        return Ended(row.id, row.tenant, row.model, state, row.input_ref, problem=problem)
    told = problem_bytes(ending.problem) if ending.problem else None
    return Ended(
        row.id, row.tenant, row.model, state, row.input_ref, _text(ending.version, 160),
        ending.result, ending.result_ref, told, ending.executed_ms,
        int(ending.charged and told is not None),
    )  # fmt: skip
