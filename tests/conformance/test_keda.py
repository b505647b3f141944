"""`keda://`, asked as KEDA's operator does: gRPC over the loopback, messages by their numbers."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from headrace.errors import Invalid, NotFound, Unavailable
from headrace.house import free_port
from headrace.orchestrator import keda_pb2 as pb
from headrace.orchestrator import refusals
from headrace.orchestrator.keda import KedaOrchestrator
from headrace.orchestrator.keda_figures import FRESH_S, Figures
from headrace.orchestrator.keda_scaler import Scaler
from headrace.orchestrator.port import Status

PATIENT_S = 10.0
SERVICE = "externalscaler.ExternalScaler"
HERE = "keda://127.0.0.1:0/models"


class Cluster:
    """What is there: `replicas` by workload. It hears whether anybody asks it to scale."""

    def __init__(self, **replicas: int) -> None:
        self.replicas, self.away, self.notes = replicas, False, []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def status(self, workload: str) -> Status:
        if self.away:
            raise refusals.unreachable("the cluster is away")
        if workload not in self.replicas:
            raise refusals.unknown(f"no deployment {workload!r}")
        count = self.replicas[workload]
        return Status(desired=count, running=count, ready=count, moving=False, token=str(count))

    async def scale(
        self, workload: str, count: int, reason: str, seen: Status | None = None
    ) -> None:
        raise AssertionError("the HPA scales, and nobody else")

    async def note(self, workload: str, text: str) -> None:
        self.notes.append((workload, text))


class Operator:
    """KEDA's side, with `model` in the metadata of the trigger of a ScaledObject."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")

    async def close(self) -> None:
        await self._channel.close()

    def _method(self, kind: str, name: str, asked: Any, answer: Any) -> Any:
        path = f"/{SERVICE}/{name}"
        return getattr(self._channel, kind)(
            path, request_serializer=asked.SerializeToString, response_deserializer=answer
        )

    async def ask(self, name: str, model: str) -> Any:
        asked = pb.ScaledObjectRef(name="a", namespace="b", scalerMetadata={"model": model})
        answer: Any = {"IsActive": pb.IsActiveResponse, "GetMetricSpec": pb.GetMetricSpecResponse,
                       "GetMetrics": pb.GetMetricsResponse}[name]  # fmt: skip
        kind: Any = pb.ScaledObjectRef
        if name == "GetMetrics":
            kind = pb.GetMetricsRequest
            asked = kind(scaledObjectRef=asked, metricName="headrace-workers-" + model)
        call = self._method("unary_unary", name, kind, answer.FromString)
        return await call(asked, timeout=PATIENT_S)

    def stream(self, model: str) -> Any:
        call = self._method(
            "unary_stream", "StreamIsActive", pb.ScaledObjectRef, pb.IsActiveResponse.FromString
        )
        return call(pb.ScaledObjectRef(name="a", scalerMetadata={"model": model}))

    async def wants(self, model: str) -> int:
        """What the HPA makes of the answers, with a tolerance of 0."""
        [spec] = (await self.ask("GetMetricSpec", model)).metricSpecs
        [value] = (await self.ask("GetMetrics", model)).metricValues
        assert spec.metricName == value.metricName
        assert value.metricValue == value.metricValueFloat
        assert spec.targetSize == spec.targetSizeFloat
        return int(-(-value.metricValue // spec.targetSize))


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code()


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster(iris=3, ocr=0)


@pytest.fixture
async def keda(cluster: Cluster) -> AsyncIterator[KedaOrchestrator]:
    adapter = KedaOrchestrator(HERE, cluster=cluster)
    await adapter.open()
    yield adapter
    await adapter.close()


@pytest.fixture
async def operator(keda: KedaOrchestrator) -> AsyncIterator[Operator]:
    asks = Operator(keda.port)
    yield asks
    await asks.close()


# -- as an orchestrator ----------------------------------------------------------------------------


async def test_what_is_scaled_is_what_keda_wants(
    keda: KedaOrchestrator, operator: Operator
) -> None:
    for count in (5, 1, 40, 40, 0, 2):
        seen = await keda.status("iris")
        await keda.scale("iris", count, "a reason", seen)
        assert await operator.wants("iris") == count
        assert (await operator.ask("IsActive", "iris")).result is (count > 0)
        now = await keda.status("iris")
        assert (now.desired, now.running) == (count, 3), "asked for, and what is there"


async def test_nothing_is_made_for_a_version(keda: KedaOrchestrator, operator: Operator) -> None:
    with pytest.raises(Invalid, match="makes no deployments"):
        await keda.create("iris@3", 1, "a rollout begins")
    await keda.remove("iris", "nobody calls it")
    assert await operator.wants("iris") == 0
    await keda.remove("iris@3", "it was never there")


async def test_a_start_moves_nothing(keda: KedaOrchestrator, operator: Operator) -> None:
    """Unknown is an error, by which the HPA keeps the count; then what is there is kept."""
    assert await code_of(operator.ask("GetMetrics", "iris")) is grpc.StatusCode.UNAVAILABLE
    assert await code_of(operator.ask("IsActive", "iris")) is grpc.StatusCode.UNAVAILABLE
    [spec] = (await operator.ask("GetMetricSpec", "iris")).metricSpecs
    assert (spec.metricName, spec.targetSize) == ("headrace-workers-iris", 1)
    await keda.status("iris")
    assert await operator.wants("iris") == 3


async def test_the_cluster_away(
    keda: KedaOrchestrator, operator: Operator, cluster: Cluster
) -> None:
    await keda.scale("iris", 4, "before")
    cluster.away = True
    with pytest.raises(Unavailable):
        await keda.status("iris")
    with pytest.raises(Unavailable):
        await keda.scale("iris", 9, "blind")
    assert await operator.wants("iris") == 4, "the last figure stands"


async def test_refusals(keda: KedaOrchestrator, operator: Operator) -> None:
    with pytest.raises(NotFound):
        await keda.status("gone")
    with pytest.raises(NotFound):
        await keda.scale("gone", 1, "a reason")
    for count in (-1, 2**31):
        with pytest.raises(Invalid):
            await keda.scale("iris", count, "a reason")
    assert await code_of(operator.ask("GetMetrics", "iris")) is grpc.StatusCode.UNAVAILABLE


async def test_a_note_is_the_clusters(keda: KedaOrchestrator, cluster: Cluster) -> None:
    await keda.note("iris", "a word")
    assert cluster.notes == [("iris", "a word")]


async def test_two_do_not_share_an_address(keda: KedaOrchestrator, cluster: Cluster) -> None:
    second = KedaOrchestrator(f"keda://127.0.0.1:{keda.port}", cluster=cluster)
    with pytest.raises(OSError, match="is it taken"):
        await second.open()
    await second.close()


@pytest.mark.parametrize("url", ["keda://", "keda://0.0.0.0", "keda://:9090", "keda://a@b:9090"])
def test_a_url_without_an_address(url: str) -> None:
    with pytest.raises(ValueError, match="expected keda://host:port"):
        KedaOrchestrator(url, cluster=Cluster())


def test_the_cluster_around_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the URL says so; the options are those of `kubernetes://`."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ValueError, match="KUBERNETES_SERVICE_HOST"):
        KedaOrchestrator("keda://127.0.0.1:9090/models?prefix=a-")
    with pytest.raises(ValueError, match="unknown option"):
        KedaOrchestrator("keda://127.0.0.1:9090/models?perfix=a-")


# -- the stream ------------------------------------------------------------------------------------


async def test_the_stream_tells_at_once_and_at_each_turn(
    keda: KedaOrchestrator, operator: Operator
) -> None:
    stream = operator.stream("iris")
    first = asyncio.ensure_future(stream.read())
    await stream.wait_for_connection()
    await keda.scale("ocr", 1, "another's")
    assert not first.done(), "silent while nothing is known"
    await keda.scale("iris", 2, "up")
    assert (await asyncio.wait_for(first, PATIENT_S)).result is True
    await keda.scale("iris", 7, "no turn")
    await keda.scale("iris", 0, "to zero")
    assert (await asyncio.wait_for(stream.read(), PATIENT_S)).result is False
    later = operator.stream("iris")
    assert (await asyncio.wait_for(later.read(), PATIENT_S)).result is False
    for each in (stream, later):
        each.cancel()


async def test_streams_do_not_hold_up_the_end(cluster: Cluster) -> None:
    adapter = KedaOrchestrator(HERE, cluster=cluster)
    await adapter.open()
    await adapter.scale("iris", 1, "up")
    operator = Operator(adapter.port)
    stream = operator.stream("iris")
    assert (await asyncio.wait_for(stream.read(), PATIENT_S)).result is True
    await asyncio.wait_for(adapter.close(), PATIENT_S)
    assert await code_of(stream.read()) is not grpc.StatusCode.OK
    await operator.close()


# -- figures that nobody stands by -----------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


def test_a_figure_lasts_while_somebody_stands_by_it() -> None:
    clock = Clock()
    figures = Figures(clock=clock)
    assert figures.desired("iris") is None
    figures.put("iris", 0)
    clock.now += FRESH_S
    assert figures.desired("iris") == 0
    figures.stand_by("iris")
    figures.stand_by("ocr")
    clock.now += FRESH_S
    assert (figures.desired("iris"), figures.desired("ocr")) == (0, None)
    clock.now += 1
    assert figures.desired("iris") is None
    figures.stand_by("iris")
    assert figures.desired("iris") == 0


async def test_a_stale_figure_is_an_error_and_no_zero() -> None:
    clock = Clock()
    figures = Figures(clock=clock)
    figures.put("iris", 6)
    scaler = Scaler(figures)
    operator = Operator(await scaler.open(f"127.0.0.1:{free_port()}"))
    assert await operator.wants("iris") == 6
    clock.now += FRESH_S + 1
    assert await code_of(operator.ask("GetMetrics", "iris")) is grpc.StatusCode.UNAVAILABLE
    assert await code_of(operator.ask("IsActive", "iris")) is grpc.StatusCode.UNAVAILABLE
    await operator.close()
    await scaler.close()


# -- the wire --------------------------------------------------------------------------------------


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field, read without any description of the message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                return value

    while at < len(data):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
        elif kind == 1:
            yield number, struct.unpack_from("<d", data, at)[0]
            at += 8
        else:
            size = varint()
            yield number, data[at : at + size]
            at += size


async def test_by_the_numbers(keda: KedaOrchestrator) -> None:
    """Bytes as KEDA writes and reads them: ScaledObjectRef {name 1, namespace 2, scalerMetadata 3},
    GetMetricsRequest {scaledObjectRef 1, metricName 2}, MetricValue {name 1, int64 2, double 3}."""
    await keda.scale("iris", 5, "a reason")
    ref = b"\n\x01a\x12\x01b\x1a\x0d\n\x05model\x12\x04iris"
    asked = b"\n" + bytes([len(ref)]) + ref + b"\x12\x05x-iri"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{keda.port}") as channel:

        async def raw(name: str, message: bytes) -> dict[int, Any]:
            return dict(fields(await channel.unary_unary(f"/{SERVICE}/{name}")(message)))

        assert await raw("IsActive", ref) == {1: 1}
        value = dict(fields((await raw("GetMetrics", asked))[1]))
        assert value == {1: b"x-iri", 2: 5, 3: 5.0}
        spec = dict(fields((await raw("GetMetricSpec", ref))[1]))
        assert spec == {1: b"headrace-workers-iris", 2: 1, 3: 1.0}
        named = dict(fields((await raw("GetMetricSpec", b"\n\x04iris"))[1]))
        assert named[1] == b"headrace-workers-iris", "without metadata the object's name"
        assert await code_of(raw("GetMetrics", b"")) is grpc.StatusCode.INVALID_ARGUMENT
        assert await code_of(raw("StreamMetricSpec", ref)) is grpc.StatusCode.UNIMPLEMENTED
