"""Every orchestrator adapter passes the exam: a house with real processes, the APIs of Nomad and
Kubernetes as their servers' rules say, and real ones where NOMAD_ADDR or KUBECONFIG name them."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.house import free_port
from headrace.orchestrator.port import Orchestrator
from headrace.schemes import ORCHESTRATORS, build
from headrace.testing import fake_kubernetes, fake_nomad
from headrace.testing.fake_kubernetes import FakeKubernetes
from headrace.testing.fake_nomad import FakeNomad
from headrace.testing.house import TestHouse
from headrace.testing.orchestrator_exam import QUESTIONS, Exam

MODELS = """
    import headrace

    class Square(headrace.Model):
        def predict(self, items: list[int]) -> list[int]:
            return [n * n for n in items]
"""
TOML = """
    [models.square]
    class = "models:Square"
"""
TIMEOUT_S = 30.0  # tests ask what is done, not how quickly on this machine


class World:
    """Of `testing.orchestrator_exam`."""

    def __init__(
        self,
        url: str,
        *,
        too_many: int,
        token_file: str = "",
        workload: str = "square",
        atomic: bool = True,
    ) -> None:
        self.url, self.workload, self.too_many, self.atomic = url, workload, too_many, atomic
        self._token_file = token_file

    def make(self) -> Orchestrator:
        made: Orchestrator = build(
            "orchestrator.url", ORCHESTRATORS, self.url,
            token_file=self._token_file, timeout_s=TIMEOUT_S,
        )  # fmt: skip
        return made


def local_url(house: TestHouse) -> str:
    [socket] = Path(tempfile.gettempdir()).glob(f"headrace-{house.name}-*/scale")
    return f"local://{socket}"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestHouse]:
    house = TestHouse(MODELS, TOML, tmp_path_factory.mktemp("house"))
    asyncio.run(house.__aenter__())
    yield house
    asyncio.run(house.__aexit__(None))


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    assert fake_nomad.TOKEN == fake_kubernetes.TOKEN
    (tmp_path / "token").write_text(f"{fake_nomad.TOKEN}\n")
    return str(tmp_path / "token")


# -- real ones -------------------------------------------------------------------------------------

REAL_NOMAD, REAL_KUBERNETES = os.environ.get("NOMAD_ADDR", ""), os.environ.get("KUBECONFIG", "")
REAL = ["nomad agent"] * bool(REAL_NOMAD) + ["kubernetes cluster"] * bool(REAL_KUBERNETES)


def nomad_job(name: str) -> dict[str, Any]:
    """Without a deployment at each change of a count (`MaxParallel` 0): it would hold up the next.
    Its one task sleeps, by a driver that an agent started with -dev has, and is started like a
    worker, so that versions can be made like it."""
    task = {
        "Name": "sleep",
        "Driver": "raw_exec",
        "Config": {
            "command": "/bin/sh",
            "args": ["-c", "exec sleep 3600", "worker", "--model", "square"],
        },
        "Resources": {"CPU": 20, "MemoryMB": 16},
    }
    group = {
        "Name": "square", "Count": 1, "Tasks": [task], "Scaling": {"Min": 0, "Max": 10},
        "Update": {"MaxParallel": 0},
    }  # fmt: skip
    return {"ID": name, "Name": name, "Datacenters": ["*"], "TaskGroups": [group]}


@pytest.fixture(scope="module")
def nomad_agent() -> Iterator[World]:
    """A job of this test's own, on the agent of NOMAD_ADDR."""
    name = f"headrace-exam-{secrets.token_hex(4)}"
    at = httpx.URL(REAL_NOMAD)
    headers = {"X-Nomad-Token": os.environ.get("NOMAD_TOKEN", "")}
    with httpx.Client(base_url=REAL_NOMAD, headers=headers) as client:
        client.post("/v1/jobs", json={"Job": nomad_job(name)}).raise_for_status()
        scheme = "nomads" if at.scheme == "https" else "nomad"
        yield World(f"{scheme}://{at.host}:{at.port or 4646}/{name}", too_many=11, atomic=False)
        for job in (f"{name}-square-3", name):
            client.delete(f"/v1/job/{job}", params={"purge": "true"}).raise_for_status()


@pytest.fixture(scope="module")
def kubernetes_cluster() -> Iterator[World]:
    """A deployment of this test's own, in the cluster of KUBECONFIG, through `kubectl proxy`."""
    name = f"headrace-exam-{secrets.token_hex(4)}"
    labels = {"app": name}
    pause = {"name": "pause", "image": "registry.k8s.io/pause:3.10", "args": ["--model", name]}
    deployment = {
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [pause]}},
        },
    }
    port = free_port()
    proxy = subprocess.Popen(["kubectl", "proxy", f"--port={port}"], stdout=subprocess.DEVNULL)
    at = f"http://127.0.0.1:{port}/apis/apps/v1/namespaces/default/deployments"
    with httpx.Client() as client:
        end = time.monotonic() + 20
        while True:
            try:
                client.post(at, json=deployment).raise_for_status()
                break
            except httpx.ConnectError:
                assert time.monotonic() < end and proxy.poll() is None
                time.sleep(0.05)
        url = f"kubernetes://127.0.0.1:{port}/default?tls=0"
        yield World(url, workload=name, too_many=2**31)
        client.delete(f"{at}/{name}").raise_for_status()
    proxy.terminate()
    proxy.wait()


# -- the exam --------------------------------------------------------------------------------------


@pytest.fixture
def world(request: pytest.FixtureRequest, token_file: str) -> Iterator[World]:
    if request.param == "local":
        yield World(local_url(request.getfixturevalue("house")), too_many=257)
    elif request.param == "nomad":
        with FakeNomad() as nomad:
            yield World(nomad.url(), token_file=token_file, too_many=11)
    elif request.param == "kubernetes":
        with FakeKubernetes() as cluster:
            yield World(cluster.url(), token_file=token_file, too_many=2**31)
    else:
        yield request.getfixturevalue(request.param.replace(" ", "_"))


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("world", ["local", "nomad", "kubernetes", *REAL], indirect=True)
async def test_exam(world: World, question: str) -> None:
    await getattr(Exam(world), question)()


def test_every_scheme_was_examined() -> None:
    here = {"local", "nomad", "kubernetes"}
    assert set(ORCHESTRATORS) == here | {"nomads", "keda"}  # test_orchestrator_faults, test_keda
