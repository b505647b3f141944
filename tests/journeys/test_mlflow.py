"""The registry is a real MLflow. Its webhook begins a rollout, and a rollout begins without it; it
lies, and is gone: no call fails (F19, F20)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from versions import BATCH_S, MODELS, TINY, Scene, calls, marks, write

from headrace.house import free_port
from headrace.testing.house import TestHouse, patience, until
from headrace.testing.services.mlflow import Mlflow

TOML = (
    TINY
    + """
    [models.tiny.deploy]
    steps = [50]
    hold_s = 1
    wait_s = 10
    ready_s = 25
    keep_s = 1

    [models.tiny.deploy.gates]
    least_calls = 20

    [registry]
    url = "{url}"
    webhook_secrets = "hooks.txt"

    [control]
    listen = "127.0.0.1:{port}"
"""
)
MARKS = marks(3)
#: What is promised after an alias was moved, whatever becomes of the webhook.
END_STATE_S = 30.0


async def moved(mlflow: Mlflow, number: int) -> float:
    """As somebody does it on MLflow's own page."""
    api = f"http://127.0.0.1:{mlflow.node.port}/api/2.0/mlflow/registered-models/alias"
    said = {"name": "tiny", "alias": "production", "version": str(number)}
    async with httpx.AsyncClient(timeout=30) as client:
        (await client.post(api, json=said)).raise_for_status()
    return time.monotonic()


def loaded(house: TestHouse) -> int:
    return len(house.logged("model process ready"))


async def goes_round(mlflow: Mlflow, house: TestHouse, place: str) -> dict[str, float]:
    took = {}
    async with calls(house, MARKS, 60) as told:
        on = Scene(house, told)
        first, second = await on.register(), await on.register()

        at = await moved(mlflow, first)
        await until(lambda: len(house.logged("a webhook of the registry")) > 1, 30, "by webhook")
        await on.serves(first)
        took["by webhook"] = told.first("1") - at

        lost = await on.desk.registry.hook(place, "a secret of somebody else")
        assert "401" in lost, lost
        at = await moved(mlflow, second)
        await on.serves(second)
        took["webhook lost"] = told.first("2") - at

        await asyncio.to_thread(mlflow.kill)
        await until(
            lambda: house.logged("the registry is down: nothing moves") != [],
            30,
            "its absence is seen",
        )
        at, before = time.monotonic(), loaded(house)
        for pid in house.pids("worker"):
            await house.kill(pid)
        await until(lambda: loaded(house) >= before + 2, 30, "two others serve what is kept")
        took["new workers without it"] = time.monotonic() - at
        await asyncio.to_thread(mlflow.start)
        await until(lambda: house.logged("the registry is back") != [], 30, "it is back")

        third = await on.register()
        [weights] = [
            path
            for path in (mlflow.node.data / "mlflow/artifacts").rglob("*.safetensors")
            if (await on.desk.registry.get("tiny", third)).digest[7:] in path.parts
        ]
        weights.write_bytes(weights.read_bytes()[:-2])
        await moved(mlflow, third)
        rollout, took["one that lies, back"] = await on.ended(third, 60)
        assert rollout.state == "rolled-back" and "not what was registered" in rollout.why, rollout
        await on.names(second)
        await on.serves(second)
        await on.close()
    told.all_right()
    assert {version for _, version, _ in told.answers} == {"ours", "1", "2"}
    return took


@pytest.mark.timeout(300)
async def test_a_rollout_begins_with_mlflow_and_outlives_it(tmp_path: Path) -> None:
    write(tmp_path / "ours", {"mark": 0, "s": BATCH_S})
    (tmp_path / "hooks.txt").write_text("of the registry, 24 bytes\n")
    port = free_port()
    mlflow = Mlflow()
    try:
        await asyncio.to_thread(mlflow.start)
        async with TestHouse(MODELS, TOML.format(url=mlflow.url, port=port), tmp_path) as house:
            hooked = [sys.executable, "-m", "headrace", "registry", "hook", "-f", str(house.path)]
            said = await asyncio.to_thread(
                subprocess.run, hooked, capture_output=True, text=True, check=False
            )
            place = f"http://127.0.0.1:{port}/hooks/registry"
            assert said.returncode == 0 and place in said.stdout, said.stderr
            took = await goes_round(mlflow, house, place)
    finally:
        await asyncio.to_thread(mlflow.close)
    print({what: f"{seconds:.1f} s" for what, seconds in took.items()})
    for what in ("by webhook", "webhook lost"):
        assert took[what] < END_STATE_S * patience(), took
