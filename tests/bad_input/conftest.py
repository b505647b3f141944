"""One house for all bad input: whatever was sent before, it answers the next good call."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_limits import MAX_BODY, MAX_MANY
from wire import HouseUnderTest

HERE = Path(__file__).parent
MODELS = {
    "person": "Persons", "numbers": "Numbers", "matrix": "Matrix", "photo": "Photo",
    "pair": "Pair", "free": "Free", "pet": "Pet",
}  # fmt: skip


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HouseUnderTest]:
    folder = tmp_path_factory.mktemp("house")
    shutil.copy(HERE / "bad_models.py", folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "headrace.toml"
    settings.write_text(
        f'[house]\nname = "bad-input"\n[gateway]\nlisten = "127.0.0.1:{port}"\n'
        f"max_body_bytes = {MAX_BODY}\nmax_many = {MAX_MANY}\ndrain_s = 2.0\n"
        + "".join(
            f'[models.{name}]\nclass = "bad_models:{kind}"\n' for name, kind in MODELS.items()
        )
    )
    with (folder / "house.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "run_house.py"), str(settings)],
            stdout=output, stderr=output,
        )  # fmt: skip
        try:
            yield _ready(process, port, folder / "house.log")
        finally:
            process.terminate()
            process.wait(60)


def _ready(process: subprocess.Popen[bytes], port: int, output: Path) -> HouseUnderTest:
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        try:
            house = HouseUnderTest(port, _gateway_pid(process.pid))
            if house.request("GET", "/health/ready").status == 200:
                return house
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(output.read_text(errors="replace")[-4000:])


def _gateway_pid(parent: int) -> int:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"\0gateway\0" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    return 0


@pytest.fixture
def house(running: HouseUnderTest) -> Iterator[HouseUnderTest]:
    """The house, which must be well afterwards."""
    yield running
    assert running.is_well()
