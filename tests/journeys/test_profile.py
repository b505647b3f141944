"""`headrace profile` on a model that sleeps: the machine is free meanwhile, so two carry twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.autoscale.profile import Profile, read

MODELS = '''
import time

import headrace


class Nap(headrace.Model):
    """Sleeps for 40 ms."""

    def golden(self):
        return 3, 3

    def predict(self, items: list[int]) -> list[int]:
        time.sleep(0.04)
        return items
'''
PLAN = """
profiles = ["nap.json"]
[demand]
calls_a_day = 10_000_000
slo_s = 1.0
"""
WAIT_S = 100.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "naps.py").write_text(MODELS)
    (tmp_path / "headrace.toml").write_text('[models.nap]\nclass = "naps:Nap"\nmax_size = 1\n')
    (tmp_path / "tmp").mkdir()
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder / "tmp")},
    )


def left(folder: Path, pid: int) -> list[Path]:
    memory = Path("/dev/shm").glob(f"headrace-profile-{pid}-*")
    return [*(folder / "tmp").glob("headrace-*"), *memory]


def carried(found: Profile, k: int) -> float:
    [one] = [one for one in found.tries if one.workers == k]
    return one.per_second


def test_two_that_sleep_carry_twice_as_much(folder: Path) -> None:
    """40 ms: 25 calls a second each, less what a busy machine takes."""
    run = start(folder, "profile", "nap", "--k", "1,2", "--slo-s", "1", "--seconds", "8",
                "--starts", "1", "--price-per-hour", "0.1", "-o", "nap.json")  # fmt: skip
    out, err = run.communicate(timeout=WAIT_S)
    assert run.returncode == 0, err
    found = read(folder / "nap.json")
    assert 10 < carried(found, 1) < 26
    assert 1.5 < carried(found, 2) / carried(found, 1) < 2.7
    assert found.use and found.use.workers == 2 and "use k = 2: " in out
    one = found.tries[0]
    # Never above what the rate leaves, and short windows carry some by chance: see `carried` above.
    assert 1 / 26 < one.service_s < 0.1 and 0.04 <= one.p95_s < 0.5
    assert one.memory_mb > 20 and 0.2 < one.start_s[0] < 30
    assert left(folder, run.pid) == []

    (folder / "plan.toml").write_text(PLAN)
    plan = start(folder, "plan", "plan.toml", "--json")
    made, err = plan.communicate(timeout=WAIT_S)
    assert plan.returncode == 0, err
    assert [one["packing"][found.node] for one in json.loads(made)] == [1, 2, 2]


def test_ctrl_c_leaves_nothing(folder: Path) -> None:
    run = start(folder, "profile", "nap", "--k", "1", "-i", "3")
    end_at = time.monotonic() + 30
    while not list((folder / "tmp").glob("headrace-profile-*/broker")):
        assert time.monotonic() < end_at and run.poll() is None, run.communicate()[1]
        time.sleep(0.05)
    family = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    assert family
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=WAIT_S)
    assert run.returncode == 130 and "Traceback" not in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
    assert left(folder, run.pid) == [] and not (folder / ".headrace").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('[models.other]\nclass = "naps:Nap"\n', "model nap: expected one of other"),
        ('[models.nap]\nclass = "naps:Gone"\n', "naps has no headrace.Model Gone"),
    ],
)
def test_what_cannot_be_profiled_is_said_in_a_line(folder: Path, settings: str, words: str) -> None:
    (folder / "headrace.toml").write_text(settings)
    run = start(folder, "profile", "nap")
    _, err = run.communicate(timeout=WAIT_S)
    assert run.returncode == 2 and words in err and "Traceback" not in err
