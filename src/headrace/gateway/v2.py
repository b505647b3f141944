"""The Open Inference Protocol V2 over REST: existing clients work unchanged.

GET  /v2                                      who this is
GET  /v2/health/live, /v2/health/ready        200, or 503
GET  /v2/models/{name}[/versions/{v}]         its tensors (how they map: `v2_columns`), and the
                                              versions that may be asked for
GET  /v2/models/{name}[/versions/{v}]/ready   200, or 503
POST /v2/models/{name}[/versions/{v}]/infer   JSON, or JSON with binary tensors behind it

Without a version a call goes as `predict` does, by `Headrace-Route-Key` or by chance. With one,
that version answers, whatever its share is, or nobody does.

A body with binary tensors is JSON of `Inference-Header-Content-Length` bytes, then each tensor's
raw data in order. Refusals are problem+json as everywhere, with one member more, `error`, which is
where clients of this protocol look.
"""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING

import msgspec

from headrace.errors import (
    MethodNotAllowed,
    NotFound,
    Problem,
    Refusal,
    UnsupportedMediaType,
)
from headrace.gateway.route import HEADER as ROUTE_KEY
from headrace.gateway.snapshot import ModelView
from headrace.gateway.v2_body import Body, heads, parse, read_tensors, write_body
from headrace.gateway.v2_infer import (
    SERVER,
    Answered,
    Infer,
    deadline_in,
    metadata_of,
    server_timing,
    view_of,
)
from headrace.httpapi.answer import answer_json, problem_json
from headrace.httpapi.body import decompress
from headrace.httpserver import Request

if TYPE_CHECKING:
    from headrace.gateway.app import App

_MODEL = re.compile(rb"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?")
#: Clients of this protocol often send none: then the header of the body alone decides.
_MEDIA_TYPES = (b"", b"application/json", b"application/octet-stream")


def handle(app: App, request: Request) -> None:
    """Every request below /v2. Answers its refusals itself."""
    model = ""
    try:
        if _health(app, request):
            return
        match = _MODEL.fullmatch(request.path)
        if match is None:
            raise NotFound("no such path")
        name, version, verb = match.groups(b"")
        view = view_of(app, name.decode("latin-1"), version.decode("latin-1"))
        model = view.name
        if verb == b"/infer" and not version:
            view = app.routed(view, request.headers.get(ROUTE_KEY))
        _model(app, request, view, verb, version.decode("latin-1"))
    except Refusal as refusal:
        app.metrics.refusals.add(model, refusal.code)
        refuse(request, refusal)


def refuse(request: Request, refusal: Refusal) -> None:
    allow = refusal.allow if isinstance(refusal, MethodNotAllowed) else ""
    _answer_problem(request, refusal.problem(), allow)


def _health(app: App, request: Request) -> bool:
    """The paths that name no model."""
    if request.path == b"/v2":
        _allow(request, b"GET")
        answer_json(request, SERVER)
    elif request.path == b"/v2/health/live":
        _allow(request, b"GET")
        answer_json(request, {"live": True})
    elif request.path == b"/v2/health/ready":
        _allow(request, b"GET")
        _answer_ready(request, app.snapshot.ready and not app.draining)
    else:
        return False
    return True


def _model(app: App, request: Request, view: ModelView, verb: bytes, version: str) -> None:
    _allow(request, b"POST" if verb == b"/infer" else b"GET")
    if verb == b"/infer":
        infer(app, request, view, version)
    elif verb == b"/ready":
        _answer_ready(request, view.ready, name=view.name)
    else:
        answer_json(request, metadata_of(app, view))


def _answer_ready(request: Request, ready: bool, **more: str) -> None:
    answer_json(request, {"ready": ready} | more, 200 if ready else 503)


def _allow(request: Request, method: bytes) -> None:
    if request.method != method and not (request.method == b"HEAD" and method == b"GET"):
        raise MethodNotAllowed("GET, HEAD" if method == b"GET" else method.decode())


def infer(app: App, request: Request, view: ModelView, version: str = "") -> None:
    """`version`: the one that is asked for, "" for any. Raises Refusal for what is refused before
    anything is published."""
    now = time.time()
    deadline = app.deadline(request, now)
    app.admit(view, deadline, now)
    body = _body(request, app.settings.max_body_bytes)
    asked, at = parse(body, request.headers.get(b"inference-header-content-length"))
    deadline = deadline_in(deadline, now, asked.parameters.get("timeout"))

    def answer(outcome: Answered | Problem) -> None:
        if isinstance(outcome, Problem):
            _answer_problem(request, outcome)
        else:
            _answer(request, asked, view.name, outcome)

    call = Infer(app, view, now, answer, version)
    call.expect(heads(asked), [output.name for output in asked.outputs])
    request.on_gone = call.cancel
    call.start(read_tensors(asked, body, at), request.id, deadline)


def _body(request: Request, most: int) -> bytes:
    headers = request.headers
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES:
        raise UnsupportedMediaType(
            "expected Content-Type application/json or application/octet-stream"
        )
    if b"content-encoding" in headers:
        return decompress(request.body, headers[b"content-encoding"], most)
    return request.body


def _answer(request: Request, asked: Body, model: str, answered: Answered) -> None:
    body, json_size = write_body(asked, model, answered.version, answered.outputs)
    kind = b"application/octet-stream" if json_size else b"application/json"
    head = b"Content-Type: %b\r\nX-Request-Id: %b\r\nServer-Timing: %b\r\n" % (
        kind, request.id.encode(), server_timing(answered.times).encode(),
    )  # fmt: skip
    if json_size:
        head += b"Inference-Header-Content-Length: %d\r\n" % json_size
    request.answer(200, body, head)


def _answer_problem(request: Request, problem: Problem, allow: str = "") -> None:
    body = problem_json(problem, request.id) | {"error": problem.detail}
    head = b"Content-Type: application/problem+json\r\nX-Request-Id: %b\r\n" % request.id.encode()
    if problem.retry_after_s:
        head += b"Retry-After: %d\r\n" % math.ceil(problem.retry_after_s)
    if allow:
        head += b"Allow: %b\r\n" % allow.encode()
    request.answer(problem.status, msgspec.json.encode(body), head)
