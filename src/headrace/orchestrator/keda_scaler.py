"""The gRPC service that KEDA's operator asks: `externalscaler.ExternalScaler`.

GetMetricSpec   one metric, of which each worker stands for 1
GetMetrics      its value: the count that is wanted, so that the wanted count is what KEDA wants
IsActive        is it above 0
StreamIsActive  the same at once, and again whenever it turns

Where no figure is known, or nobody stands by it any more, IsActive and GetMetrics are answered
UNAVAILABLE and the stream is silent: KEDA, and the HPA that it keeps, then leave the count alone. A
ScaledObject with a `fallback` undoes that.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else C++ writes to stderr beside our logs
import grpc
import grpc.aio

from headrace.orchestrator import keda_pb2 as pb
from headrace.orchestrator.keda_figures import Figures

SERVICE = "externalscaler.ExternalScaler"
#: In a trigger's metadata it names the workload; without it, the name of the ScaledObject does.
KEY = "model"
TARGET = 1
STOP_S = 0.1
_OPTIONS = [
    ("grpc.max_receive_message_length", 65_536),
    ("grpc.max_concurrent_streams", 1_000),
    ("grpc.so_reuseport", 0),  # two autoscalers must not share a port without knowing
    ("grpc.keepalive_time_ms", 60_000),  # a peer that vanished is noticed in 80 s
    ("grpc.keepalive_timeout_ms", 20_000),
]


class Scaler:
    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((self._handlers(),))

    async def open(self, listen: str) -> int:
        """Listens on "host:port"; gives the port. Raises OSError where the address is taken."""
        try:
            port: int = self._server.add_insecure_port(listen)
        except RuntimeError:
            port = 0
        if not port:
            raise OSError(f"orchestrator.url: cannot listen on {listen!r}; is it taken?")
        await self._server.start()
        return port

    async def close(self) -> None:
        """The streams, which have no end of their own, are cut: KEDA asks again."""
        await self._server.stop(STOP_S)

    def _handlers(self) -> grpc.GenericRpcHandler:
        once, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods = {
            "IsActive": (once, self.is_active, pb.ScaledObjectRef),
            "StreamIsActive": (stream, self.stream_is_active, pb.ScaledObjectRef),
            "GetMetricSpec": (once, self.get_metric_spec, pb.ScaledObjectRef),
            "GetMetrics": (once, self.get_metrics, pb.GetMetricsRequest),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: kind(method, asked.FromString, lambda answer: answer.SerializeToString())
                for name, (kind, method, asked) in methods.items()
            },
        )

    # -- methods -----------------------------------------------------------------------------------

    async def is_active(self, ref: Any, context: grpc.aio.ServicerContext) -> Any:
        return pb.IsActiveResponse(result=await self._count(ref, context) > 0)

    async def stream_is_active(
        self, ref: Any, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Any]:
        workload = await _workload(ref, context)
        await context.send_initial_metadata(())  # it is open, though there may be nothing to tell
        told: bool | None = None
        with self._figures.watching() as changed:
            while True:
                changed.clear()
                count = self._figures.desired(workload)
                if count is not None and (count > 0) is not told:
                    told = count > 0
                    yield pb.IsActiveResponse(result=told)
                await changed.wait()

    async def get_metric_spec(self, ref: Any, context: grpc.aio.ServicerContext) -> Any:
        """Known without a figure: KEDA makes its HPA from it."""
        name = _metric(await _workload(ref, context))
        spec = pb.MetricSpec(metricName=name, targetSize=TARGET, targetSizeFloat=TARGET)
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def get_metrics(self, asked: Any, context: grpc.aio.ServicerContext) -> Any:
        count = await self._count(asked.scaledObjectRef, context)
        name = asked.metricName or _metric(await _workload(asked.scaledObjectRef, context))
        value = pb.MetricValue(metricName=name, metricValue=count, metricValueFloat=count)
        return pb.GetMetricsResponse(metricValues=[value])

    async def _count(self, ref: Any, context: grpc.aio.ServicerContext) -> int:
        workload = await _workload(ref, context)
        count = self._figures.desired(workload)
        if count is None:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, f"nobody stands by a count of {workload!r}"
            )
        return int(count or 0)


async def _workload(ref: Any, context: grpc.aio.ServicerContext) -> str:
    workload = str(ref.scalerMetadata.get(KEY, "") or ref.name)
    if not workload:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, f"expected {KEY!r} in the trigger's metadata"
        )
    return workload


def _metric(workload: str) -> str:
    return f"headrace-workers-{workload}"
