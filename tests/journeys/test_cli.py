"""The command line as a person uses it: up, call, look, Ctrl-C, and nothing is left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.house import free_port

MODELS = '''
import headrace


class Total(headrace.Model):
    """Adds up."""

    batching = headrace.Batching(max_size=4)

    def golden(self):
        return [1.0, 2.0], 3.0

    def predict(self, rows: list[list[float]]) -> list[float]:
        return [sum(row) for row in rows]


class Broken(headrace.Model):
    """Never ready."""

    def golden(self):
        return 1, 2

    def predict(self, items: list[int]) -> list[int]:
        return items
'''
WAIT_S = 60.0


class House:
    """A settings folder, and the commands run in it."""

    def __init__(self, folder: Path, models: str) -> None:
        self.folder, self.name = folder, f"journey-{os.getpid()}-{free_port()}"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.processes: list[subprocess.Popen[str]] = []
        (folder / "cli_models.py").write_text(MODELS)
        listen = self.url.removeprefix("http://")
        (folder / "headrace.toml").write_text(
            f'[house]\nname = "{self.name}"\n[gateway]\nlisten = "{listen}"\n{models}'
        )

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        with (self.folder / "out").open("a") as out, (self.folder / "err").open("a") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "headrace", *arguments],
                cwd=self.folder,
                stdout=out,
                stderr=err,
                text=True,
                env=os.environ | environment,
            )
        self.processes.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "headrace", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
            env=os.environ | {"HEADRACE_URL": self.url},
        )

    def out(self) -> str:
        return (self.folder / "out").read_text()

    def err(self) -> str:
        return (self.folder / "err").read_text()

    def leftovers(self) -> list[Path]:
        folders = [Path("/tmp"), Path("/dev/shm"), Path(os.environ.get("TMPDIR", "/tmp"))]
        return [left for folder in folders for left in folder.glob(f"headrace-*{self.name}*")]


def until(what: object, seconds: float = WAIT_S) -> None:
    """Waits for `what()` to be true."""
    assert callable(what)
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    children = [int(child) for child in text.split()]
    return children + [inner for child in children for inner in descendants(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, '[models.total]\nclass = "cli_models:Total"\nworkers = 2\n')
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.terminate()
            process.wait(WAIT_S)
    for left in made.leftovers():  # roles by themselves share a folder that none of them removes
        shutil.rmtree(left)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_up_call_look_and_leave(house: House, how: signal.Signals) -> None:
    up = house.start("up", HEADRACE_TELEMETRY__LOG_LEVEL="warning")
    until(lambda: "first answer ready after" in house.out() or up.poll() is not None)
    assert house.url in house.out() and "total" in house.out(), house.err()

    call = house.run("call", "total", "[1, 2.5]")
    assert call.returncode == 0, call.stderr
    assert call.stdout.startswith("3.5\n") and "executed" in call.stdout
    as_json = house.run("call", "total", "[1, 2.5]", "--json")
    assert json.loads(as_json.stdout)["result"] == 3.5
    refused = house.run("call", "total", '["x"]')
    assert refused.returncode == 1
    assert "422 validation-failed" in refused.stderr and "at /0" in refused.stderr
    models = house.run("models")
    assert "total" in models.stdout and "list of number" in models.stdout
    assert "headrace call total" in house.run("models", "total").stdout
    status = house.run("status", "--json")
    assert status.returncode == 0
    assert len(json.loads(status.stdout)["models"][0]["workers"]) == 2

    family = descendants(up.pid)
    assert len(family) >= 6  # broker, gateway, two workers, two model processes
    assert house.leftovers()
    up.send_signal(how)
    assert up.wait(WAIT_S) == 0
    until(lambda: not any(map(alive, family)), 5)
    assert house.leftovers() == []
    assert "all gone" in house.err() and "Traceback" not in house.err()


def test_one_line_for_programs(house: House) -> None:
    up = house.start("up", "--json", "--listen", "127.0.0.1:0")
    until(lambda: house.out().endswith("\n") or up.poll() is not None)
    [line] = house.out().splitlines()
    ready = json.loads(line)
    assert ready["models"] == [{"name": "total", "version": "1"}] and ready["pid"] == up.pid
    assert ready["url"] != house.url
    assert house.run("call", "total", "[1]", "--url", ready["url"]).returncode == 0


def test_a_model_that_is_not_ready_is_named(tmp_path: Path) -> None:
    house = House(tmp_path, '[models.broken]\nclass = "cli_models:Broken"\n')
    up = house.start("up")
    try:
        until(lambda: "waiting: broken: " in house.err() and "expected 2" in house.err())
        assert up.poll() is None  # it goes on waiting
        status = house.run("status")
        assert status.returncode == 1 and "not ready" in status.stdout
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(WAIT_S) == 0
    assert house.leftovers() == []


def test_a_second_house_on_the_same_port(house: House) -> None:
    house.start("up", "--json")
    until(lambda: house.out().endswith("\n"))
    second = house.run("up")
    assert second.returncode == 2
    assert "is a house running already?" in second.stderr and "Traceback" not in second.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "a house needs a model to serve"),
        ('[models.total]\nclass = "cli_models:Total"\nworkerz = 2\n', "workerz"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, settings: str, words: str) -> None:
    house = House(tmp_path, settings)
    up = house.run("up")
    assert up.returncode == 2
    assert up.stderr.startswith("error: ") and words in up.stderr
    assert "Traceback" not in up.stderr and house.leftovers() == []


def test_the_roles_by_themselves(house: House) -> None:
    """One broker, two gateways, two workers, each started by its own command."""
    port = free_port()
    program = Path(sys.executable).parent / "nats-server"
    store = house.folder / "broker"
    broker = subprocess.Popen(
        [str(program), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(store),
         "-l", str(house.folder / "broker.log")],
    )  # fmt: skip
    others = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    url, metrics = f"nats://127.0.0.1:{port}", f"127.0.0.1:{free_port()}"
    try:
        roles = [house.start("gateway", "--listen", other, "--broker", url) for other in others]
        roles.append(house.start("worker", "--model", "total", "--broker", url))
        roles.append(house.start("worker", "--broker", url, "--metrics", metrics))
        for other in others:
            until(
                lambda other=other: house.run("status", "--url", f"http://{other}").returncode == 0
            )
            answered = house.run("call", "total", "[2, 2]", "--json", "--url", f"http://{other}")
            assert json.loads(answered.stdout)["result"] == 4.0
        for role in reversed(roles):
            role.send_signal(signal.SIGTERM)
            assert role.wait(WAIT_S) == 0
    finally:
        broker.terminate()
        broker.wait(WAIT_S)


def test_an_unknown_model_of_a_worker(house: House) -> None:
    worker = house.run("worker", "--model", "nothing")
    assert worker.returncode == 2
    assert "nothing" in worker.stderr and "total" in worker.stderr
    assert "Traceback" not in worker.stderr


def test_no_broker(house: House) -> None:
    gateway = house.run("gateway", "--broker", "carrier-pigeon://coop")
    assert gateway.returncode == 2
    assert "no adapter for 'carrier-pigeon'" in gateway.stderr


def test_check(house: House) -> None:
    good = house.run("check", "cli_models:Total")
    assert good.returncode == 0 and "nothing wrong" in good.stdout, good.stdout + good.stderr
    bad = house.run("check", "cli_models:Broken")
    assert bad.returncode == 1 and "✗ golden call: got 1, expected 2" in bad.stdout
