"""The loop in some minutes: trained, served, the world changes, trained again, in production.

pip install -e ".[onnx,pipelines,autoscale,monitoring]" -r examples/quickstart/requirements-train.in
python examples/quickstart/loop.py

A laboratory sends wines, and soon what they were. Then it gets an instrument that tells proline
and flavanoids in other units, and tells nobody.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import httpx
from lab import LATELY
from pipeline import CULTIVARS, FEATURES
from sklearn.datasets import load_wine

from headrace import Client

HERE = Path(__file__).resolve().parent
SETTINGS = HERE / "loop.toml"
LISTEN = os.environ.get("HEADRACE_GATEWAY__LISTEN", "127.0.0.1:8101")
MODEL = "wine-lab"
PER_SECOND = 40
CALM_S = 15.0
NEW_UNITS = {"proline": 0.00869, "flavanoids": 0.4}
MOST_S = 240.0


class Laboratory:
    """Measures wines whose cultivar is known."""

    def __init__(self) -> None:
        wines = load_wine()
        self._wines = [
            (dict(zip(FEATURES, row, strict=True)), CULTIVARS[kind])
            for row, kind in zip(wines.data.tolist(), wines.target.tolist(), strict=True)
        ]
        self._random = random.Random(1)
        self.new_instrument = False
        LATELY.parent.mkdir(exist_ok=True)
        LATELY.write_text("")

    def wine(self) -> tuple[dict[str, float], str]:
        measured, cultivar = self._random.choice(self._wines)
        if self.new_instrument:
            told = {name: measured[name] * factor for name, factor in NEW_UNITS.items()}
            measured = measured | told
        with LATELY.open("a") as file:
            file.write(json.dumps(measured | {"cultivar": cultivar}) + "\n")
        return measured, cultivar


class Calls:
    """Wines sent at a steady pace, and the labels after them."""

    def __init__(self, laboratory: Laboratory, url: str) -> None:
        self._laboratory, self._at = laboratory, time.monotonic()
        self._client = Client(url)
        self.right: deque[bool] = deque(maxlen=2 * PER_SECOND)
        self.versions: deque[str] = deque(maxlen=PER_SECOND)

    def a_second(self) -> None:
        labels = {}
        for _ in range(PER_SECOND):
            wine, cultivar = self._laboratory.wine()
            answer = self._client.predict(MODEL, wine)
            labels[answer.request_id] = cultivar
            self.right.append(answer.result["cultivar"] == cultivar)
            self.versions.append(answer.version)
            self._at = max(self._at + 1 / PER_SECOND, time.monotonic() - 1)
            time.sleep(max(0.0, self._at - time.monotonic()))
        self._client.feedback(MODEL, labels)

    def told(self) -> str:
        shares = {v: self.versions.count(v) / len(self.versions) for v in sorted({*self.versions})}
        served = ", ".join(f"version {v} {share:.0%}" for v, share in shares.items())
        return f"{sum(self.right) / len(self.right):4.0%} right   {served}"


def headrace(*arguments: str) -> str:
    command = [sys.executable, "-m", "headrace", *arguments, "-f", str(SETTINGS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"headrace {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return done.stdout


def say(began: float, text: str) -> None:
    print(f"{time.monotonic() - began:5.0f} s  {text}", flush=True)


def story(began: float, url: str, laboratory: Laboratory) -> None:
    calls = Calls(laboratory, url)
    for _ in range(5):
        calls.a_second()
    say(began, "trained by hand, from what the laboratory measured so far")
    run: dict[str, Any] = json.loads(headrace("train", "lab:Lately", "--json"))
    say(began, f"{MODEL} {run['version']} is registered, accuracy {run['metrics']['accuracy']:.3f}")
    headrace("promote", MODEL, run["version"], "--reason", "the first")
    calm_until = time.monotonic() + CALM_S
    while time.monotonic() < calm_until:
        calls.a_second()
        say(began, calls.told())
    laboratory.new_instrument = True
    say(began, "the laboratory has a new instrument; from here on nobody does anything")
    fell = False
    while time.monotonic() - began < MOST_S:
        calls.a_second()
        say(began, calls.told())
        share = sum(calls.right) / len(calls.right)
        fell = fell or share < 0.9
        if fell and share > 0.95 and len({*calls.versions}) == 1:
            break
    else:
        sys.exit(f"not within {MOST_S:.0f} s")
    print(headrace("retrain", "show"))


def main() -> None:
    began = time.monotonic()
    shutil.rmtree(HERE / ".headrace" / "loop", ignore_errors=True)
    laboratory = Laboratory()
    for _ in range(160):
        laboratory.wine()
    log = (HERE / ".headrace" / "loop.log").open("w")
    command = [sys.executable, "-m", "headrace", "up", "-f", str(SETTINGS)]
    house = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://{LISTEN}"
    try:
        while True:
            try:
                httpx.get(f"{url}/health/ready").raise_for_status()
                break
            except httpx.HTTPError:
                if house.poll() is not None:
                    sys.exit(f"the house did not start: {log.name}")
                time.sleep(0.1)
        say(began, f"a house at {url}, its log in {log.name}")
        story(began, url, laboratory)
    finally:
        house.send_signal(signal.SIGINT)
        house.wait(60)
        log.close()


if __name__ == "__main__":
    main()
