"""The Open Inference Protocol while several versions are served: by share and by key as `predict`,
by the version that is asked for, and never by another."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import msgspec
import pytest

from headrace.announce import Announcement
from headrace.deployments import WHOLE, Route, Share, bucket, pick
from headrace.errors import NotFound, Problem, Unavailable
from headrace.gateway import v2, v2_grpc
from headrace.gateway import v2_pb2 as pb
from headrace.gateway.app import App
from headrace.gateway.snapshot import Snapshot
from headrace.gateway.v2_infer import Infer, view_of
from headrace.jobs import Outcome, Returned
from headrace.settings import GatewaySettings
from headrace.signature import Card
from headrace.telemetry.metrics import GatewayMetrics

INTEGER = {"type": "integer"}
HALVES = (Share(3, WHOLE // 2), Share(4, WHOLE // 2))
INPUT = {"name": "input", "datatype": "INT64", "shape": [1], "data": [7]}


class Dispatch:
    """Each job is answered at once by the version that it is for, or by who is named."""

    def __init__(self) -> None:
        self.by_workload: dict[str, int] = {}
        self.started: list[str] = []
        self.by = ""

    def start(self, workload: str, request_id: str, body: bytes, **more: Any) -> int:
        self.started.append(workload)
        number, by = len(self.started), self.by or workload
        outcome = Outcome(number, time.time(), 0.0, 1.0, msgspec.msgpack.encode(14))
        returned = Returned(by, by.partition("@")[2] or "ours", "w", time.time(), [outcome])
        asyncio.get_running_loop().call_soon(more["on_outcome"], outcome, returned)
        return number

    def cancel(self, number: int) -> None:
        pass


class Request:
    query, id = b"", "r-1"

    def __init__(self, path: str, body: Any = None, **headers: str) -> None:
        self.method, self.path = b"GET" if body is None else b"POST", path.encode()
        self.body = b"" if body is None else json.dumps(body).encode()
        self.headers = {name.replace("_", "-").encode(): v.encode() for name, v in headers.items()}

    def answer(self, status: int, body: bytes, head: bytes) -> None:
        self.status, self.json = status, json.loads(body)


class Context:
    """Of a gRPC call; what is refused comes as the exception that `abort` would be told."""

    def __init__(self, **metadata: str) -> None:
        self._metadata = tuple((name.replace("_", "-"), value) for name, value in metadata.items())

    def invocation_metadata(self) -> Any:
        return self._metadata

    def time_remaining(self) -> float:
        return 9.0

    def set_trailing_metadata(self, _: Any) -> None:
        pass


def worker(version: int, ready: bool = True) -> Announcement:
    card = Card("wine", str(version or "ours"), "", INTEGER, INTEGER, 1)
    return Announcement(
        f"w{version}", "wine", ready, "" if ready else "loading", card, 1, int(ready), 0, 0, 0,
        True, 1.0, 1.0, 1, version=version,
    )  # fmt: skip


def route(*shares: Share, revision: int = 1, **more: Any) -> Route:
    return Route("wine", revision, shares, **more)


@pytest.fixture
def app() -> App:
    snapshot = Snapshot("here", ["wine"])
    for version in (3, 4):
        snapshot.hear(worker(version))
    snapshot.hear(route(*HALVES, watched=True))
    return App(GatewaySettings(), snapshot, Dispatch(), GatewayMetrics())  # type: ignore[arg-type]


async def over_http(app: App, version: str = "", **headers: str) -> tuple[str, str]:
    """The workload that was asked, and the version that is said to have answered."""
    path = f"/v2/models/wine{version and '/versions/'}{version}/infer"
    request = Request(path, {"inputs": [INPUT]}, **headers)
    v2.handle(app, request)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert request.status == 200, request.json
    return app.dispatch.started[-1], request.json["model_version"]  # type: ignore[attr-defined]


async def over_grpc(app: App, version: str = "", **metadata: str) -> tuple[str, str]:
    given = pb.ModelInferRequest.InferInputTensor(name="input", datatype="INT64", shape=[1])
    given.contents.int64_contents.append(7)
    asked = pb.ModelInferRequest(model_name="wine", model_version=version, inputs=[given])
    call = v2_grpc.Call(Context(**metadata), "r-1")
    answer = await v2_grpc.Service(app).model_infer(asked, call)
    return app.dispatch.started[-1], answer.model_version  # type: ignore[attr-defined]


@pytest.mark.parametrize("infer", [over_http, over_grpc])
async def test_calls_go_by_share_and_those_of_one_key_to_one_version(app: App, infer: Any) -> None:
    for number in range(20):
        key = f"caller-{number}"
        version = pick(HALVES, bucket("wine", key.encode()))
        for _ in range(2):
            asked, answered = await infer(app, headrace_route_key=key)
            assert (asked, answered) == (f"wine@{version}", str(version))
    by_chance = Counter([(await infer(app))[1] for _ in range(200)])
    assert set(by_chance) == {"3", "4"} and min(by_chance.values()) > 50
    told = {v.version: v.witness.evidence("g") for v in app.snapshot.watched() if v.witness}
    assert told[3].answered + told[4].answered == 240


@pytest.mark.parametrize("infer", [over_http, over_grpc])
async def test_who_asks_for_a_version_has_it_whatever_its_share(app: App, infer: Any) -> None:
    app.snapshot.hear(route(Share(3, WHOLE), Share(4, 0), revision=2, watched=True))
    for version in ("3", "4"):
        for key in ("ann", "bob", "eve"):
            assert await infer(app, version, headrace_route_key=key) == (f"wine@{version}", version)


async def test_no_other_version_answers_in_its_place(app: App) -> None:
    """It had no ready worker any more, and its calls were published to the one that stands by."""
    app.dispatch.by = "wine@3"  # type: ignore[attr-defined]
    assert await over_http(app, "3") == ("wine@3", "3")
    request = Request("/v2/models/wine/versions/4/infer", {"inputs": [INPUT]})
    v2.handle(app, request)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert (request.status, request.json["code"]) == (503, "model-not-ready")
    assert request.json["error"] == "version 4 did not answer"
    with pytest.raises(v2_grpc.Refused) as refused:
        await over_grpc(app, "4")
    assert refused.value.problem.status == 503
    asked, answered = await over_http(app)
    assert answered == "3", f"whoever asked {asked} for any version is told who answered"


async def test_a_version_without_a_worker_is_refused(app: App) -> None:
    app.snapshot.hear(worker(4, ready=False))
    app.snapshot.version("wine", 4)._ready_at = -1e9
    request = Request("/v2/models/wine/versions/4/infer", {"inputs": [INPUT]})
    v2.handle(app, request)  # type: ignore[arg-type]
    assert (request.status, request.json["code"]) == (503, "model-not-ready")
    with pytest.raises(Unavailable):
        await over_grpc(app, "4")
    assert app.dispatch.started == []  # type: ignore[attr-defined]


async def test_versions_that_answer_nobody_are_not_found(app: App) -> None:
    app.snapshot.hear(worker(0))
    app.snapshot.hear(route(Share(3, WHOLE), revision=2, shadow=4, shadow_share=WHOLE))
    for version in ("4", "5", "ours", "0", "03"):
        for verb in ("/infer", "/ready", ""):
            body = {"inputs": [INPUT]} if verb == "/infer" else None
            request = Request(f"/v2/models/wine/versions/{version}{verb}", body)
            v2.handle(app, request)  # type: ignore[arg-type]
            assert (request.status, request.json["code"]) == (404, "model-not-found")
        with pytest.raises(NotFound):
            await over_grpc(app, version)


async def test_what_is_told_of_versions(app: App) -> None:
    service, call = v2_grpc.Service(app), v2_grpc.Call(Context(), "r-1")
    for version in ("", "3", "4"):
        path = f"/v2/models/wine{version and '/versions/'}{version}"
        request = Request(path)
        v2.handle(app, request)  # type: ignore[arg-type]
        assert request.json["versions"] == ["4", "3"]
        asked = pb.ModelMetadataRequest(name="wine", version=version)
        assert [*(await service.model_metadata(asked, call)).versions] == ["4", "3"]
    app.snapshot.hear(worker(4, ready=False))
    for version, ready in (("", True), ("3", True), ("4", False), ("5", False)):
        asked = pb.ModelReadyRequest(name="wine", version=version)
        assert (await service.model_ready(asked, call)).ready == ready


async def test_our_own_files_are_asked_for_by_what_their_class_says(app: App) -> None:
    app.snapshot.hear(worker(0))
    app.snapshot.hear(route(Share(0, WHOLE), Share(4, 0), revision=2))
    assert await over_http(app, "ours") == ("wine", "ours")
    app.snapshot.hear(route(Share(0, WHOLE), Share(9, 0), revision=3))
    assert view_of(app, "wine", "9").version == 9, "its workers are not heard of yet: 503, not 404"


def test_a_problem_of_the_version_is_its_own(app: App) -> None:
    """Not the one for a version that did not answer."""
    told: list[Any] = []
    infer = Infer(app, app.snapshot.version("wine", 4), time.time(), told.append, "4")
    infer._results = [b""]
    problem = Problem(422, "too-odd", "odd")
    outcome = Outcome(1, time.time(), 0.0, 1.0, b"", problem)
    infer._finish(0, outcome, Returned("wine@4", "4", "w", time.time(), [outcome]))
    assert told == [problem]
