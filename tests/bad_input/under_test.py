"""The house of these tests, once it is up."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from wire import HouseUnderTest

HERE = Path(__file__).parent


def ready(process: subprocess.Popen[bytes], port: int, output: Path) -> HouseUnderTest:
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
