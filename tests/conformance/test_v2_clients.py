"""Open Inference Protocol V2: the real tritonclient against a real house, over HTTP and gRPC.

The client runs here, the house in processes of its own.
"""

from __future__ import annotations

import asyncio
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from headrace.house import free_port
from headrace.testing.house import TestHouse

grpc = pytest.importorskip("grpc")
http_client = pytest.importorskip("tritonclient.http")
grpc_client = pytest.importorskip("tritonclient.grpc")
from tritonclient.grpc import service_pb2  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

MODELS = '''
import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from headrace import Batching, Image, ItemError, Model, Tensor


class Sum(Model):
    """Adds up an array."""

    version = "3"
    batching = Batching(max_size=8)

    def predict(self, rows: list[Annotated[np.ndarray, Tensor("float32", (-1,))]]) -> list[float]:
        return [float(row.sum()) for row in rows]


@dataclass
class Row:
    text: str
    scores: list[float]
    matrix: Annotated[np.ndarray, Tensor("int32", (2, 2))]
    factor: float = 2.0
    wait_ms: int = 0


@dataclass
class Scored:
    text: str
    scores: list[float]
    matrix: Annotated[np.ndarray, Tensor("int32", (2, 2))]
    best: float | None
    many: bool


class Score(Model):
    batching = Batching(max_size=8)

    def predict(self, rows: list[Row]) -> list[Scored]:
        time.sleep(max(row.wait_ms for row in rows) / 1000)
        return [self.one(row) for row in rows]

    def one(self, row: Row) -> Scored:
        if row.text == "bad":
            return ItemError("text-bad", "this text is bad")
        return Scored(
            row.text.upper(), [s * row.factor for s in row.scores], row.matrix * 2,
            max(row.scores, default=None), len(row.scores) > 2,
        )


@dataclass
class Size:
    width: int
    height: int
    sides: list[int]


class Photo(Model):
    def predict(self, images: list[Image]) -> list[Size]:
        return [Size(i.width, i.height, list(i.array().shape)) for i in images]


class Half(Model):
    def predict(self, rows: list[Annotated[np.ndarray, Tensor("float16", (2,))]]) -> list[
        Annotated[np.ndarray, Tensor("float16", (2,))]
    ]:
        return [row / 2 for row in rows]
'''
TOML = """
[gateway]
max_many = 16
max_body_bytes = 1000000
drain_s = 5.0
[models.sum]
class = "models:Sum"
[models.score]
class = "models:Score"
[models.photo]
class = "models:Photo"
[models.half]
class = "models:Half"
"""


class Served(TestHouse):
    """A house with both doors."""

    def __init__(self, folder: Any) -> None:
        self.grpc_port = free_port()
        listen = {"HEADRACE_GATEWAY__GRPC": f"127.0.0.1:{self.grpc_port}"}
        super().__init__(MODELS, TOML, folder, environment=listen)

    def http(self, **more: Any) -> Any:
        return http_client.InferenceServerClient(f"127.0.0.1:{self.port}", **more)

    def grpc(self) -> Any:
        return grpc_client.InferenceServerClient(f"127.0.0.1:{self.grpc_port}")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("house"))
    with asyncio.Runner() as runner:
        runner.run(served.start())
        yield served
        runner.run(served.__aexit__(None, None, None))  # stopped by SIGTERM, nothing left behind


class Door:
    """One client library's way in: the same calls over HTTP and over gRPC."""

    def __init__(self, client: Any, library: Any) -> None:
        self.client, self.library = client, library

    def input(self, name: str, array: np.ndarray, datatype: str = "", **more: Any) -> Any:
        names = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "int32": "INT32",
                 "int64": "INT64", "uint8": "UINT8", "object": "BYTES", "bool": "BOOL"}  # fmt: skip
        given = self.library.InferInput(name, array.shape, datatype or names[array.dtype.name])
        given.set_data_from_numpy(array, **more)
        return given

    def infer(self, model: str, *inputs: Any, **more: Any) -> Any:
        return self.client.infer(model, list(inputs), **more)


@pytest.fixture(params=["http", "grpc"])
def door(request: pytest.FixtureRequest, house: Served) -> Iterator[Door]:
    library = {"http": http_client, "grpc": grpc_client}[request.param]
    client = getattr(house, request.param)()
    yield Door(client, library)
    client.close()


def words(*given: str | bytes) -> np.ndarray:
    return np.array(given, dtype=np.object_)


def score_inputs(door: Door, n: int = 1, text: str = "a", **more: Any) -> list[Any]:
    return [
        door.input("text", words(*[f"{text}" if n == 1 else f"{text}{i}" for i in range(n)])),
        door.input("scores", np.arange(2.0 * n).reshape(n, 2)),
        door.input("matrix", np.arange(4 * n, dtype=np.int32).reshape(n, 2, 2)),
    ]


def png(width: int = 5, height: int = 3) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 8, 7)).save(buffer, "PNG")
    return buffer.getvalue()


# -- health and metadata -------------------------------------------------------------------------


def test_health(door: Door) -> None:
    assert door.client.is_server_live()
    assert door.client.is_server_ready()
    assert door.client.is_model_ready("sum")
    assert door.client.is_model_ready("sum", "3")
    assert not door.client.is_model_ready("sum", "4")
    assert not door.client.is_model_ready("nothing")


def test_metadata(house: Served) -> None:
    client, other = house.http(), house.grpc()
    assert client.get_server_metadata() == other.get_server_metadata(as_json=True)
    assert client.get_server_metadata()["name"] == "headrace"
    over_http = client.get_model_metadata("score")
    assert over_http == {
        "name": "score",
        "versions": ["1"],
        "platform": "headrace",
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [-1]},
            {"name": "scores", "datatype": "FP64", "shape": [-1, -1]},
            {"name": "matrix", "datatype": "INT32", "shape": [-1, 2, 2]},
            {"name": "factor", "datatype": "FP64", "shape": [-1]},
            {"name": "wait_ms", "datatype": "INT64", "shape": [-1]},
        ],
        "outputs": [
            {"name": "text", "datatype": "BYTES", "shape": [-1]},
            {"name": "scores", "datatype": "FP64", "shape": [-1, -1]},
            {"name": "matrix", "datatype": "INT32", "shape": [-1, 2, 2]},
            {"name": "best", "datatype": "BYTES", "shape": [-1]},
            {"name": "many", "datatype": "BOOL", "shape": [-1]},
        ],
    }
    over_grpc = other.get_model_metadata("score", as_json=True)
    for side in ("inputs", "outputs"):  # protobuf's JSON has int64 as text
        assert [t | {"shape": [int(n) for n in t["shape"]]} for t in over_grpc[side]] == (
            over_http[side]
        )
    client.close()
    other.close()


# -- infer ---------------------------------------------------------------------------------------


def test_one_array(door: Door) -> None:
    answer = door.infer("sum", door.input("input", np.ones((1, 4), np.float32)), request_id="me")
    assert answer.as_numpy("output").tolist() == [4.0]
    described = answer.get_response()
    described = described if isinstance(described, dict) else {
        "id": described.id, "model_name": described.model_name,
        "model_version": described.model_version,
    }  # fmt: skip
    assert described["id"] == "me"
    assert (described["model_name"], described["model_version"]) == ("sum", "3")


def test_a_batch_comes_back_in_order(door: Door) -> None:
    array = np.arange(16 * 3, dtype=np.float32).reshape(16, 3)
    answer = door.infer("sum", door.input("input", array), model_version="3")
    assert answer.as_numpy("output").tolist() == array.sum(1).tolist()


def test_all_kinds_of_fields(door: Door) -> None:
    answer = door.infer("score", *score_inputs(door, 5))
    assert answer.as_numpy("text").tolist() == [f"A{i}".encode() for i in range(5)]
    assert np.array_equal(answer.as_numpy("scores"), 2 * np.arange(10.0).reshape(5, 2))
    matrix = answer.as_numpy("matrix")
    assert matrix.dtype == np.int32
    assert np.array_equal(matrix, 2 * np.arange(20).reshape(5, 2, 2))
    assert [json.loads(each) for each in answer.as_numpy("best")] == [1, 3, 5, 7, 9]
    assert answer.as_numpy("many").tolist() == [False] * 5


def test_wanted_outputs_and_other_datatypes(door: Door) -> None:
    inputs = score_inputs(door)
    inputs[1] = door.input("scores", np.array([[1, 2, 3]], np.float32))
    inputs.append(door.input("factor", np.array([3], np.float32)))
    outputs = [door.library.InferRequestedOutput(name) for name in ("scores", "many")]
    answer = door.infer("score", *inputs, outputs=outputs)
    assert answer.as_numpy("scores").tolist() == [[3.0, 6.0, 9.0]]
    assert answer.as_numpy("many").tolist() == [True]
    assert answer.as_numpy("text") is None


def test_image_bytes(door: Door) -> None:
    answer = door.infer("photo", door.input("input", words(png(), png(7, 2))))
    assert answer.as_numpy("width").tolist() == [5, 7]
    assert answer.as_numpy("sides").tolist() == [[3, 5, 3], [2, 7, 3]]


def test_half_precision(door: Door) -> None:
    answer = door.infer("half", door.input("input", np.array([[1, 3]], np.float16)))
    assert answer.as_numpy("output").tolist() == [[0.5, 1.5]]
    assert answer.as_numpy("output").dtype == np.float16


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_json_and_binary_over_http(house: Served, binary_in: bool, binary_out: bool) -> None:
    client = house.http()
    door = Door(client, http_client)
    inputs = [
        door.input("text", words("grün", "b"), binary_data=binary_in),
        door.input("scores", np.arange(4.0).reshape(2, 2), binary_data=binary_in),
        door.input("matrix", np.arange(8, dtype=np.int32).reshape(2, 2, 2), binary_data=True),
    ]
    outputs = [
        http_client.InferRequestedOutput(name, binary_data=binary_out)
        for name in ("text", "scores")
    ]
    answer = door.infer("score", *inputs, outputs=outputs)
    got = [t.decode() if isinstance(t, bytes) else t for t in answer.as_numpy("text").tolist()]
    assert got == ["GRÜN", "B"]
    assert answer.as_numpy("scores").tolist() == [[0, 2], [4, 6]]
    client.close()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(house: Served, algorithm: str) -> None:
    client = house.http()
    door = Door(client, http_client)
    answer = door.infer(
        "sum",
        door.input("input", np.ones((1, 400), np.float32)),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert answer.as_numpy("output").tolist() == [400.0]
    client.close()


def test_compressed_messages(house: Served) -> None:
    client = house.grpc()
    door = Door(client, grpc_client)
    given = door.input("input", np.ones((1, 400), np.float32))
    answer = door.infer("sum", given, compression_algorithm="gzip")
    assert answer.as_numpy("output").tolist() == [400.0]
    client.close()


def test_json_by_hand(house: Served) -> None:
    """What a client without a library sends, flat or nested; and what it gets."""
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]]):
        answer = httpx.post(
            f"{house.url}/v2/models/sum/versions/3/infer",
            json={
                "id": "x",
                "inputs": [{"name": "input", "shape": [2, 2], "datatype": "FP32", "data": data}],
            },
        )
        assert answer.status_code == 200
        assert answer.json() == {
            "model_name": "sum",
            "model_version": "3",
            "id": "x",
            "outputs": [{"name": "output", "datatype": "FP64", "shape": [2], "data": [3.0, 7.0]}],
        }
        assert answer.headers["server-timing"].startswith("read;dur=")
        assert answer.headers["x-request-id"]


# -- over raw gRPC: what tritonclient does not send ----------------------------------------------

Infer = Callable[..., Any]


@pytest.fixture
def method(house: Served) -> Iterator[Callable[[str], Infer]]:
    with grpc.insecure_channel(f"127.0.0.1:{house.grpc_port}") as channel:
        yield lambda name: channel.unary_unary(
            f"/inference.GRPCInferenceService/{name}",
            request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
        )


def request_of(model: str, *inputs: dict[str, Any], **more: Any) -> Any:
    return service_pb2.ModelInferRequest(
        model_name=model,
        inputs=[
            service_pb2.ModelInferRequest.InferInputTensor(
                **{k: v for k, v in given.items() if k != "contents"},
                **({"contents": service_pb2.InferTensorContents(**given["contents"])}
                   if "contents" in given else {}),
            )
            for given in inputs
        ],
        **more,
    )  # fmt: skip


def test_typed_contents(method: Callable[[str], Infer]) -> None:
    request = request_of(
        "score",
        {"name": "text", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"a"]}},
        {"name": "scores", "datatype": "FP32", "shape": [1, 2],
         "contents": {"fp32_contents": [1, 2]}},
        {"name": "matrix", "datatype": "INT32", "shape": [1, 2, 2],
         "contents": {"int_contents": [1, 2, 3, 4]}},
        {"name": "wait_ms", "datatype": "UINT8", "shape": [1], "contents": {"uint_contents": [1]}},
        {"name": "factor", "datatype": "FP64", "shape": [1, 1],
         "contents": {"fp64_contents": [0.5]}},
        id="7",
    )  # fmt: skip
    answer, call = method("ModelInfer").with_call(request)
    answer = service_pb2.ModelInferResponse.FromString(answer)
    assert answer.id == "7"
    assert [each.name for each in answer.outputs] == ["text", "scores", "matrix", "best", "many"]
    assert answer.raw_output_contents[0] == b"\1\0\0\0A"
    assert np.frombuffer(answer.raw_output_contents[1], "<f8").tolist() == [0.5, 1.0]
    trailing = dict(call.trailing_metadata())
    assert trailing["server-timing"].startswith("read;dur=")
    assert trailing["x-request-id"]


SUM = {"name": "input", "datatype": "FP32", "shape": [1, 2]}
ONE_TWO = np.array([1, 2], "<f4").tobytes()


@pytest.mark.parametrize(
    ("name", "request_", "status", "code"),
    [
        ("ModelInfer", b"\xff\xff\xffgarbage", "INVALID_ARGUMENT", "malformed-message"),
        ("ModelInfer", b"\0" * 1_000_001, "RESOURCE_EXHAUSTED", None),
        ("ModelInfer", request_of("nothing"), "NOT_FOUND", "model-not-found"),
        ("ModelInfer", request_of("sum", model_version="9"), "NOT_FOUND", "model-not-found"),
        ("ModelInfer", request_of("sum"), "INVALID_ARGUMENT", "tensor-invalid"),
        ("ModelInfer", request_of("sum", SUM), "INVALID_ARGUMENT", "tensor-invalid"),
        ("ModelInfer", request_of("sum", SUM, raw_input_contents=[ONE_TWO, ONE_TWO]),
         "INVALID_ARGUMENT", "tensor-invalid"),
        ("ModelInfer", request_of("sum", SUM, raw_input_contents=[ONE_TWO[:-1]]),
         "INVALID_ARGUMENT", "tensor-invalid"),
        ("ModelInfer", request_of("sum", SUM | {"contents": {"fp32_contents": [1, 2]}},
                                  raw_input_contents=[ONE_TWO]),
         "INVALID_ARGUMENT", "tensor-invalid"),
        ("ModelInfer", request_of("sum", SUM | {"contents": {"fp64_contents": [1, 2]}}),
         "INVALID_ARGUMENT", "tensor-invalid"),
        ("ModelInfer", request_of("sum", SUM | {"contents": {"fp32_contents": [1, float("nan")]}}),
         "INVALID_ARGUMENT", "tensor-invalid"),
        ("ModelInfer", request_of("sum", SUM | {"shape": [1, -2]}),
         "INVALID_ARGUMENT", "tensor-invalid"),
        ("ModelInfer", request_of("sum", SUM | {"shape": [2**62, 2**62]}),
         "INVALID_ARGUMENT", "tensor-invalid"),
        ("ModelInfer", request_of("sum", SUM | {"shape": [0, 2]}),
         "INVALID_ARGUMENT", "batch-invalid"),
        ("ModelInfer", request_of("sum", SUM | {"shape": [17, 2]}),
         "INVALID_ARGUMENT", "batch-invalid"),
        ("ModelInfer", request_of("half", SUM | {"datatype": "FP16",
                                                 "contents": {"fp32_contents": [1, 2]}}),
         "INVALID_ARGUMENT", "tensor-invalid"),
        ("ModelMetadata", service_pb2.ModelMetadataRequest(name="nothing"), "NOT_FOUND",
         "model-not-found"),
        ("ModelConfig", b"", "UNIMPLEMENTED", None),
        ("ModelStatistics", b"", "UNIMPLEMENTED", None),
        ("RepositoryIndex", b"", "UNIMPLEMENTED", None),
        ("ModelStreamInfer", b"", "UNIMPLEMENTED", None),
        ("SystemSharedMemoryStatus", b"", "UNIMPLEMENTED", None),
        ("NoSuchMethod", b"", "UNIMPLEMENTED", None),
    ],
)  # fmt: skip
def test_grpc_refusals(
    method: Callable[[str], Infer], name: str, request_: Any, status: str, code: str | None
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        method(name)(request_, timeout=10)
    assert refused.value.code().name == status
    assert dict(refused.value.trailing_metadata()).get("headrace-code") == code
    method("ServerLive")(b"")  # the connection and the server are as before


def test_metadata_over_the_limit(method: Callable[[str], Infer]) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        method("ServerLive")(b"", metadata=(("x", "y" * 9000),))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    method("ServerLive")(b"")


def test_a_compression_bomb(house: Served, method: Callable[[str], Infer]) -> None:
    [gateway] = house.pids("gateway")
    asyncio.run(house.get("/jobs"))  # what is loaded some seconds after the start is loaded now
    before = pss_mb(gateway)
    with pytest.raises(grpc.RpcError) as refused:
        method("ModelInfer")(b"\0" * 200_000_000, compression=grpc.Compression.Gzip, timeout=30)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert pss_mb(gateway) < before + 10


def test_a_call_without_a_message(house: Served) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{house.grpc_port}") as channel:
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            call(iter(()), timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(refused.value.trailing_metadata())["headrace-code"] == "empty-body"


def test_the_messages_have_the_field_numbers_that_clients_use() -> None:
    from headrace.gateway import v2_pb2

    def numbers(message: Any) -> dict[str, Any]:
        fields = {
            f.name: (f.number, f.type, f.message_type and f.message_type.name)
            for f in message.fields
        }
        return fields | {nested.name: numbers(nested) for nested in message.nested_types}

    ours = v2_pb2.DESCRIPTOR.message_types_by_name
    theirs = service_pb2.DESCRIPTOR.message_types_by_name
    for name, message in ours.items():
        if not name.startswith("Rpc"):
            assert numbers(message) == numbers(theirs[name]), name


# -- refusals through the client libraries -------------------------------------------------------


def refused_by(door: Door, model: str, *inputs: Any, **more: Any) -> tuple[str, str]:
    """Status and message."""
    with pytest.raises(InferenceServerException) as refused:
        door.infer(model, *inputs, **more)
    return str(refused.value.status()), refused.value.message()


def is_(status: str, over_http: str, over_grpc: str) -> bool:
    return status in (over_http, f"StatusCode.{over_grpc}")


def test_unknown_model_and_version(door: Door) -> None:
    given = door.input("input", np.ones((1, 4), np.float32))
    status, message = refused_by(door, "nothing", given)
    assert is_(status, "404", "NOT_FOUND")
    assert message == "no model of this name"
    status, message = refused_by(door, "sum", given, model_version="9")
    assert is_(status, "404", "NOT_FOUND")
    with pytest.raises(InferenceServerException):
        door.client.get_model_metadata("nothing")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.ones((1, 2, 3), np.float32), "expected shape [-1,-1]"),
        (np.ones((1, 2), np.float64), "expected datatype FP32"),
        (np.array([[1, np.nan]], np.float32), "NaN"),
        (np.array([[1, np.inf]], np.float32), "NaN or infinite"),
    ],
)
def test_tensors_that_do_not_fit(door: Door, array: np.ndarray, said: str) -> None:
    status, message = refused_by(door, "sum", door.input("input", array))
    assert is_(status, "422", "INVALID_ARGUMENT")
    assert said in message
    assert message.startswith("tensor input: ")


def test_more_than_the_most(door: Door) -> None:
    given = door.input("input", np.ones((17, 1), np.float32))
    status, message = refused_by(door, "sum", given)
    assert is_(status, "413", "INVALID_ARGUMENT")
    assert message == "more than 16 inputs in one call"


def test_one_refused_item_refuses_the_batch(door: Door) -> None:
    inputs = score_inputs(door, 3)
    inputs[0] = door.input("text", words("good", "bad", "good"))
    status, message = refused_by(door, "score", *inputs)
    assert is_(status, "422", "INVALID_ARGUMENT")
    assert message == "item 1: this text is bad"


def test_bad_images(door: Door) -> None:
    status, _ = refused_by(door, "photo", door.input("input", words(b"GIF89a")))
    assert is_(status, "415", "INVALID_ARGUMENT")
    status, _ = refused_by(door, "photo", door.input("input", words(png()[:-30])))
    assert is_(status, "422", "INVALID_ARGUMENT")


def test_the_timeout_parameter_is_a_deadline(door: Door) -> None:
    inputs = [*score_inputs(door), door.input("wait_ms", np.array([700]))]
    began = time.monotonic()
    status, _ = refused_by(door, "score", *inputs, timeout=200_000)
    assert is_(status, "504", "DEADLINE_EXCEEDED")
    assert time.monotonic() - began < 0.6


def test_a_client_that_does_not_wait(house: Served) -> None:
    """The client gives up; the gateway forgets the job."""
    client = house.grpc()
    door = Door(client, grpc_client)
    inputs = [*score_inputs(door), door.input("wait_ms", np.array([900]))]
    status, _ = refused_by(door, "score", *inputs, client_timeout=0.2)
    assert status == "StatusCode.DEADLINE_EXCEEDED"
    ends = time.monotonic() + 3
    while outstanding(house) and time.monotonic() < ends:
        time.sleep(0.01)
    assert outstanding(house) == 0
    client.close()


def outstanding(house: Served) -> int:
    models = httpx.get(f"{house.url}/status").json()["models"]
    return sum(model["outstanding"] for model in models)


def test_an_http_client_that_leaves(house: Served) -> None:
    body = json.dumps({"inputs": [
        {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]},
        {"name": "scores", "shape": [1, 1], "datatype": "FP64", "data": [1]},
        {"name": "matrix", "shape": [1, 2, 2], "datatype": "INT32", "data": [1, 2, 3, 4]},
        {"name": "wait_ms", "shape": [1], "datatype": "INT64", "data": [900]},
    ]}).encode()  # fmt: skip
    head = b"POST /v2/models/score/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", house.port)) as client:
        client.sendall(head % len(body) + body)
        ends = time.monotonic() + 3
        while not outstanding(house) and time.monotonic() < ends:
            time.sleep(0.005)
        assert outstanding(house) == 1
    left = time.monotonic()
    while outstanding(house) and time.monotonic() < ends:
        time.sleep(0.005)
    assert outstanding(house) == 0
    assert time.monotonic() - left < 0.6


def test_a_cancelled_call(house: Served) -> None:
    client = house.grpc()
    door = Door(client, grpc_client)
    inputs = [*score_inputs(door), door.input("wait_ms", np.array([700]))]
    told: list[Any] = []
    call = client.async_infer("score", inputs, lambda result, error: told.append((result, error)))
    ends = time.monotonic() + 3
    while not outstanding(house) and time.monotonic() < ends:
        time.sleep(0.005)
    call.cancel()
    while outstanding(house) and time.monotonic() < ends:
        time.sleep(0.005)
    assert outstanding(house) == 0
    while not told:
        time.sleep(0.005)
    [(result, error)] = told
    assert result is None
    assert error.status() == "StatusCode.CANCELLED"
    client.close()


@pytest.mark.parametrize(
    ("verb", "path", "status", "code"),
    [
        ("GET", "/v2/models/sum/infer", 405, "method-not-allowed"),
        ("POST", "/v2/models/sum", 405, "method-not-allowed"),
        ("POST", "/v2", 405, "method-not-allowed"),
        ("DELETE", "/v2/models/sum/ready", 405, "method-not-allowed"),
        ("GET", "/v2/", 404, "not-found"),
        ("GET", "/v2/models", 404, "not-found"),
        ("GET", "/v2/models/sum/config", 404, "not-found"),
        ("GET", "/v2/models/sum/versions/9", 404, "model-not-found"),
        ("GET", "/v2/models/nothing/ready", 404, "model-not-found"),
        ("POST", "/v2/repository/index", 404, "not-found"),
    ],
)
def test_paths_and_methods(house: Served, verb: str, path: str, status: int, code: str) -> None:
    answer = httpx.request(verb, house.url + path, content=b"" if verb == "POST" else None)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error"] == answer.json()["detail"]
    assert bool(answer.headers.get("allow")) == (status == 405)


def test_media_types(house: Served) -> None:
    url = f"{house.url}/v2/models/sum/infer"
    body = b'{"inputs":[{"name":"input","shape":[1,1],"datatype":"FP32","data":[1]}]}'
    for media_type, status in [
        ("application/json; charset=utf-8", 200),
        ("application/octet-stream", 200),
        ("application/x-python-pickle", 415),
    ]:
        answer = httpx.post(url, content=body, headers={"content-type": media_type})
        assert answer.status_code == status


def test_too_large_a_body(house: Served) -> None:
    answer = httpx.post(f"{house.url}/v2/models/sum/infer", content=b" " * 1_000_001)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload-too-large")
    assert "larger than 1000000 bytes" in answer.json()["error"]


def pss_mb(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup") as lines:  # noqa: PTH123
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def test_the_gateway_with_grpc_stays_below_its_memory(house: Served) -> None:
    """80 MB is the promise for a gateway; after all of the above."""
    [gateway] = house.pids("gateway")
    assert pss_mb(gateway) < 80
