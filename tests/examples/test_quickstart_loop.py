"""The quickstart's loop, run as its docstring says, in a folder and on a port of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.house import free_port

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"


@pytest.mark.timeout(400)
def test_the_loop_closes_while_one_watches(tmp_path: Path):
    folder = tmp_path / "quickstart"
    shutil.copytree(QUICKSTART, folder, ignore=shutil.ignore_patterns(".headrace", "__pycache__"))
    done = subprocess.run(
        [sys.executable, str(folder / "loop.py")],
        env=os.environ | {"HEADRACE_GATEWAY__LISTEN": f"127.0.0.1:{free_port()}", "COLUMNS": "200"},
        capture_output=True, text=True, timeout=360, check=False,
    )  # fmt: skip
    log = folder / ".headrace" / "loop.log"
    assert done.returncode == 0, done.stdout + done.stderr + log.read_text()[-4000:]
    calm, changed = done.stdout.split("the laboratory has a new instrument", 1)
    assert "wine-lab 1 is registered, accuracy 0.9" in calm or "accuracy 1.0" in calm, calm
    shares = [int(share) for share in re.findall(r"(\d+)% right", changed)]
    assert min(shares) < 90 and shares[-1] > 95, changed
    served = re.findall(r"right   (version .*)", changed)
    assert served[0].startswith("version 1") and re.fullmatch("version [2-9] 100%", served[-1])
    assert any("version 1" in each and "version 2" in each for each in served), "by steps"
    assert re.search(r"promoted +key-\w+ +alarm quality since", done.stdout), done.stdout
