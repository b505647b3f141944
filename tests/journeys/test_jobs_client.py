"""Stored jobs by both clients, in a real house: there and back, twice with one key, dead and alive
again, and while the gateway is killed under whoever waits."""

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image as Pillow

import headrace
from headrace.client import CallRefused, DeadlinePassed

MODELS = '''
import time
from pathlib import Path

import headrace
from headrace import Image, ItemError

RUNS = Path(__file__).parent / "runs"
MENDED = Path(__file__).parent / "mended"


class Double(headrace.Model):
    """Twice as much. Notes each run."""

    batching = headrace.Batching(max_size=4)

    def golden(self):
        return 1.0, 2.0

    def predict(self, items: list[float]) -> list[float | ItemError]:
        with RUNS.open("a") as runs:
            runs.writelines(f"{item}\\n" for item in items)
        if 13.0 in items and not MENDED.exists():
            raise ValueError("thirteen")
        return [ItemError("too-large", "not above 1000") if i > 1000 else i * 2 for i in items]


class Size(headrace.Model):
    def predict(self, images: list[Image]) -> list[list[int]]:
        return [list(image.array().shape) for image in images]


class Slow(headrace.Model):
    def predict(self, seconds: list[float]) -> list[float]:
        time.sleep(max(seconds))
        return seconds
'''

SETTINGS = """
[house]
name = "jobs-client-journey"
[gateway]
listen = "127.0.0.1:0"
[jobs]
max_attempts = 2
backoff_s = 0.05
inline_limit_bytes = 1000
[models.double]
class = "job_models:Double"
[models.size]
class = "job_models:Size"
[models.slow]
class = "job_models:Slow"
slots = 2
"""
WAIT_S = 60.0


@dataclass
class House:
    url: str
    pid: int
    folder: Path

    def runs(self, of: float) -> int:
        return (self.folder / "runs").read_text().splitlines().count(str(of))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "job_models.py").write_text(MODELS)
    (folder / "headrace.toml").write_text(SETTINGS)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace", "up", "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "log").read_text()
        found = House(json.loads(line)["url"], process.pid, folder)
        with headrace.Client(found.url, deadline_s=WAIT_S) as client:  # the database is opened
            client.submit("double", 0).result(WAIT_S)
        yield found
    finally:
        process.terminate()
        process.wait(WAIT_S)
        process.stdout.close()


@pytest.fixture
def client(house: House) -> Iterator[headrace.Client]:
    with headrace.Client(house.url, deadline_s=20) as client:
        yield client


def test_there_and_back(client: headrace.Client) -> None:
    job = client.submit("double", 21.0, result_type=float)
    assert job.result(WAIT_S) == 42.0 and job.state == "succeeded"
    again = client.job(job.id, result_type=float)
    assert again.ended and again.result() == 42.0
    assert again.view.attempt == 1 and again.view.version == "1"
    assert job.id in [found.id for found in client.jobs(state="succeeded", model="double")]


def test_there_and_back_by_asyncio(house: House) -> None:
    async def many() -> list[float]:
        async with headrace.AsyncClient(house.url, deadline_s=20) as client:
            jobs = await asyncio.gather(
                *(client.submit("double", float(n)) for n in range(100, 120))
            )
            results = [await job.result(WAIT_S) for job in jobs]
            found = [job.id async for job in client.jobs(model="double", page=7)]
            assert {job.id for job in jobs} <= set(found) and found == sorted(found, reverse=True)
            return results

    assert asyncio.run(many()) == [2.0 * n for n in range(100, 120)]


def test_bodies_that_do_not_fit_a_row(client: headrace.Client) -> None:
    out = io.BytesIO()
    Pillow.effect_noise((320, 200), 80).convert("RGB").save(out, "PNG")
    assert len(out.getvalue()) > 50_000
    assert client.submit("size", out.getvalue()).result(WAIT_S) == [200, 320, 3]


def test_one_key_is_one_job(client: headrace.Client, house: House) -> None:
    first = client.submit("double", 777.0, idempotency_key="one")
    second = client.submit("double", 777.0, idempotency_key="one")
    assert first.id == second.id and first.result(WAIT_S) == second.result(WAIT_S) == 1554.0
    third = client.submit("double", 777.0, idempotency_key="one")  # ended already
    assert third.id == first.id and third.ended
    assert house.runs(777.0) == 1
    with pytest.raises(CallRefused) as caught:
        client.submit("double", 778.0, idempotency_key="one")
    assert caught.value.code == "idempotency-key-reuse"


def test_a_predict_with_a_key_runs_once(client: headrace.Client, house: House) -> None:
    answers = [client.predict("double", 555.0, idempotency_key="p") for _ in range(3)]
    assert [answer.result for answer in answers] == [1110.0] * 3
    assert house.runs(555.0) == 1


def test_an_input_that_is_to_blame(client: headrace.Client) -> None:
    job = client.submit("double", 2000.0)
    with pytest.raises(CallRefused) as caught:
        job.result(WAIT_S)
    assert (caught.value.status, caught.value.code) == (422, "too-large")
    assert job.state == "failed" and job.view.problem is not None


def test_dead_replayed_and_discarded(client: headrace.Client, house: House) -> None:
    job = client.submit("double", 13.0)
    with pytest.raises(CallRefused) as caught:
        job.result(WAIT_S)
    assert caught.value.code == "model-failed" and job.state == "dead"
    assert [loss.attempt for loss in client.job(job.id).view.losses] == [1]
    assert job.id in [found.id for found in client.jobs(state="dead")]
    (house.folder / "mended").touch()
    assert client.replay(job.id).result(WAIT_S) == 26.0
    with pytest.raises(CallRefused) as caught:
        client.replay(job.id)
    assert caught.value.code == "job-not-dead"
    client.discard(job.id)
    end = time.monotonic() + WAIT_S
    while job.id in [found.id for found in client.jobs()]:
        assert time.monotonic() < end
        time.sleep(0.2)
    with pytest.raises(CallRefused) as caught:
        client.job(job.id)
    assert caught.value.code == "job-not-found"


def test_cancelled(client: headrace.Client) -> None:
    job = client.submit("slow", 3.0)
    with pytest.raises(DeadlinePassed, match=r"has not ended in 0\.2 s"):
        job.result(0.2)
    assert client.cancel(job.id).state == "cancelled"
    with pytest.raises(CallRefused) as caught:
        job.result(WAIT_S)
    assert (caught.value.status, caught.value.code) == (409, "job-cancelled")


def test_a_life_that_is_too_short(client: headrace.Client) -> None:
    running = [client.submit("slow", 2.0) for _ in range(4)]
    late = client.submit("slow", 0.0, ttl_s=0.3)
    with pytest.raises(CallRefused) as caught:
        late.result(WAIT_S)
    assert (late.state, caught.value.status) == ("expired", 504)
    for job in running:
        with contextlib.suppress(CallRefused):  # ended meanwhile
            client.cancel(job.id)


def test_whoever_waits_outlives_the_gateway(client: headrace.Client, house: House) -> None:
    job = client.submit("slow", 4.0)
    results: list[float] = []
    waiting = threading.Thread(target=lambda: results.append(job.result(WAIT_S)))
    waiting.start()
    time.sleep(0.5)
    os.kill(gateway_of(house.pid), signal.SIGKILL)
    waiting.join(WAIT_S)
    assert results == [4.0]


def gateway_of(pid: int) -> int:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"headrace.roles" in command and b"gateway" in command:
            return int(child)
    raise AssertionError("no gateway")
