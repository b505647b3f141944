"""N jobs of one request: in order, once, all or none. And what gRPC says of a refusal."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import socket
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import msgspec
import pytest

from headrace import errors
from headrace.errors import Invalid, NotFound, Problem, Refusal, Unavailable
from headrace.gateway import v2_grpc
from headrace.gateway.snapshot import ModelView
from headrace.gateway.v2_infer import Answered, Infer, deadline_in, mapping_of
from headrace.gateway.v2_tensors import Head, WireTensor, from_values, json_values
from headrace.house import free_port
from headrace.jobs import Form, Outcome, Returned
from headrace.settings import GatewaySettings
from headrace.signature import Card, json_schema
from headrace.telemetry.metrics import GatewayMetrics

RETURNED = Returned("m", "7", "w", 0.0, [])


class Dispatch:
    """Takes note."""

    def __init__(self) -> None:
        self.jobs: dict[int, dict[str, Any]] = {}
        self.cancelled: list[int] = []
        self.refuse: Refusal | None = None
        self._ids = itertools.count(1)

    def start(self, model: str, request_id: str, body: bytes, **rest: Any) -> int:
        number = next(self._ids)
        self.jobs[number] = {"model": model, "body": body, **rest}
        if self.refuse:
            rest["on_outcome"](self.refuse, None)
        return number

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)

    def answer(self, number: int, result: Any) -> None:
        outcome = Outcome(number, time.time(), 0.0, 1.0, msgspec.msgpack.encode(result))
        self.jobs[number]["on_outcome"](outcome, RETURNED)

    def fail(self, number: int, problem: Problem) -> None:
        self.jobs[number]["on_outcome"](Outcome(number, 0.0, 0.0, 0.0, b"", problem), RETURNED)


class Times:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def observe(self, times: Any) -> None:
        self.seen.append(times)


class App:
    def __init__(self) -> None:
        self.settings = GatewaySettings(max_many=4)
        self.dispatch = Dispatch()
        self.counted: list[tuple[str, int, str]] = []
        self.times = Times()
        self.metrics = GatewayMetrics()

    def count(self, *what: Any) -> None:
        self.counted.append(what)

    def stages(self, model: str) -> Times:
        return self.times


def view(output: Any = float) -> ModelView:
    found = ModelView("m")
    found.card = Card("m", "7", "", json_schema(int), json_schema(output), 1)
    return found


def ints(*given: int) -> list[WireTensor]:
    return [from_values(Head("input", "INT64", (len(given),)), list(given))]


class Request:
    """An Infer, its app and what it was told."""

    def __init__(self, *given: int, output: Any = float, refuse: Refusal | None = None) -> None:
        self.app = App()
        self.app.dispatch.refuse = refuse
        self.told: list[Answered | Problem] = []
        self.infer = Infer(self.app, view(output), time.time(), self.told.append)  # type: ignore[arg-type]
        self.infer.expect([Head("input", "INT64", (len(given),))], [])
        self.infer.start(ints(*given), "r1", 99.0)
        self.dispatch = self.app.dispatch


def test_each_item_is_a_job_and_results_are_in_order() -> None:
    request = Request(10, 20, 30)
    jobs = request.dispatch.jobs
    assert [msgspec.msgpack.decode(job["body"]) for job in jobs.values()] == [10, 20, 30]
    assert {(job["deadline"], job["form"]) for job in jobs.values()} == {(99.0, Form.CANONICAL)}
    for number, value in [(3, 3.0), (1, 1.0)]:
        request.dispatch.answer(number, value)
    assert request.told == []
    request.dispatch.answer(2, 2.0)
    [answered] = request.told
    assert isinstance(answered, Answered)
    assert answered.version == "7"
    assert json_values(answered.outputs[0]) == [1.0, 2.0, 3.0]
    assert len(request.app.times.seen) == 3


def test_one_refused_refuses_all_and_cancels_the_rest() -> None:
    request = Request(1, 2, 3)
    request.dispatch.answer(1, 1.0)
    request.dispatch.fail(3, Problem(422, "too-odd", "odd"))
    request.dispatch.answer(2, 2.0)
    assert request.told == [Problem(422, "too-odd", "item 2: odd")]
    assert request.dispatch.cancelled == [1, 2, 3]
    assert request.app.counted == [("m", 422, "too-odd")]


def test_refused_while_publishing() -> None:
    request = Request(1, 2, 3, refuse=Unavailable("full", code="queue-full"))
    assert len(request.dispatch.jobs) == 1
    [problem] = request.told
    assert isinstance(problem, Problem)
    assert (problem.status, problem.code) == (503, "queue-full")


def test_a_result_that_is_not_as_declared_is_the_models_failure() -> None:
    request = Request(1)
    request.dispatch.answer(1, "text")
    assert [(p.status, p.code) for p in request.told if isinstance(p, Problem)] == [
        (500, "model-failed")
    ]


def test_cancelled_means_told_nothing() -> None:
    request = Request(1, 2)
    request.infer.cancel()
    request.dispatch.answer(1, 1.0)
    request.dispatch.answer(2, 2.0)
    assert request.told == []
    assert request.dispatch.cancelled == [1, 2]


def test_heads_that_do_not_fit_publish_nothing() -> None:
    app = App()
    infer = Infer(app, view(), 0.0, print)  # type: ignore[arg-type]
    with pytest.raises(Refusal) as refused:
        infer.expect([Head("input", "INT64", (5,))], [])
    assert refused.value.status == 413
    with pytest.raises(Invalid):
        infer.expect([Head("input", "INT64", (1,))], ["nothing"])
    assert app.dispatch.jobs == {}


def test_a_model_of_which_nothing_is_known_is_not_ready() -> None:
    with pytest.raises(Unavailable) as refused:
        mapping_of(ModelView("new"))
    assert refused.value.code == "model-not-ready"


def test_a_new_card_is_a_new_mapping() -> None:
    one, two = view(), view(int)
    assert mapping_of(one) is mapping_of(one)
    assert mapping_of(two).outputs.columns[0].datatype == "INT64"


@pytest.mark.parametrize(
    ("timeout_us", "deadline"),
    [(None, 60.0), (0, 60.0), (-5, 60.0), ("1", 60.0), (2_000_000, 12.0), (10**12, 60.0)],
)
def test_the_timeout_parameter_only_shortens(timeout_us: object, deadline: float) -> None:
    assert deadline_in(60.0, 10.0, timeout_us) == deadline


class Aborted(Exception):
    pass


class Context:
    trailing: ClassVar[dict[str, Any]] = {}

    async def abort(self, status: Any, detail: str, trailing: Any) -> None:
        self.status, self.detail, self.trailing = status, detail, dict(trailing)
        raise Aborted


STATUSES = [
    (errors.BadRequest("x"), "INVALID_ARGUMENT"),
    (NotFound("x"), "NOT_FOUND"),
    (errors.PayloadTooLarge("x"), "RESOURCE_EXHAUSTED"),
    (errors.PayloadTooLarge("x", code="batch-invalid"), "INVALID_ARGUMENT"),
    (errors.UnsupportedMediaType("x"), "INVALID_ARGUMENT"),
    (Invalid("x", code="tensor-invalid"), "INVALID_ARGUMENT"),
    (errors.ModelFailed("x"), "INTERNAL"),
    (Unavailable("x", retry_after_s=3), "UNAVAILABLE"),
    (errors.DeadlineExceeded("x"), "DEADLINE_EXCEEDED"),
    (errors.RequestTimeout("x"), "DEADLINE_EXCEEDED"),
]


@pytest.mark.parametrize(("refusal", "status"), STATUSES)
async def test_a_refusal_in_grpc(refusal: Refusal, status: str) -> None:
    context = Context()
    with pytest.raises(Aborted):
        await v2_grpc._abort(context, refusal.problem(), "r1")
    assert context.status.name == status
    assert context.trailing["headrace-code"] == refusal.code
    details = v2_grpc.pb.RpcStatus.FromString(context.trailing["grpc-status-details-bin"])
    assert (details.code, details.message) == (context.status.value[0], "x")
    assert details.details[0].type_url == "type.googleapis.com/google.rpc.ErrorInfo"
    info = v2_grpc.pb.RpcErrorInfo.FromString(details.details[0].value)
    assert (info.reason, info.metadata["request_id"]) == (refusal.code, "r1")
    assert info.metadata.get("retry_after_s") == ("3" if refusal.retry_after_s else None)


def test_without_grpcio_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "headrace.gateway.v2_grpc")
    with pytest.raises(ImportError, match=r'pip install "headrace\[grpc\]"'):
        importlib.import_module("headrace.gateway.v2_grpc")


async def test_an_address_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match="cannot listen there"):
            await v2_grpc.serve(App(), listen)  # type: ignore[arg-type]


async def never() -> AsyncIterator[bytes]:
    await asyncio.sleep(30)
    yield b""


async def test_a_message_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2_grpc, "MESSAGE_WAIT_S", 0.05)
    app = App()
    listen = f"127.0.0.1:{free_port()}"
    server = await v2_grpc.serve(app, listen)  # type: ignore[arg-type]
    async with v2_grpc.grpc.aio.insecure_channel(listen) as channel:
        live = "/inference.GRPCInferenceService/ServerLive"
        with pytest.raises(v2_grpc.grpc.aio.AioRpcError) as refused:
            await channel.stream_unary(live)(never(), timeout=10)
        assert refused.value.code() is v2_grpc.grpc.StatusCode.DEADLINE_EXCEEDED
        assert refused.value.details() == "the message did not arrive in time"
        assert await channel.unary_unary(live)(b"") == b"\x08\x01"
    await server.stop(1)
    assert app.metrics.refusals.values == {("", "request-timeout"): 1}
