"""The table of contents of a call: route -> admit -> read -> dispatch -> answer.

POST /models/{name}/predict        one input, one answer
POST /models/{name}/predict-many   a JSON array of inputs, one outcome each
POST /models/{name}/jobs           a stored job (see `jobs`, as for /jobs/...)
POST /models/{name}/feedback       what was right (see `feedback`)
GET  /models, /models/{name}       what is served
GET  /health/live, /health/ready, /metrics, /openapi.json, /docs
/v2/...                            the Open Inference Protocol (see `v2`)
"""

from __future__ import annotations

import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count

from headrace.deployments import parted
from headrace.dispatch import Dispatch
from headrace.errors import (
    MethodNotAllowed,
    NotFound,
    Refusal,
)
from headrace.gateway.admit import Load, admit
from headrace.gateway.answer import Timings, answer_result, timings
from headrace.gateway.deadline import HEADER, read_deadline
from headrace.gateway.feedback import FeedbackApi
from headrace.gateway.flight import OnAnswer
from headrace.gateway.jobs import JobsApi
from headrace.gateway.many import Many
from headrace.gateway.pages import Pages
from headrace.gateway.prefer import asks_for_job
from headrace.gateway.read import check_accept, check_bodiless, read_input, read_inputs
from headrace.gateway.reuse import Reuse, asked
from headrace.gateway.route import HEADER as ROUTE_KEY
from headrace.gateway.shadow import Shadows
from headrace.gateway.snapshot import ModelView, Snapshot
from headrace.gateway.tenant import Tenants
from headrace.gateway.webhooks import WebhooksApi
from headrace.httpapi.answer import answer_problem, answer_refusal
from headrace.httpserver import Request
from headrace.jobs import Form, Outcome, Returned
from headrace.settings import GatewaySettings
from headrace.telemetry.metrics import Counts, GatewayMetrics

#: Refusals of calls that a model was wanted for.
WANTED = frozenset({"model-not-ready", "queue-full", "overloaded"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_PATH = re.compile(rb"[A-Za-z0-9._~/:-]*")


class Stages:
    """One model's timings: kept as they come, counted into the histograms a hundred at a time."""

    __slots__ = ("_call", "_recent", "_stages", "answered")

    def __init__(self, metrics: GatewayMetrics, model: str) -> None:
        self._stages: list[Counts] = [metrics.stage.of(model, name) for name in Timings._fields]
        self._call = metrics.call.of(model)
        self._recent: list[Timings] = []
        self.answered = 0

    def observe(self, times: Timings) -> None:
        self._recent.append(times)
        if len(self._recent) >= 100:
            self.fold()

    def fold(self) -> None:
        recent, self._recent = self._recent, []
        self.answered += len(recent)
        for counts, column in zip(self._stages, zip(*recent, strict=True), strict=False):
            counts.observe_all([ms / 1000 for ms in column])
        self._call.observe_all([sum(times) / 1000 for times in recent])


class Call:
    """One admitted call: the request that waits and what its answer needs."""

    __slots__ = ("_app", "_began", "_published", "_request", "_view", "number")

    def __init__(self, app: App, request: Request, view: ModelView, began: float) -> None:
        self._app, self._request, self._view = app, request, view
        self._began = began
        self._published = time.time()
        self.number = 0

    def gone(self) -> None:
        """The client left."""
        self._app.dispatch.cancel(self.number)

    def finish(
        self, outcome: Outcome | Refusal, returned: Returned | None, reuse: bytes = b"", /
    ) -> None:
        """The last step of its way: answer, and count. What was reused is no stage's time."""
        app, view = self._app, self._view
        if view.witness is not None and not reuse:
            app.witness(view, outcome, returned, self._began)
        if isinstance(outcome, Refusal):
            app.count(view.name, outcome.status, outcome.code)
            answer_refusal(self._request, outcome)
        elif outcome.problem is not None:
            app.count(view.name, outcome.problem.status, outcome.problem.code)
            more = b"Headrace-Reuse: %b\r\n" % reuse if reuse else b""
            answer_problem(self._request, outcome.problem, more)
        else:
            assert returned is not None
            read_ms = (self._published - self._began) * 1000
            times = timings(outcome, read_ms, self._published, time.time())
            answer_result(
                self._request, outcome.body, view.name, returned.version, times, reuse=reuse
            )
            if reuse:
                app.stages(view.name).answered += 1
            else:
                app.stages(view.name).observe(times)


def by_model(by_workload: Mapping[str, int]) -> Counter[str]:
    """Those of all versions together."""
    summed: Counter[str] = Counter()
    for workload, calls in by_workload.items():
        summed[parted(workload)[0]] += calls
    return summed


class App:
    """The gateway's handler: every request comes to `handle`, every refusal to `refuse`."""

    def __init__(
        self,
        settings: GatewaySettings,
        snapshot: Snapshot,
        dispatch: Dispatch,
        metrics: GatewayMetrics,
    ) -> None:
        self.settings, self.snapshot, self.dispatch = settings, snapshot, dispatch
        self.metrics = metrics
        self.pages = Pages(self)
        self.draining = False
        self.missed: dict[str, int] = {}  # calls refused for want of capacity so far, by model
        self.connections: Callable[[], int] = lambda: 0  # set by who owns the listener
        self._prefix = secrets.token_hex(5)
        self._numbers = count(1)
        self._stages: dict[str, Stages] = {}
        self.reuse: Reuse | None = None  # set by who owns the cache
        self.shadows: Shadows | None = None  # set by who owns the broker
        self.tenants = Tenants(settings.tenant_header)
        self.jobs: JobsApi | None = None  # set by who owns the way to the store
        self.webhooks: WebhooksApi | None = None  # likewise
        self.feedback: FeedbackApi | None = None  # likewise
        self._routes: dict[bytes, tuple[bytes, Callable[[Request], None]]] = self.pages.routes()

    # -- routing -------------------------------------------------------------------------------

    def on_head(self, request: Request) -> None:
        """Before the body is read: a name for the request, and what its headers rule out."""
        given = request.headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            request.id = given.decode()
        else:
            request.id = f"{self._prefix}-{next(self._numbers):x}"
        if request.method == b"POST":
            headers = request.headers
            if b"content-length" not in headers and b"transfer-encoding" not in headers:
                check_bodiless(request.path)
            if b"accept" in headers:
                check_accept(headers[b"accept"])

    def handle(self, request: Request) -> None:
        path = request.path
        view = self.snapshot.by_path.get(path)
        if view is not None:
            if request.method != b"POST":
                raise MethodNotAllowed("POST")
            self.predict(request, view)
            return
        route = self._routes.get(path)
        if route is not None:
            self._allow(request, route[0])
            route[1](request)
            return
        self._by_prefix(request, path)

    def _by_prefix(self, request: Request, path: bytes) -> None:
        if not _PATH.fullmatch(path):
            raise NotFound("no such path")
        if path.startswith(b"/models/") and path.endswith(b"/predict"):
            self.view(path[8:-8])  # a name nobody serves, or it would have been in `by_path`
        elif path.startswith(b"/models/") and path.endswith(b"/predict-many"):
            self._allow(request, b"POST")
            self.predict_many(request, path[8:-13])
        elif path.startswith(b"/models/") and path.endswith(b"/jobs"):
            self._allow(request, b"POST")
            view = self.view(path[8:-5])
            self._jobs().submit(request, view)
        elif path.startswith(b"/models/") and path.endswith(b"/feedback") and self.feedback:
            self.feedback.handle(request, path[8:-9])
        elif path.startswith(b"/jobs"):
            self._jobs().handle(request)
        elif path.startswith(b"/webhooks") and self.webhooks is not None:
            self.webhooks.handle(request)
        elif path.startswith(b"/models/") and b"/" not in path[8:]:
            self._allow(request, b"GET")
            self.pages.model(request, self.view(path[8:]))
        elif path == b"/v2" or path.startswith(b"/v2/"):
            from headrace.gateway import v2

            v2.handle(self, request)
        else:
            raise NotFound("no such path")

    @staticmethod
    def _allow(request: Request, method: bytes) -> None:
        if request.method != method and not (request.method == b"HEAD" and method == b"GET"):
            raise MethodNotAllowed("GET, HEAD" if method == b"GET" else method.decode())

    def _jobs(self) -> JobsApi:
        if self.jobs is None:
            raise NotFound("no such path")
        return self.jobs

    def refuse(self, request: Request, refusal: Refusal) -> None:
        if not request.id:  # refused before its headers were read
            request.id = f"{self._prefix}-{next(self._numbers):x}"
        self.metrics.refusals.add("", refusal.code)
        if request.path.startswith(b"/v2"):
            from headrace.gateway import v2

            v2.refuse(request, refusal)  # its clients look for one member more
        else:
            answer_refusal(request, refusal)

    def view(self, name: bytes) -> ModelView:
        """Raises NotFound."""
        view = self.snapshot.models.get(name.decode("latin-1"))
        if view is None:
            raise NotFound("no model of this name", code="model-not-found")
        return view

    # -- a call's way --------------------------------------------------------------------------

    def predict(self, request: Request, view: ModelView) -> None:
        now = time.time()
        if self.jobs is not None and asks_for_job(request.headers):
            self.jobs.predict(request, view, now)
            return
        routing = view.routing
        if routing is not None:
            view = routing.of(request.headers.get(ROUTE_KEY))
        reuse = self.reuse
        if reuse is not None and view.name not in reuse.ttl_s:
            reuse = None
        try:
            deadline = self.deadline(request, now)
            if reuse is None or view.reader is None:
                self.admit(view, deadline, now)  # before reading: a refusal should cost nothing
            reader = view.reader
            assert reader is not None  # a ready model has a card
            body = read_input(request, reader, self.settings.max_body_bytes)
            tenant = self.tenants.of(request) if reuse is not None else ""
        except Refusal as refusal:
            self.metrics.refusals.add(view.name, refusal.code)
            answer_refusal(request, refusal)
            return
        call = Call(self, request, view, now)
        finish: OnAnswer = call.finish
        pair = None
        if routing is not None and routing.shadowed() and self.shadows is not None:
            assert routing.shadow is not None
            pair = self.shadows.pair(routing.shadow, call.finish)
            finish = pair.real if pair else finish
        if reuse is not None:
            number = reuse.start(
                view,
                request.id,
                body,
                deadline=deadline,
                form=Form.JSON,
                tenant=tenant,
                admit=partial(self.admit, view, deadline),
                on_answer=finish,
                asked=asked(request),
            )
            request.on_gone = partial(reuse.cancel, number)
        else:
            request.on_gone = call.gone
            call.number = self.dispatch.start(
                view.queue,
                request.id,
                body,
                deadline=deadline,
                form=Form.JSON,
                on_outcome=finish,
            )
        if pair is not None and self.shadows is not None:
            self.shadows.show(pair, request.id, body, deadline)

    def routed(self, view: ModelView, key: bytes | None) -> ModelView:
        """The view of the version that gets the call of who sends this key."""
        return view if view.routing is None else view.routing.of(key)

    def deadline(self, request: Request, now: float) -> float:
        settings = self.settings
        value = request.headers.get(HEADER)
        return read_deadline(value, now, settings.default_deadline_ms, settings.max_deadline_ms)

    def admit(self, view: ModelView, deadline: float, now: float, jobs: int = 1) -> None:
        """Raises the refusal."""
        load = Load(
            view.admitting,
            view.reason,
            self.dispatch.by_workload.get(view.queue, 0),
            self.snapshot.elsewhere(view.queue),
            view.per_second,
            self.settings.max_outstanding,
            view.fixed_s,
            view.item_s,
            view.max_size,
        )
        ticket = admit(load, deadline, now, jobs)
        if isinstance(ticket, Refusal):
            self.miss(view.name, ticket, jobs)
            if view.witness is not None:
                view.witness.note(ticket, 0.0)
            raise ticket

    def witness(
        self,
        view: ModelView,
        outcome: Outcome | Refusal,
        returned: Returned | None,
        began: float,
        result: bool = True,
    ) -> None:
        """What became of a call, to who ran it: that may be another version than was to.
        `result`: the outcome's body is JSON."""
        workload = returned.workload if returned is not None else view.queue
        body = outcome.body if result and isinstance(outcome, Outcome) else b""
        took_ms = (time.time() - began) * 1000
        self.snapshot.witnesses.of(workload).note(outcome, took_ms, body)

    def moved(self, workload: str, calls: int) -> None:
        """A version brought these to no result: that others did does not speak for it."""
        self.snapshot.witnesses.of(workload).failed += calls
        self.metrics.moved.add(parted(workload)[0], by=calls)

    def miss(self, model: str, refusal: Refusal, jobs: int = 1) -> None:
        """Counts what more workers would have answered."""
        if refusal.code in WANTED:
            self.missed[model] = self.missed.get(model, 0) + jobs

    def reuse_of(self, view: ModelView, request: Request) -> tuple[Reuse | None, str]:
        """Where the model's results are reused, and for whom. Raises BadRequest."""
        reuse = self.reuse
        if reuse is None or view.name not in reuse.ttl_s:
            return None, ""
        return reuse, self.tenants.of(request)

    def stages(self, model: str) -> Stages:
        stages = self._stages.get(model)
        if stages is None:
            stages = self._stages[model] = Stages(self.metrics, model)
        return stages

    def count(self, model: str, status: int, code: str) -> None:
        """One call refused after it was let in."""
        self.metrics.refusals.add(model, code)
        self.metrics.answers.add(model, str(status))

    def open_calls(self) -> Counter[str]:
        """By model."""
        return by_model(self.dispatch.by_workload)

    def oldest_s(self) -> dict[str, float]:
        """Age of the oldest open call, by model."""
        ages: dict[str, float] = {}
        for workload, age_s in self.dispatch.oldest_s().items():
            model = parted(workload)[0]
            ages[model] = max(age_s, ages.get(model, 0.0))
        return ages

    def gauge(self) -> None:
        """Brings what is counted late up to date; called when somebody scrapes."""
        metrics, dispatch = self.metrics, self.dispatch
        for model, stages in self._stages.items():
            stages.fold()
            metrics.answers.values[model, "200"] = stages.answered
        for model, calls in self.open_calls().items():
            metrics.in_flight.set(calls, model)
        metrics.oldest.values = {(m,): age for m, age in self.oldest_s().items()}
        metrics.unknown.values = {(): dispatch.unknown}
        metrics.reply_depth.set(dispatch.last_reply_size)
        metrics.reply_lag.set(dispatch.lag_s)
        metrics.connections.set(self.connections())
        if self.jobs is not None:
            metrics.jobs_waiting.values = {(m,): n for m, n in (self.jobs.backlog or {}).items()}
        for model in self.snapshot.models:
            workers = self.snapshot.workers(model)
            ready = sum(news.ready for news in workers)
            metrics.workers.set(ready, model, "true")
            metrics.workers.set(len(workers) - ready, model, "false")

    # -- many inputs in one call ---------------------------------------------------------------

    def predict_many(self, request: Request, name: bytes) -> None:
        """Each input is a job of its own; the answer is 200 with one outcome each, in order."""
        view = self.routed(self.view(name), request.headers.get(ROUTE_KEY))
        now = time.time()
        deadline = self.deadline(request, now)
        self.admit(view, deadline, now)
        assert view.reader is not None
        settings = self.settings
        inputs = read_inputs(request, view.reader, settings.max_body_bytes, settings.max_many)
        self.admit(view, deadline, now, len(inputs))
        Many(self, request, view, now).start(inputs, deadline)
