"""A real house, called by both clients: every kind of input there and back."""

import asyncio
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image as Pillow

import headrace
from headrace.client import CallFailed, CallRefused, DeadlinePassed

MODELS = '''
import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np

import headrace
from headrace import Image, ItemError

Row = Annotated[np.ndarray, headrace.Tensor("float32", (-1,))]


@dataclass
class Pair:
    left: Image
    note: str
    right: Image | None = None
    maybe: str | None = None


@dataclass
class Seen:
    width: int
    second: bool
    note: str
    maybe: str | None


class Total(headrace.Model):
    """Adds up."""

    batching = headrace.Batching(max_size=8)

    def golden(self):
        return np.ones(3, "float32"), 3.0

    def predict(self, rows: list[Row]) -> list[float | ItemError]:
        return [float(row.sum()) if len(row) else ItemError("empty", "no numbers") for row in rows]


class Pairs(headrace.Model):
    def predict(self, pairs: list[Pair]) -> list[Seen]:
        return [Seen(p.left.array().shape[1], p.right is not None, p.note, p.maybe) for p in pairs]


class Width(headrace.Model):
    def predict(self, images: list[Image]) -> list[int]:
        return [image.array().shape[1] for image in images]


class Slow(headrace.Model):
    def predict(self, seconds: list[float]) -> list[float]:
        time.sleep(max(seconds))
        return seconds
'''

SETTINGS = """
[house]
name = "client-journey"
[gateway]
listen = "127.0.0.1:0"
[models.total]
class = "client_models:Total"
[models.pairs]
class = "client_models:Pairs"
[models.width]
class = "client_models:Width"
[models.slow]
class = "client_models:Slow"
"""


@dataclass
class Seen:
    width: int
    second: bool
    note: str
    maybe: str | None


class Pair(msgspec.Struct):
    left: headrace.Image
    note: str
    right: headrace.Image | None = None
    maybe: str | None = None


def picture(width: int) -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (width, 8), (1, 2, 3)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "client_models.py").write_text(MODELS)
    (folder / "headrace.toml").write_text(SETTINGS)
    with (folder / "log").open("wb") as log:
        house = subprocess.Popen(
            [sys.executable, "-m", "headrace", "up", "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert house.stdout is not None
    try:
        line = house.stdout.readline()
        assert line, (folder / "log").read_text()
        yield json.loads(line)["url"]
    finally:
        house.terminate()
        house.wait(60)
        house.stdout.close()


@pytest.fixture
def client(url: str) -> Iterator[headrace.Client]:
    with headrace.Client(url, deadline_s=20) as client:
        yield client


def test_arrays_and_lists(client: headrace.Client) -> None:
    for given in ([1, 2, 3.5], np.array([1, 2, 3.5], "float32"), (1, 2, 3.5)):
        assert client.predict("total", given, result_type=float).result == 6.5


def test_an_answer_says_where_the_time_went(client: headrace.Client) -> None:
    answer = client.predict("total", [1.0])
    assert answer.model == "total" and answer.version == "1" and answer.request_id
    assert abs(sum(answer.timings.stages().values()) - answer.timings.total_ms) < 0.01
    assert answer.timings.executed_ms > 0


def test_images(client: headrace.Client, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(12))
    for given in (picture(12), tmp_path / "a.png", headrace.Image(picture(12))):
        assert client.predict("width", given, result_type=int).result == 12
    assert client.predict_many("width", [picture(3), picture(4)]) == [3, 4]


@pytest.mark.parametrize("note", ["plain", "12", "null", '"quoted"', "ü"])
@pytest.mark.parametrize("maybe", [None, "12", ""])
def test_records_with_images(client: headrace.Client, note: str, maybe: str | None) -> None:
    image = headrace.Image(picture(9))
    one = client.predict("pairs", Pair(image, note, maybe=maybe), result_type=Seen)
    assert one.result == Seen(9, False, note, maybe)
    both = client.predict("pairs", {"left": picture(9), "right": image, "note": note})
    assert both.result == {"width": 9, "second": True, "note": note, "maybe": None}


def test_many(client: headrace.Client) -> None:
    one, wrong, empty = client.predict_many("total", [[1, 2], ["x"], []], result_type=float)
    assert one == 3.0
    assert isinstance(wrong, CallRefused) and wrong.errors[0].pointer == "/0"
    assert isinstance(empty, CallRefused) and empty.code == "empty"


def test_refusals(client: headrace.Client) -> None:
    with pytest.raises(CallRefused) as caught:
        client.predict("total", ["x"])
    assert (caught.value.status, caught.value.code) == (422, "tensor-invalid")
    assert caught.value.request_id
    with pytest.raises(CallRefused) as caught:
        client.model("nothing")
    assert caught.value.status == 404


def test_the_deadline_ends_the_call(client: headrace.Client) -> None:
    began = time.monotonic()
    with pytest.raises((CallRefused, DeadlinePassed)) as caught:
        client.predict("slow", 3.0, deadline_s=0.3)
    assert time.monotonic() - began < 2.0
    if isinstance(caught.value, CallRefused):
        assert caught.value.code in ("deadline-exceeded", "wait-exceeds-deadline", "overloaded")


def test_pages(client: headrace.Client) -> None:
    assert client.ready()
    assert {model.name for model in client.models()} == {"total", "pairs", "width", "slow"}
    assert client.model("total").description == "Adds up."
    status = client.status()
    assert status.ready
    assert all(model.workers[0].slots_ready == 1 for model in status.models)


async def test_the_async_client(url: str) -> None:
    async with headrace.AsyncClient(url, deadline_s=20) as client:
        calls = [client.predict("total", [n, 1], result_type=float) for n in range(50)]
        answers = await asyncio.gather(*calls)
        assert [answer.result for answer in answers] == [n + 1.0 for n in range(50)]
        assert (await client.predict_many("width", [picture(5)])) == [5]
        assert await client.ready()
        assert len(await client.models()) == 4
        assert (await client.model("width")).output == {"type": "integer"}
        assert (await client.status()).ready
        with pytest.raises(CallRefused):
            await client.predict("width", b"no image")


def test_where_nobody_is() -> None:
    with (
        headrace.Client("http://127.0.0.1:9", deadline_s=5) as client,
        pytest.raises(CallFailed, match=r"cannot connect to http://127\.0\.0\.1:9.*3 attempts"),
    ):
        client.ready()
