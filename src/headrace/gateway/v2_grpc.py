"""The Open Inference Protocol V2 over gRPC: `inference.GRPCInferenceService` on the gateway's loop.

    bytes -> message -> Infer (as REST) -> message -> bytes
                          | refused: status by code, google.rpc.ErrorInfo with the problem code

What is not served (ModelConfig, RepositoryIndex, ModelStreamInfer, shared memory, ...) is answered
UNIMPLEMENTED by gRPC. A refusal's message is its detail; its code is in the trailing metadata, as
`headrace-code` and, in `grpc-status-details-bin`, as the `reason` of an ErrorInfo.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TYPE_CHECKING, Any

import structlog

from headrace.errors import (
    BadRequest,
    DeadlineExceeded,
    Invalid,
    NotFound,
    Problem,
    Refusal,
    RequestTimeout,
)
from headrace.gateway.route import HEADER as ROUTE_KEY
from headrace.gateway.v2_infer import (
    SERVER,
    Answered,
    Infer,
    check_parameters,
    deadline_in,
    metadata_of,
    server_timing,
    view_of,
)
from headrace.gateway.v2_tensors import Head, WireTensor, from_raw, from_values, raw_bytes, wrong
from headrace.settings import GatewaySettings

try:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else C++ writes to stderr beside our logs
    import grpc
    import grpc.aio

    from headrace.gateway import v2_pb2 as pb
except ImportError as missing:
    raise ImportError(
        f'gateway.grpc needs {missing.name}; install it with: pip install "headrace[grpc]"'
    ) from missing

if TYPE_CHECKING:
    from headrace.gateway.app import App

log = structlog.get_logger("headrace.gateway")

SERVICE = "inference.GRPCInferenceService"
MAX_METADATA = 8192  # bytes, as one HTTP header may have
MESSAGE_WAIT_S = 30.0  # from the start of a call to its message; then the call is refused
DOMAIN = "headrace.dev"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")

_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
#: Where the typed contents of a datatype are. FP16 has none: it comes raw.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


async def serve(app: App, listen: str) -> grpc.aio.Server:
    """Listens on "host:port"; the server's `stop(grace)` ends it. Raises OSError where the address
    is taken."""
    server = grpc.aio.server(options=_options(app.settings))
    server.add_generic_rpc_handlers((Service(app).handlers(),))
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError:
        port = 0
    if not port:
        raise OSError(f"gateway.grpc = {listen!r}: cannot listen there; is it taken?")
    await server.start()
    return server


def _options(settings: GatewaySettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", MAX_METADATA),
        ("grpc.absolute_max_metadata_size", MAX_METADATA),
        ("grpc.max_concurrent_streams", 1_000),
        # Two houses must not share a port without knowing; the gateways of one may.
        ("grpc.so_reuseport", int(settings.count > 1)),
        ("grpc.keepalive_time_ms", 60_000),  # a peer that vanished is noticed in 80 s
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]


class Service:
    """The methods. Each takes a message and gives one, or raises Refusal."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._prefix = secrets.token_hex(5)
        self._numbers = count(1)

    def handlers(self) -> grpc.GenericRpcHandler:
        methods = {
            "ServerLive": (pb.ServerLiveRequest, self.server_live),
            "ServerReady": (pb.ServerReadyRequest, self.server_ready),
            "ModelReady": (pb.ModelReadyRequest, self.model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self.server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self.model_metadata),
            "ModelInfer": (pb.ModelInferRequest, self.model_infer),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE, {name: self._handler(*method) for name, method in methods.items()}
        )

    def _handler(
        self, kind: Any, method: Callable[[Any, Call], Awaitable[Any]]
    ) -> grpc.RpcMethodHandler:
        """Declared as taking a stream, which is the same on the wire: so the wait for the message,
        and what a malformed one is answered, are ours."""

        async def handle(_: Any, context: grpc.aio.ServicerContext) -> bytes:
            call = Call(context, self._request_id(context))
            try:
                answer: bytes = (
                    await method(await _message(kind, context), call)
                ).SerializeToString()
                return answer
            except Refusal as refusal:
                self._app.metrics.refusals.add(call.model, refusal.code)
                problem = refusal.problem()
            except Refused as refused:  # counted already
                problem = refused.problem
            except Exception:
                log.exception("a gRPC call failed", request_id=call.id)
                problem = Problem(500, "internal", "the gateway failed")
            return await _abort(context, problem, call.id)

        return grpc.stream_unary_rpc_method_handler(handle)

    def _request_id(self, context: grpc.aio.ServicerContext) -> str:
        for key, value in context.invocation_metadata() or ():
            if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
                return value
        return f"{self._prefix}-{next(self._numbers):x}"

    # -- methods -------------------------------------------------------------------------------

    async def server_live(self, request: Any, call: Call) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, request: Any, call: Call) -> Any:
        ready = self._app.snapshot.ready and not self._app.draining
        return pb.ServerReadyResponse(ready=ready)

    async def model_ready(self, request: Any, call: Call) -> Any:
        """A model that is not there is not ready: clients ask in a loop until one is."""
        try:
            ready = view_of(self._app, request.name, request.version).ready
        except NotFound:
            ready = False
        return pb.ModelReadyResponse(ready=ready)

    async def server_metadata(self, request: Any, call: Call) -> Any:
        return pb.ServerMetadataResponse(**SERVER)

    async def model_metadata(self, request: Any, call: Call) -> Any:
        view = view_of(self._app, request.name, request.version)
        return pb.ModelMetadataResponse(**metadata_of(self._app, view))

    async def model_infer(self, request: Any, call: Call) -> Any:
        now = time.time()
        view = view_of(self._app, request.model_name, request.model_version)
        if not request.model_version:
            view = self._app.routed(view, _metadata(call.context, ROUTE_KEY.decode()))
        call.model = view.name
        deadline = _deadline(call.context, now, self._app.settings)
        self._app.admit(view, deadline, now)
        deadline = deadline_in(deadline, now, _parameters(request.parameters).get("timeout"))
        done: asyncio.Future[Answered | Problem] = asyncio.get_running_loop().create_future()
        infer = Infer(
            self._app,
            view,
            now,
            lambda o: None if done.done() else done.set_result(o),
            request.model_version,
        )
        infer.expect(_heads(request), [output.name for output in request.outputs])
        infer.start(_tensors(request), call.id, deadline)
        try:
            outcome = await done
        except asyncio.CancelledError:  # the client is gone
            infer.cancel()
            raise
        if isinstance(outcome, Problem):
            raise Refused(outcome)
        call.context.set_trailing_metadata((
            ("x-request-id", call.id), ("server-timing", server_timing(outcome.times)),
        ))  # fmt: skip
        return _answer(request, view.name, outcome)


class Call:
    """One gRPC call: who waits, what it is called, which model it turned out to be for."""

    __slots__ = ("context", "id", "model")

    def __init__(self, context: grpc.aio.ServicerContext, id: str) -> None:
        self.context, self.id, self.model = context, id, ""


class Refused(Exception):
    """An answer came home, and it is a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


async def _message(kind: Any, context: grpc.aio.ServicerContext) -> Any:
    try:
        data = await asyncio.wait_for(context.read(), MESSAGE_WAIT_S)
    except TimeoutError:
        raise RequestTimeout("the message did not arrive in time") from None
    if not isinstance(data, bytes):
        raise BadRequest("the call has no message", code="empty-body")
    try:
        return kind.FromString(data)
    except Exception:
        raise BadRequest(
            f"the message is not a {kind.__name__}", code="malformed-message"
        ) from None


async def _abort(context: grpc.aio.ServicerContext, problem: Problem, request_id: str) -> bytes:
    status = _STATUS.get(problem.status, grpc.StatusCode.UNKNOWN)
    if problem.code == "batch-invalid":  # a batch too large is no lack of resources
        status = grpc.StatusCode.INVALID_ARGUMENT
    info = pb.RpcErrorInfo(reason=problem.code, domain=DOMAIN)
    info.metadata["request_id"] = request_id
    if problem.retry_after_s:
        info.metadata["retry_after_s"] = str(problem.retry_after_s)
    if problem.errors:
        info.metadata["pointer"] = problem.errors[0].pointer[:256]
    details = pb.RpcStatus(code=status.value[0], message=problem.detail[:1024])
    details.details.add(
        type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info.SerializeToString()
    )
    await context.abort(status, problem.detail[:1024], (
        ("headrace-code", problem.code),
        ("x-request-id", request_id),
        ("grpc-status-details-bin", details.SerializeToString()),
    ))  # fmt: skip
    raise AssertionError  # abort does not return


def _metadata(context: grpc.aio.ServicerContext, name: str) -> bytes | None:
    """What the caller sends beside the request."""
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, bytes) else value.encode()
    return None


def _deadline(context: grpc.aio.ServicerContext, now: float, settings: GatewaySettings) -> float:
    left_s: float | None = context.time_remaining()
    if left_s is None:
        return now + settings.default_deadline_ms / 1000
    if left_s <= 0:
        raise DeadlineExceeded("the deadline has passed")
    return now + min(left_s, settings.max_deadline_ms / 1000)


def _parameters(given: Any) -> dict[str, Any]:
    chosen = ((name, value, value.WhichOneof("parameter_choice")) for name, value in given.items())
    return {name: getattr(value, choice) for name, value, choice in chosen if choice}


def _heads(request: Any) -> list[Head]:
    for part in (*request.inputs, *request.outputs):
        check_parameters(tuple(part.parameters))
    return [Head(part.name, part.datatype, tuple(part.shape)) for part in request.inputs]


def _tensors(request: Any) -> list[WireTensor]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Invalid(
            f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs",
            code="tensor-invalid",
        )
    tensors = []
    for place, part in enumerate(request.inputs):
        head = Head(part.name, part.datatype, tuple(part.shape))
        if raw and part.HasField("contents"):
            raise wrong(head.name, "both contents and raw_input_contents")
        if raw:
            tensors.append(from_raw(head, raw[place]))
        elif head.datatype not in _CONTENTS:
            raise wrong(head.name, f"{head.datatype} comes in raw_input_contents only")
        else:
            values = getattr(part.contents, _CONTENTS[head.datatype])
            tensors.append(from_values(head, values))
    return tensors


def _answer(request: Any, model: str, answered: Answered) -> Any:
    return pb.ModelInferResponse(
        model_name=model,
        model_version=answered.version,
        id=request.id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(name=t.name, datatype=t.datatype, shape=t.shape)
            for t in answered.outputs
        ],
        raw_output_contents=[raw_bytes(tensor) for tensor in answered.outputs],
    )
