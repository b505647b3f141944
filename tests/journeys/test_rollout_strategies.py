"""Worker by worker, and in the shadow: a real house whose versions come both ways under load. There
are never fewer workers than before, and nobody is told what a shadow says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from versions import BATCH_S, MODELS, Scene, Told, calls, write

from headrace.deployments import bucket, pick, place_of
from headrace.house import free_port
from headrace.store.deploying import OrderKind
from headrace.testing.house import Crowd, TestHouse, patience
from headrace.testing.load import post, quantile

grpc = pytest.importorskip("grpc")
from headrace.gateway import v2_pb2 as pb  # noqa: E402

WORKERS = 3
SHOWN = 33.0  # what one worker carries
TOML = f"""
    [models.tiny]
    class = "models:Tiny"
    files = "ours"
    workers = {WORKERS}

    [models.tiny.deploy]
    strategy = "rolling"
    shadow = {SHOWN}
    hold_s = 1
    wait_s = 10
    ready_s = 30
    keep_s = 1

    [models.tiny.deploy.gates]
    least_calls = 20
"""
PER_SECOND = 100.0
#: 5 says what 2 said; the others say what no caller is ever told.
MARKS = {"ours": 0, "1": 1, "2": 2, "5": 2}
KEYS = [f"caller-{number}" for number in range(12)]


@contextlib.asynccontextmanager
async def workers_seen(house: TestHouse) -> AsyncIterator[list[int]]:
    """How many were ready, again and again, of all versions together."""
    seen: list[int] = []

    async def look() -> None:
        while True:
            workers = (await house.status())["tiny"]["workers"]
            seen.append(sum(worker["ready"] for worker in workers))
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    yield seen
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking


async def order(on: Scene, kind: OrderKind, **more: Any) -> None:
    """Of a person; deploy has seen to it."""
    asked = await on.deploying.order(
        "tiny", kind, author="ops", reason="to see", at=time.time(), **more
    )
    end = time.monotonic() + 15 * patience()
    while (found := await on.deploying.find_order(asked.id)) is None or not found.outcome:
        assert time.monotonic() < end, on.house.tail()
        await asyncio.sleep(0.05)
    assert found.outcome == "yes", found.outcome


def ran(house: TestHouse, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *arguments, "-f", str(house.path)],
        cwd=house.folder, env=house.environment | {"COLUMNS": "200"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- worker by worker ------------------------------------------------------------------------------


async def rolling(on: Scene, grpc_port: int) -> None:
    number = await on.register()
    async with workers_seen(on.house) as seen:
        await on.promote(number)
        await on.at_step(number)
        await order(on, "pause")
        await each_door(on, grpc_port)
        await order(on, "resume")
        rollout, _ = await on.ended(number, 90)
        assert (rollout.state, rollout.strategy) == ("done", "rolling"), rollout.why
        await on.serves(number)
        await alone(on, number)
    steps = [e.text for e in await on.deploying.events(rollout.id) if e.kind == "step"]
    assert steps == ["33.33 % of the calls", "66.66 % of the calls"]
    print(f"rolling: {min(seen)} to {max(seen)} workers were ready")
    assert min(seen) >= WORKERS
    assert max(seen) <= WORKERS + 2, "one more of the new one, before one less of the old one"


async def alone(on: Scene, number: int) -> None:
    """Until the workers of other versions have gone."""
    end = time.monotonic() + 30 * patience()
    while True:
        workers = (await on.house.status())["tiny"]["workers"]
        if {worker["version"] for worker in workers} == {number}:
            return
        assert time.monotonic() < end, on.house.tail()
        await asyncio.sleep(0.1)


async def each_door(on: Scene, grpc_port: int) -> None:
    """A third of the callers have the new version, the same ones at every door and with their
    stored jobs; one without a key is run by the version of its id."""
    route = await on.deploying.route("tiny")
    assert route is not None
    of_key = {key: str(pick(route.shares, bucket("tiny", key.encode()))) for key in KEYS}
    assert set(of_key.values()) == {"1", "2"}
    port = on.house.port
    for key, version in of_key.items():
        answer = await on.house.call("tiny", 5, headrace_route_key=key)
        assert answer.json["version"] == version
        assert await over_http(port, "", headrace_route_key=key) == version
    for version in ("1", "2"):
        assert await over_http(port, version, headrace_route_key=KEYS[0]) == version
    assert await asyncio.to_thread(over_grpc, grpc_port, of_key) == of_key
    desk = Desk(port)
    keys = {await desk.submit("tiny", 5, headrace_route_key=key): key for key in KEYS}
    by_chance = {await desk.submit("tiny", value) for value in range(8)}
    for job, view in (await desk.all_ended(60 * patience())).items():
        version = str(pick(route.shares, place_of(job)))
        assert job in by_chance or version == of_key[keys[job]]
        assert (view["state"], view["version"]) == ("succeeded", version)


async def over_http(port: int, version: str, **headers: str) -> str:
    """Who answered, as said and as the answer itself shows."""
    path = f"/v2/models/tiny{version and '/versions/'}{version}/infer"
    tensor = {"name": "input", "datatype": "INT64", "shape": [1], "data": [5]}
    answer = await post(port, path, {"inputs": [tensor]}, **headers)
    assert answer.status == 200, answer
    [output] = answer.json["outputs"]
    said: str = answer.json["model_version"]
    assert json.loads(output["data"][0])["of"] == [5, MARKS[said]]
    return said


def over_grpc(port: int, keys: dict[str, str]) -> dict[str, str]:
    """Who answered each key; and each version answers who asks for it."""
    given = pb.ModelInferRequest.InferInputTensor(name="input", datatype="INT64", shape=[1])
    given.contents.int64_contents.append(5)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )

        def version(key: str, asked: str = "") -> str:
            request = pb.ModelInferRequest(model_name="tiny", model_version=asked, inputs=[given])
            answer = infer(request, metadata=(("headrace-route-key", key),), timeout=30)
            return str(answer.model_version)

        assert [version(KEYS[0], asked) for asked in ("1", "2")] == ["1", "2"]
        return {key: version(key) for key in keys}


# -- in the shadow ---------------------------------------------------------------------------------


async def in_the_shadow(on: Scene) -> None:
    told = on.told
    async with Crowd() as before_it:
        calm = time.monotonic()
        await asyncio.sleep(2)
    ends = await on.register(ends="predicting")
    await order(on, "start", version=ends, strategy="shadow")
    rollout, took_s = await on.ended(ends, 60)
    print(f"a shadow that ends: back after {took_s:.1f} s, {rollout.why}")
    assert rollout.state == "rolled-back", rollout.why

    slow = await on.register(s=5 * BATCH_S, mark=99)
    async with Crowd() as beside:
        await order(on, "start", version=slow, strategy="shadow")
        await shown(on, slow)
        began = time.monotonic()
        rollout, took_s = await on.ended(slow, 60)
    before, during = (
        quantile([took_s for _, _, took_s in told.between(since, to)], 0.8)
        for since, to in ((calm, calm + 2), (began, time.monotonic()))
    )
    print(f"a slow shadow: back after {took_s:.1f} s, {rollout.why}; "
          f"p80 {before * 1000:.0f} ms before, {during * 1000:.0f} ms meanwhile")  # fmt: skip
    assert rollout.state == "rolled-back" and rollout.why.startswith("latency"), rollout.why
    assert rollout.figures["answers"]["new"] == 0.0, "all of its answers are others"
    crowd = beside.patience() / before_it.patience()
    # A third of the calls are shown: who waited for it would have it in the 80th percentile.
    assert during < before * max(1.0, crowd) + 2.5 * BATCH_S


async def shown(on: Scene, number: int, calls: int = 1) -> None:
    """Until the answers to so many calls were compared."""
    end = time.monotonic() + 40 * patience()
    while True:
        rollout = await on.deploying.open_rollout("tiny")
        assert rollout is not None and rollout.to_version == number, on.house.tail()
        if rollout.figures.get("answers", {}).get("new_calls", 0) >= calls:
            return
        assert time.monotonic() < end, f"{rollout}\n{on.house.tail()}"
        await asyncio.sleep(0.1)


async def out_of_the_shadow(on: Scene) -> None:
    good = await on.register(mark=2)
    await order(on, "start", version=good, strategy="shadow")
    await shown(on, good, 50)
    table = await asyncio.to_thread(ran, on.house, "rollout", "show", "tiny")
    assert f"is shown {SHOWN:.4g} %" in table and "100.0% of its" in table, table
    by = Counter(version for _, version, _ in on.told.answers)
    assert set(by) == {"ours", "1", "2"}, "nobody was told anything by a shadow"
    answer = await post(on.house.port, f"/v2/models/tiny/versions/{good}/infer", {})
    assert (answer.status, answer.code) == (404, "model-not-found"), "nor where he asks for it"
    await order(on, "promote")
    rollout, _ = await on.ended(good, 60)
    assert rollout.state == "done", rollout.why
    await on.serves(good)
    await on.names(good)
    assert on.told.first(str(good))


@pytest.mark.timeout(300)
async def test_worker_by_worker_and_in_the_shadow(tmp_path: Path) -> None:
    write(tmp_path / "ours", {"mark": 0, "s": BATCH_S})
    grpc_port = free_port()
    listen = {"HEADRACE_GATEWAY__GRPC": f"127.0.0.1:{grpc_port}"}
    async with TestHouse(MODELS, TOML, tmp_path, environment=listen) as house:
        told: Told
        async with calls(house, MARKS, PER_SECOND) as told:
            on = Scene(house, told)
            await on.promote(await on.register())
            await on.serves(1)
            await alone(on, 1)
            await rolling(on, grpc_port)
            await in_the_shadow(on)
            await out_of_the_shadow(on)
        told.all_right()
        await on.close()
