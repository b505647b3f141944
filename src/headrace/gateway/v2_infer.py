"""One infer request: tensors in, N jobs, tensors out; the same for REST and gRPC.

    find the model -> admit -> read tensors -> N x dispatch ... all in -> stack -> on_done
                                                       one refused -> cancel the rest -> on_done

All N are refused where one is, with the status of the first refusal that comes in: the protocol has
one answer for a batch. (`POST /models/{name}/predict-many` has one outcome each.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace import __version__
from headrace.errors import Invalid, NotFound, Problem, Refusal, Unavailable
from headrace.gateway.answer import Timings, timings
from headrace.gateway.snapshot import ModelView
from headrace.gateway.v2_columns import Column
from headrace.gateway.v2_read import TensorReader
from headrace.gateway.v2_stack import Stack
from headrace.gateway.v2_tensors import Head, WireTensor
from headrace.jobs import Form, Outcome, Returned
from headrace.signature import Card

if TYPE_CHECKING:
    from headrace.gateway.app import App

PLATFORM = "headrace"
SERVER: dict[str, Any] = {
    "name": "headrace",
    "version": __version__,
    "extensions": ["binary_tensor_data"],
}
#: Parameters of tensors that ask for what is not served here: an answer without it would be wrong.
_NOT_SERVED = ("shared_memory_region", "classification")


class Mapping:
    """Both sides of one model, made once for its card."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.inputs = TensorReader(card.input)
        self.outputs = Stack(card.output)

    def metadata(self, versions: list[str]) -> dict[str, Any]:
        """`versions`: all that may be asked for."""
        return {
            "name": self.card.name,
            "versions": versions,
            "platform": PLATFORM,
            "inputs": [_described(column) for column in self.inputs.columns],
            "outputs": [_described(column) for column in self.outputs.columns],
        }


def _described(column: Column) -> dict[str, Any]:
    return {"name": column.name, "datatype": column.datatype, "shape": [-1, *column.shape]}


_mappings: dict[str, Mapping] = {}


def mapping_of(view: ModelView) -> Mapping:
    """Raises Unavailable while nobody has said what the model takes."""
    if view.card is None:
        raise Unavailable(f"the model is not ready: {view.reason}", code="model-not-ready")
    mapping = _mappings.get(view.queue)
    if mapping is None or mapping.card is not view.card:
        mapping = _mappings[view.queue] = Mapping(view.card)
    return mapping


def view_of(app: App, model: str, version: str) -> ModelView:
    """`version` is "" for whichever is served. Raises NotFound: also of a version that is there and
    answers nobody, as a shadow does."""
    face = app.view(model.encode("latin-1", "replace"))
    if not version:
        return face
    served = app.snapshot.served(face.name)
    for view in served:
        if view.called == version:
            return view
    for view in served:
        if not view.called:  # it may turn out to be the one
            return view
    raise NotFound("no version of this name", code="model-not-found")


def metadata_of(app: App, view: ModelView) -> dict[str, Any]:
    """Raises Unavailable while nobody has said what the model takes."""
    versions = [each.called for each in app.snapshot.served(view.name) if each.card]
    return mapping_of(view).metadata(versions)


def check_parameters(parameters: Sequence[str]) -> None:
    """The names of a tensor's parameters. Raises Invalid for what is not served here."""
    for name in _NOT_SERVED:
        if name in parameters:
            raise Invalid(f"the parameter {name} is not served here")


def deadline_in(deadline: float, now: float, timeout_us: object) -> float:
    """The request parameter `timeout`, in microseconds, may make a deadline earlier. 0 is none."""
    if isinstance(timeout_us, int) and timeout_us > 0:
        return min(deadline, now + timeout_us / 1e6)
    return deadline


class Answered(NamedTuple):
    """`times` are those of the job that came in last: they add up to the time of the request."""

    version: str
    outputs: list[WireTensor]
    times: Timings


def server_timing(times: Timings) -> str:
    """In milliseconds, as browsers and `Server-Timing` have it."""
    return ", ".join(
        f"{stage};dur={ms:.3f}" for stage, ms in zip(Timings._fields, times, strict=True)
    )


#: Called once, with the answer or with why there is none.
OnDone = Callable[["Answered | Problem"], None]


class Infer:
    """The N jobs of one request. `cancel` where the caller is gone."""

    def __init__(
        self, app: App, view: ModelView, began: float, on_done: OnDone, version: str = ""
    ) -> None:
        """`began`: when the request came, a Unix time. `version`: the one that is asked for, which
        no other may stand in for; "" where any may answer."""
        self._version = version
        self._app, self._view, self._began, self._on_done = app, view, began, on_done
        self._mapping = mapping_of(view)
        self._jobs: list[int] = []
        self._results: list[bytes] = []
        self._wanted: list[str] = []
        self._missing = 0
        self._published = 0.0
        self._done = False

    def expect(self, heads: Sequence[Head], outputs: list[str]) -> None:
        """What the client says it sends, and the outputs it wants (none named: all). Raises
        Refusal where that does not fit the model, before any data is touched."""
        self._mapping.inputs.check(heads, self._app.settings.max_many)
        self._mapping.outputs.wanted(outputs)
        self._wanted = outputs

    def start(self, given: list[WireTensor], request_id: str, deadline: float) -> None:
        """Raises Refusal where the tensors are wrong; nothing is published then."""
        bodies = self._mapping.inputs.read(given)
        self._missing = len(bodies)
        self._results = [b""] * len(bodies)
        self._published = time.time()
        for place, body in enumerate(bodies):
            if self._done:  # refused while the first were being published
                return
            self._publish(place, body, request_id, deadline)

    def _publish(self, place: int, body: bytes, request_id: str, deadline: float) -> None:
        job = self._app.dispatch.start(
            self._view.queue,
            request_id,
            body,
            deadline=deadline,
            form=Form.CANONICAL,
            on_outcome=lambda outcome, returned: self._finish(place, outcome, returned),
        )
        self._jobs.append(job)

    def cancel(self) -> None:
        self._done = True
        for job in self._jobs:
            self._app.dispatch.cancel(job)

    def _finish(self, place: int, outcome: Outcome | Refusal, returned: Returned | None) -> None:
        if self._view.witness is not None:
            self._app.witness(self._view, outcome, returned, self._began, result=False)
        if self._done:
            return
        if isinstance(outcome, Refusal):
            self._refuse(outcome.problem(), place)
        elif outcome.problem is not None:
            self._refuse(outcome.problem, place)
        else:
            assert returned is not None
            if self._version not in ("", returned.version):
                detail = f"version {self._version} did not answer"
                self._refuse(Unavailable(detail, code="model-not-ready").problem(), place)
                return
            self._take(place, outcome, returned)

    def _take(self, place: int, outcome: Outcome, returned: Returned) -> None:
        self._results[place] = outcome.body
        self._missing -= 1
        read_ms = (self._published - self._began) * 1000
        times = timings(outcome, read_ms, self._published, time.time())
        self._app.stages(self._view.name).observe(times)
        if self._missing:
            return
        self._done = True
        try:
            outputs = self._mapping.outputs.stack(self._results, self._wanted)
        except Refusal as refusal:
            self._refuse(refusal.problem())
            return
        self._on_done(Answered(returned.version, outputs, times))

    def _refuse(self, problem: Problem, place: int | None = None) -> None:
        self.cancel()
        self._app.count(self._view.name, problem.status, problem.code)
        if place is not None and len(self._results) > 1:
            detail = f"item {place}: {problem.detail}"
            problem = Problem(
                problem.status, problem.code, detail, problem.errors, problem.retry_after_s
            )
        self._on_done(problem)
