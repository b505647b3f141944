"""Stored jobs over HTTP.

POST   /models/{name}/jobs        202 once the job is committed
GET    /jobs, /jobs/{id}          the list; one, at once or when it ends (`Prefer: wait=N`)
GET    /jobs/{id}/result          the result alone
GET    /jobs/{id}/events          its states as server-sent events
DELETE /jobs/{id}                 cancel it
POST   /jobs/{id}/replay          a dead job waits again
POST   /jobs/{id}/discard         remove what has ended
POST   /models/{name}/predict     with an Idempotency-Key or `Prefer`: stored, and waited for
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from headrace.announce import Backlog, Settled
from headrace.deployments import WHOLE, bucket
from headrace.errors import (
    Conflict,
    DeadlineExceeded,
    Invalid,
    ModelFailed,
    NotFound,
    Problem,
    Unavailable,
)
from headrace.gateway.answer import Timings, answer_result
from headrace.gateway.deadline import HEADER, read_deadline
from headrace.gateway.job_views import accepted, job_json, job_view, links
from headrace.gateway.prefer import MOST_WAIT_S, read_key, read_prefer, read_priority
from headrace.gateway.read import read_input
from headrace.gateway.route import HEADER as ROUTE_KEY
from headrace.gateway.submit import Submits
from headrace.gateway.waits import Waits, heard_within
from headrace.httpapi.answer import answer_json, answer_json_bytes, answer_problem
from headrace.httpapi.errands import Errands, bound
from headrace.httpapi.listing import cut, read_listing
from headrace.records import Record, State, Submission, new_job_id
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.gateway.app import App
    from headrace.gateway.snapshot import ModelView
    from headrace.httpserver import Request
    from headrace.schema import Reader

log = structlog.get_logger("headrace.gateway")

PATH = re.compile(rb"/jobs/([0-9a-f]{32})(?:/(result|events|replay|discard))?")
AFTER_S = 60.0  # a keyed predict's job lives on for this long, for the client that comes back
_PING_S = 15.0


class JobsApi:
    def __init__(
        self, app: App, settings: Settings, errands: Errands[str], submits: Submits
    ) -> None:
        self._app, self._settings, self._errands, self._submits = app, settings, errands, submits
        self._waits = Waits()
        self.backlog: dict[str, int] | None = None  # until a clerk was heard
        self._leaving = False

    # -- routing -------------------------------------------------------------------------------

    def handle(self, request: Request) -> None:
        """A path that begins with /jobs."""
        if request.path == b"/jobs":
            self._errands.run(request, {b"GET": self._list, b"HEAD": self._list})
            return
        found = PATH.fullmatch(request.path)
        if found is None:
            raise NotFound("no such job", code="job-not-found")
        job_id = found[1].decode()
        table: dict[bytes, dict[bytes, Any]] = {
            b"": {b"GET": self._get, b"HEAD": self._get, b"DELETE": self._cancel},
            b"result": {b"GET": self._result, b"HEAD": self._result},
            b"events": {b"GET": self._events},
            b"replay": {b"POST": self._replay},
            b"discard": {b"POST": self._discard},
        }
        verbs = table[found[2] or b""]
        self._errands.run(request, {verb: bound(act, job_id) for verb, act in verbs.items()})

    async def close(self, grace_s: float) -> None:
        """Who waits for a job that lives on without this gateway is told how far it is."""
        self._leaving = True
        self._waits.wake()
        await self._errands.close(grace_s)
        await self._submits.flush()

    def heard(self, news: Settled | Backlog) -> None:
        if isinstance(news, Settled):
            self._waits.heard(news.ids)
        else:
            self.backlog = news.waiting

    def waiting(self, model: str) -> int | None:
        """Stored jobs of a model that wait; None where no clerk has said so."""
        return None if self.backlog is None else self.backlog.get(model, 0)

    # -- submit --------------------------------------------------------------------------------

    def submit(self, request: Request, view: ModelView) -> None:
        """Raises MethodNotAllowed, BadRequest."""
        self._errands.run(request, {b"POST": bound(self._submit, view)})

    async def _submit(self, request: Request, tenant: str, view: ModelView) -> None:
        prefer = read_prefer(request)
        jobs = self._settings.jobs
        ttl_s = self._ttl_s(request, jobs.default_ttl_s, jobs.max_ttl_s)
        job_id, known = await self._store_call(request, view, tenant, "submit", ttl_s)
        record = known
        if prefer.wait_s:
            record = await self._ended_within(tenant, job_id, prefer.wait_s)
        await self._answer_job(request, job_id, view.name, record, replayed=known is not None)

    async def _store_call(
        self,
        request: Request,
        view: ModelView,
        tenant: str,
        act: str,
        ttl_s: float,
        admit: Callable[[], None] | None = None,
    ) -> tuple[str, Record | None]:
        """The call as a stored job. Gives its id, and the job itself where the key stood for it
        already. `admit` raises where there is no room for more."""
        reader = self._room(view)
        key, priority = read_key(request), read_priority(request)
        body = read_input(request, reader, self._app.settings.max_body_bytes)
        digest = hashlib.sha256(body).hexdigest()
        print_of = f"{act}\0{view.name}\0{priority}\0{digest}"
        fingerprint = hashlib.blake2b(print_of.encode(), digest_size=32).hexdigest()
        model = self._settings.models.get(view.name)
        job_id = new_job_id(_place(request, view.name))
        store = await self._errands.store()
        if key and (admit or len(body) > self._settings.jobs.inline_limit_bytes):
            # Known already: a large body need not be stored again, an answer needs no room.
            known = await store.jobs.by_key(tenant, key)
            if known:
                return known.id, _same(known, fingerprint)
        if admit:
            admit()
        inline, ref = await store.bodies.rest(tenant, "input", job_id, body)
        submission = Submission(
            job_id, tenant, view.name, priority, request.id, ttl_s, inline, ref, digest, key,
            fingerprint, (model and model.max_attempts) or self._settings.jobs.max_attempts,
        )  # fmt: skip
        record = await self._submits.submit(submission)
        if record is None:
            return job_id, None
        with contextlib.suppress(Exception):  # the clerk sweeps it up
            await store.bodies.remove(ref)
        return record.id, _same(record, fingerprint)

    def _room(self, view: ModelView) -> Reader:
        """Raises Unavailable."""
        full = (self.waiting(view.name) or 0) >= self._settings.jobs.max_waiting
        if view.reader is not None and not full:
            return view.reader
        refusal = Unavailable("too many jobs wait", code="queue-full", retry_after_s=5)
        if view.reader is None:
            refusal = Unavailable(view.reason, code="model-not-ready")
        self._app.miss(view.name, refusal)
        raise refusal

    def _ttl_s(self, request: Request, default_s: float, most_s: float) -> float:
        now = time.time()
        value = request.headers.get(HEADER)
        return read_deadline(value, now, int(default_s * 1000), int(most_s * 1000)) - now

    # -- a predict that is a stored job --------------------------------------------------------

    def predict(self, request: Request, view: ModelView, began: float) -> None:
        """Raises BadRequest."""
        self._errands.run(request, {b"POST": bound(self._predict, view, began)})

    async def _predict(self, request: Request, tenant: str, view: ModelView, began: float) -> None:
        prefer = read_prefer(request)
        gateway, jobs = self._settings.gateway, self._settings.jobs
        wait_s = self._ttl_s(
            request, gateway.default_deadline_ms / 1000, gateway.max_deadline_ms / 1000
        )
        if prefer.respond_async:
            ttl_s = jobs.default_ttl_s
            wait_s = min(wait_s, prefer.wait_s or 0.0)
        else:
            ttl_s = wait_s + AFTER_S
        admit = (
            None if prefer.respond_async else partial(self._app.admit, view, began + wait_s, began)
        )
        job_id, known = await self._store_call(request, view, tenant, "predict", ttl_s, admit)
        read_ms = (time.time() - began) * 1000
        record = known
        if record is None or not record.ended:
            left_s = began + wait_s - time.time()
            record = await self._ended_within(tenant, job_id, left_s, to_the_end=True)
        replayed = known is not None
        if record is not None and record.ended:
            await self._answer_predict(request, record, began, read_ms, replayed)
        elif prefer.respond_async:
            await self._answer_job(request, job_id, view.name, record, replayed)
        else:
            raise DeadlineExceeded("the deadline passed before the model answered; the same "
                                   "Idempotency-Key finds the result")  # fmt: skip

    async def _answer_predict(
        self, request: Request, record: Record, began: float, read_ms: float, replayed: bool
    ) -> None:
        more = b"Headrace-Job: %b\r\n" % record.id.encode()
        if replayed:
            more += b"Idempotent-Replayed: true\r\n"
        if record.state is not State.SUCCEEDED:
            problem = problem_of(record)
            self._app.count(record.model, problem.status, problem.code)
            answer_problem(request, problem, more)
            return
        result = await self._result_of(record)
        total_ms = (time.time() - began) * 1000
        executed_ms = 0.0 if replayed else min(record.executed_ms, total_ms - read_ms)
        queued_ms = max(0.0, total_ms - read_ms - executed_ms)
        times = Timings(read_ms, queued_ms, 0.0, 0.0, executed_ms, 0.0)
        answer_result(request, result, record.model, record.version, times, more_head=more)
        self._app.stages(record.model).observe(times)

    # -- reading -------------------------------------------------------------------------------

    async def _known(self, tenant: str, job_id: str) -> Record:
        """Raises NotFound."""
        record = await (await self._errands.store()).jobs.get(tenant, job_id)
        if record is None:
            raise NotFound("no such job", code="job-not-found")
        return record

    async def _ended_within(
        self, tenant: str, job_id: str, wait_s: float, *, to_the_end: bool = False
    ) -> Record | None:
        """The job when it has ended, or as it is when the time is over, or when this gateway leaves
        (`to_the_end`: not then)."""
        jobs = (await self._errands.store()).jobs
        end_at = time.monotonic() + wait_s
        with self._waits.on(job_id) as event:
            while True:
                left_s = end_at - time.monotonic()
                if left_s > 0:
                    await heard_within(event, left_s)
                try:
                    record = await jobs.get(tenant, job_id)
                except Unavailable:
                    if left_s <= 0:
                        raise
                    await asyncio.sleep(0.1)
                    continue
                leaving = self._leaving and not to_the_end
                if record is None or record.ended or left_s <= 0 or leaving:
                    return record

    async def _result_of(self, record: Record) -> bytes:
        store = await self._errands.store()
        purpose = f"result-{record.attempt}"
        return await store.bodies.fetch(
            record.tenant, purpose, record.id, record.result, record.result_ref
        )

    async def _answer_job(
        self, request: Request, job_id: str, model: str, record: Record | None, replayed: bool
    ) -> None:
        more = b"Idempotent-Replayed: true\r\n" if replayed else b""
        if record is not None and record.ended:
            await self._answer_record(request, record, more)
            return
        state = record.state if record else State.WAITING
        more += b"Location: /jobs/%b\r\n" % job_id.encode()
        if read_prefer(request).respond_async:
            more += b"Preference-Applied: respond-async\r\n"
        answer_json(request, accepted(job_id, model, state.value, request.id), 202, more)

    async def _answer_record(self, request: Request, record: Record, more: bytes = b"") -> None:
        """With its result; where that cannot be read the job is told all the same."""
        result = None
        if record.state is State.SUCCEEDED:
            try:
                result = await self._result_of(record)
            except Unavailable as refusal:
                more += b"Headrace-Result: %b\r\n" % refusal.code.encode()
        lost = []
        if record.attempt > 1:
            lost = await (await self._errands.store()).jobs.lost_runs(record.id)
        answer_json_bytes(request, job_json(record, result, lost), more_head=more)

    async def _get(self, request: Request, tenant: str, job_id: str) -> None:
        record = await self._known(tenant, job_id)
        wait_s = read_prefer(request).wait_s
        if wait_s and not record.ended:
            record = await self._ended_within(tenant, job_id, min(wait_s, MOST_WAIT_S)) or record
        await self._answer_record(request, record)

    async def _result(self, request: Request, tenant: str, job_id: str) -> None:
        record = await self._known(tenant, job_id)
        if not record.ended:
            raise Conflict(f"the job is {record.state}", code="job-not-ended")
        if record.state is not State.SUCCEEDED:
            answer_problem(request, problem_of(record))
            return
        answer_json_bytes(request, await self._result_of(record))

    async def _list(self, request: Request, tenant: str) -> None:
        asked = read_listing(request, tenant, "state", "model")
        states = []
        for word in filter(None, asked.query.get("state", "").split(",")):
            if word not in State._value2member_map_:
                raise Invalid("state: expected " + ", ".join(State))
            states.append(State(word))
        model = asked.query.get("model", "")
        if "\0" in model:  # a database takes it for the end of the text, or for an error
            raise Invalid("model: expected the name of a model")
        jobs = (await self._errands.store()).jobs
        found = await jobs.page(
            tenant, states=states, model=model, before=asked.before, limit=asked.limit + 1
        )
        page, after = cut(found, asked.limit, tenant, lambda record: record.id)
        answer_json(request, {"jobs": [job_view(record) for record in page], "next": after})

    async def _events(self, request: Request, tenant: str, job_id: str) -> None:
        """`event: state`, data as `GET /jobs/{id}` without the result; ends with the job."""
        record = await self._known(tenant, job_id)
        head = (b"Content-Type: text/event-stream\r\nCache-Control: no-store\r\n"
                b"X-Request-Id: %b\r\n" % request.id.encode())  # fmt: skip
        gone = asyncio.Event()
        request.on_gone = gone.set
        if not request.begin(head):
            raise Conflict("not behind other requests on one connection", code="pipelined")
        jobs = (await self._errands.store()).jobs
        last, said_at = None, time.monotonic()
        try:
            with self._waits.on(job_id) as event:
                while not gone.is_set():
                    if (record.state, record.attempt) != last:
                        last, said_at = (record.state, record.attempt), time.monotonic()
                        view = job_json(record, None)
                        request.write(
                            b"event: state\nid: %d\ndata: %b\n\n" % (record.attempt, view)
                        )
                    elif time.monotonic() - said_at > _PING_S:
                        said_at = time.monotonic()
                        request.write(b": still here\n\n")
                    if record.ended or self._leaving:
                        return
                    await heard_within(event, 1.0)
                    try:
                        record = await jobs.get(tenant, job_id) or record
                    except Unavailable:
                        continue
        finally:
            request.end()

    # -- changing ------------------------------------------------------------------------------

    async def _cancel(self, request: Request, tenant: str, job_id: str) -> None:
        before = await self._known(tenant, job_id)
        if before.ended:
            raise Conflict(f"the job is {before.state} already", code="job-ended")
        record = await (await self._errands.store()).jobs.cancel(tenant, job_id)
        if record is None or record.state is not State.CANCELLED:
            raise Conflict("the job has ended meanwhile", code="job-ended")
        self._waits.heard([job_id])
        answer_json(request, job_view(record))

    async def _replay(self, request: Request, tenant: str, job_id: str) -> None:
        before = await self._known(tenant, job_id)
        jobs = (await self._errands.store()).jobs
        record = await jobs.replay(tenant, job_id, self._settings.jobs.default_ttl_s)
        if record is None:
            dead = before.state is State.DEAD
            why = "its input is gone" if dead else f"it is {before.state}, not dead"
            raise Conflict(f"the job cannot be replayed: {why}", code="job-not-dead")
        answer_json(request, job_view(record), 202)

    async def _discard(self, request: Request, tenant: str, job_id: str) -> None:
        before = await self._known(tenant, job_id)
        if not before.ended:
            raise Conflict(f"the job is {before.state}: cancel it first", code="job-not-ended")
        await (await self._errands.store()).jobs.discard(tenant, job_id)
        answer_json(request, {"id": job_id, "removed": "soon", "links": links(job_id)}, 202)


def _place(request: Request, model: str) -> int:
    """Its bucket: by the caller's key, or by chance."""
    key = request.headers.get(ROUTE_KEY)
    return secrets.randbelow(WHOLE) if key is None else bucket(model, key)


def _same(record: Record, fingerprint: str) -> Record:
    """The job that a key stands for. Raises Invalid where it was another call."""
    if record.fingerprint != fingerprint:
        raise Invalid(
            "this Idempotency-Key was used for another call", code="idempotency-key-reuse"
        )
    return record


def problem_of(record: Record) -> Problem:
    """Why a job that ended has no result."""
    if record.problem:
        return record.problem
    if record.state is State.EXPIRED:
        return DeadlineExceeded("the job expired before it was done").problem()
    if record.state is State.CANCELLED:
        return Conflict("the job was cancelled", code="job-cancelled").problem()
    return ModelFailed("no run of the job came to a result", code="job-dead").problem()
