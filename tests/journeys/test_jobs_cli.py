"""Stored jobs as a person at a terminal has them: submitted, listed, waited for, dead, and again;
the clerk by itself."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.house import free_port, nats_command

MODELS = '''
from pathlib import Path

import headrace

MENDED = Path(__file__).parent / "mended"


class Total(headrace.Model):
    """Adds up."""

    batching = headrace.Batching(max_size=4)

    def golden(self):
        return [1.0, 2.0], 3.0

    def predict(self, rows: list[list[float]]) -> list[float]:
        if [13.0] in rows and not MENDED.exists():
            raise ValueError("thirteen")
        return [sum(row) for row in rows]
'''
WAIT_S = 60.0
HEADRACE = [sys.executable, "-m", "headrace"]


class House:
    """A broker, a gateway, a worker and a clerk, each started by its own command."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, broker = folder, free_port(), free_port()
        self.environment = os.environ | {
            "HEADRACE_URL": f"http://127.0.0.1:{self.port}",
            "HEADRACE_OBJECTS__TRANSIT": f"file://{folder}/transit",
        }
        (folder / "job_models.py").write_text(MODELS)
        (folder / "headrace.toml").write_text(
            f'[house]\nname = "jobs-{os.getpid()}-{broker}"\n'
            f'[gateway]\nlisten = "127.0.0.1:{self.port}"\n'
            f'[broker]\nurl = "nats://127.0.0.1:{broker}"\n'
            "[jobs]\nmax_attempts = 2\nbackoff_s = 0.05\n"
            '[models.total]\nclass = "job_models:Total"\n'
        )
        self.log = (folder / "log").open("wb")
        self.roles = [self._start(nats_command(broker, str(folder)))]
        self.roles += [self.start("worker"), self.start("gateway")]
        self.clerk = self.start("clerk")

    def start(self, role: str) -> subprocess.Popen[bytes]:
        return self._start([*HEADRACE, role])

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, cwd=self.folder, stdout=self.log, stderr=self.log, env=self.environment
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        """What the command printed. `code`: the exit status that it should have."""
        status, printed = self.tried(*arguments)
        assert status == code, f"{printed}\n{(self.folder / 'log').read_text()}"
        return printed

    def tried(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [*HEADRACE, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
            env=self.environment,
        )
        return done.returncode, done.stdout + done.stderr

    def until(self, code: int, *arguments: str) -> str:
        """Until the command ends so."""
        end = time.monotonic() + WAIT_S
        while True:
            status, printed = self.tried(*arguments)
            if status == code:
                return printed
            assert time.monotonic() < end, f"{printed}\n{(self.folder / 'log').read_text()}"
            time.sleep(0.2)

    def close(self) -> None:
        for process in (self.clerk, *reversed(self.roles)):
            process.terminate()
            process.wait(WAIT_S)
        self.log.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("house"))
    try:
        # The schema is made, the database opened, the model loaded.
        made.until(0, "jobs", "submit", "total", "[1]", "--wait", "30s")
        yield made
    finally:
        made.close()


def test_submitted_listed_waited_for(house: House) -> None:
    job = house.run("jobs", "submit", "total", "[20, 22]", "--key", "k", "--ttl", "1h").strip()
    assert house.run("jobs", "submit", "total", "[20, 22]", "--key", "k").strip() == job
    assert "42.0" in house.run("jobs", "wait", job, "--timeout", "30s")
    [shown] = [
        job_ for job_ in json.loads(house.run("jobs", "list", "--json")) if job_["id"] == job
    ]
    assert shown["state"] == "succeeded" and shown["attempt"] == 1
    assert f"{job} total: succeeded" in house.run("jobs", "show", job)
    assert json.loads(house.run("jobs", "show", job, "--json"))["result"] == 42.0
    assert "job-ended" in house.run("jobs", "cancel", job, code=1)


def test_the_desk_of_the_dead(house: House) -> None:
    failed = house.run("jobs", "submit", "total", "[13]", "--wait", "30s", code=1)
    assert "500 model-failed" in failed and "ValueError" in failed
    house.run("jobs", "submit", "total", "[13]", "--bulk", "--wait", "30s", code=1)
    dead = [job["id"] for job in json.loads(house.run("dead", "list", "--json"))]
    assert len(dead) == 2
    assert "run 1 on" in house.run("dead", "show", dead[0])
    assert "--yes" in house.run("dead", "replay", "--all", "--model", "total", code=2)
    (house.folder / "mended").touch()
    assert f"{dead[0]} replayed" in house.run("dead", "replay", dead[0])
    house.run("dead", "replay", "--all", "--model", "total", "--yes")
    assert house.run("jobs", "wait", *dead).count("13.0") == 2
    assert "no dead jobs" in house.run("dead", "list")
    assert f"{dead[1]} discarded" in house.run("dead", "discard", dead[1])


def test_the_clerk_leaves_in_order_and_jobs_go_on(house: House) -> None:
    house.clerk.terminate()
    assert house.clerk.wait(WAIT_S) == 0
    job = house.run("jobs", "submit", "total", "[1, 2]").strip()
    assert "3.0" in house.run("jobs", "wait", job, "--timeout", "30s")
    house.run("dead", "discard", job)
    assert "succeeded" in house.run("jobs", "show", job)  # it is the clerk who removes
    house.clerk = house.start("clerk")
    assert "job-not-found" in house.until(1, "jobs", "show", job)
