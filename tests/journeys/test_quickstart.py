"""The quickstart as its README tells it: each command there is run, and prints what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"
README = (QUICKSTART / "README.md").read_text()
DOCUMENTED = "http://127.0.0.1:8100"

BAROLO = json.loads((QUICKSTART / "barolo.json").read_text())
#: None of them was trained on.
WINES = {
    "Barolo": [14.39, 1.87, 2.45, 14.6, 96, 2.5, 2.52, 0.3, 1.98, 5.25, 1.02, 3.58, 1290],
    "Grignolino": [12.37, 1.07, 2.1, 18.5, 88, 3.52, 3.75, 0.24, 1.95, 4.5, 1.04, 2.77, 660],
    "Barbera": [13.45, 3.7, 2.6, 23, 111, 1.7, 0.92, 0.43, 1.46, 10.68, 0.85, 1.56, 695],
}


class Example(NamedTuple):
    """A command of the README and what it printed there."""

    command: str
    output: str


def examples() -> list[Example]:
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = each.splitlines()
            last = next(n for n in range(1, len(lines) + 1) if whole(lines[:n]))
            found.append(Example("\n".join(lines[:last]), "\n".join(lines[last:])))
    return found


def whole(lines: list[str]) -> bool:
    """Is this a command, or only its first lines?"""
    if lines[-1].endswith("\\"):
        return False
    try:
        shlex.split("\n".join(lines))
    except ValueError:  # a quotation is open
        return False
    return True


def starting(word: str) -> list[Example]:
    return [each for each in examples() if each.command.startswith(word)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the house listens: started with the README's command, on a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    [up] = starting("headrace up")
    told = tmp_path_factory.mktemp("house") / "told"
    with told.open("w") as output:
        house = subprocess.Popen(
            [sys.executable, "-m", *shlex.split(up.command)],
            cwd=ROOT,
            env=os.environ | {"HEADRACE_GATEWAY__LISTEN": listen},
            stdout=output,
            stderr=output,
        )
    try:
        wait_ready(f"http://{listen}", told)
        yield f"http://{listen}"
    finally:
        house.send_signal(signal.SIGINT)
        house.wait(40)


def wait_ready(url: str, told: Path) -> None:
    end = time.monotonic() + 30
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < end:
            try:
                if client.get(f"{url}/health/ready").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    pytest.fail(told.read_text())


def run(command: str, url: str) -> str:
    """What a command prints, on both outputs."""
    beside = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-c", command.replace(DOCUMENTED, url)],
        cwd=ROOT,
        env=os.environ | {"HEADRACE_URL": url, "PATH": f"{beside}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        timeout=60,
    )
    return done.stdout


def without_chance(text: str) -> str:
    """What a command printed, without times, bars and request ids."""
    text = re.sub(r" +[\d.]+ ms *[▏▎▍▌▋▊▉█]*", " # ms", text)
    text = re.sub(r"request id \S+", "request id #", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def without_chance_json(value: Any) -> Any:
    if isinstance(value, list):
        return [without_chance_json(each) for each in value]
    if isinstance(value, float):
        return pytest.approx(value, abs=0.001)
    if not isinstance(value, dict):
        return value
    drop = ("request_id", "instance", "timings")
    return {k: without_chance_json(v) for k, v in value.items() if k not in drop}


def test_the_readme_has_its_five_commands() -> None:
    words = {each.command.split()[0] for each in examples()}
    assert words == {"pip", "headrace", "curl", "python"}
    assert len(starting("curl")) == 2 and len(starting("headrace call")) == 2


@pytest.mark.parametrize("example", starting("curl"), ids=lambda e: e.command.split()[2][-12:])
def test_curl_prints_what_the_readme_says(url: str, example: Example) -> None:
    printed, documented = json.loads(run(example.command, url)), json.loads(example.output)
    assert printed.keys() == documented.keys()
    assert without_chance_json(printed) == without_chance_json(documented)


@pytest.mark.parametrize("example", starting("headrace call"), ids=["right", "wrong"])
def test_headrace_call_prints_what_the_readme_says(url: str, example: Example) -> None:
    assert without_chance(run(example.command, url)) == without_chance(example.output)


def test_the_python_snippet_prints_what_its_comment_says(url: str) -> None:
    [snippet] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    [comment] = re.findall(r"# (.+)$", snippet, re.MULTILINE)
    code = snippet.replace(DOCUMENTED, url)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False, text=True
    )
    assert (done.stdout.strip(), done.stderr) == (comment, "")


def post(url: str, wine: Any, path: str = "predict") -> httpx.Response:
    return httpx.post(f"{url}/models/wine-cultivar/{path}", json=wine, trust_env=False)


@pytest.mark.parametrize("cultivar", WINES)
def test_wines_that_training_did_not_see_are_told_apart(url: str, cultivar: str) -> None:
    result = post(url, dict(zip(BAROLO, WINES[cultivar], strict=True))).json()["result"]
    assert result["cultivar"] == cultivar
    assert result["probability"] == max(result["probabilities"].values()) > 0.9
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=0.001)


def test_many_wines_are_told_apart_in_one_call(url: str) -> None:
    wines = [dict(zip(BAROLO, values, strict=True)) for values in WINES.values()]
    answer = post(url, wines * 30, "predict-many").json()
    assert [each["result"]["cultivar"] for each in answer["results"]] == list(WINES) * 30


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"alcohol": 99}, "/alcohol"),
        ({"proline": -1}, "/proline"),
        ({"hue": "red"}, "/hue"),
        ({"ash": None}, "/ash"),
    ],
)
def test_a_bad_field_is_pointed_at(url: str, change: dict[str, Any], pointer: str) -> None:
    answer = post(url, BAROLO | change)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize("wine", [{"alcohol": 13}, BAROLO | {"colour": 3}])
def test_a_missing_or_unknown_field_is_refused(url: str, wine: dict[str, Any]) -> None:
    assert post(url, wine).status_code == 422


def test_training_again_gives_the_same_model(tmp_path: Path) -> None:
    pytest.importorskip(
        "skl2onnx", reason="pip install -r examples/quickstart/requirements-train.in"
    )
    datasets = pytest.importorskip("sklearn.datasets")
    [train] = starting("python examples/quickstart/train.py")
    command = [sys.executable, *shlex.split(train.command)[1:], "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == train.output.strip()

    rows = datasets.load_wine().data.astype("float32")
    for ours, again in zip(predictions(QUICKSTART, rows), predictions(tmp_path, rows), strict=True):
        assert again == pytest.approx(ours, abs=1e-4)
    facts = json.loads((tmp_path / "model.json").read_text())
    assert facts["cultivars"] == json.loads((QUICKSTART / "model.json").read_text())["cultivars"]
    assert facts["features"] == list(BAROLO)


def predictions(folder: Path, rows: Any) -> list[list[float]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {"X": rows})[1].tolist())
