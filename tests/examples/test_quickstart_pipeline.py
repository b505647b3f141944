"""The quickstart's pipeline, run as its docstring says: registered, and judged against itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
SETTINGS = str(QUICKSTART / "headrace.toml")
TRAIN = """
import sys, typer
from headrace.cli.train import train
app = typer.Typer()
app.command()(train)
app(sys.argv[1:])
"""


@pytest.mark.timeout(120)
def test_it_trains_and_its_gates_hold(tmp_path: Path):
    def train(*params: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, "pipeline:Wines", "-f", SETTINGS, "--json", *params],
            env=os.environ | {"HEADRACE_HOUSE__STATE": str(tmp_path)},
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        run: dict[str, Any] = json.loads(done.stdout)
        return run

    good = train("-p", "seed=1")
    assert (good["state"], good["version"]) == ("succeeded", "1"), good
    assert good["metrics"]["accuracy"] > 0.9 and len(good["verdicts"]) == 7
    assert (tmp_path / "registry" / "wine-cultivar" / "1").is_dir()
    bad = train("-p", "c=0.00001")
    assert bad["state"] == "refused" and "version" not in bad
    assert not next(v["passed"] for v in bad["verdicts"] if v["gate"] == "accuracy at least 0.9")
