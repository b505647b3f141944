"""One house for all bad input: whatever was sent before, it answers the next good call."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from bad_limits import MAX_BODY, MAX_MANY
from under_test import HERE, ready
from wire import HouseUnderTest

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
            yield ready(process, port, folder / "house.log")
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def house(running: HouseUnderTest) -> Iterator[HouseUnderTest]:
    """The house, which must be well afterwards."""
    yield running
    assert running.is_well()
