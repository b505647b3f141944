"""What the READMEs show is what happens: models load, settings are read, commands are run.

python   with a `headrace.Model`: run by the author's API, golden call and all; else a script
toml     read as a settings file
console  each `$ command`, against the house that the page's own `headrace up` started, on a free
         port; JSON that is shown below it is what comes, and so is the line of an error
json     is JSON

README.md is run in a folder with the files that it shows, other pages in the root.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT, Block, blocks, markdown_files

import headrace
from headrace import settings
from headrace.signature import Signature
from headrace.worker.child import Runner
from headrace.worker.frames import Start
from headrace.worker.golden import prove

PORT = "8100"
READMES = [ROOT / "README.md", ROOT / "examples" / "quickstart" / "README.md"]
SHOWN = [block for page in READMES if page.exists() for block in blocks(page)]
#: Commands that are shown and not run here: how they begin, and why.
NOT_RUN = {
    "make run": "starts the eKYC house; tests/examples runs its parts",
    "make test": "is what runs this",
    "make check": "is what runs this",
    "make bench": "takes half an hour",
    "headrace up": "the fixture runs it",
    "pip install": "installs from the network",
    "python examples/quickstart/train.py": "writes over the model that is committed",
    "python examples/quickstart/loop.py": "takes minutes; test_quickstart_loop.py runs it",
}
#: What changes from call to call, where JSON is compared.
VOLATILE = ("request_id", "instance", "gateway", "pid", "metrics_url", "worker")


def of(*languages: str) -> list[Block]:
    return [block for block in SHOWN if block.language in languages]


def is_model(block: Block) -> bool:
    return "headrace.Model)" in block.text


@dataclass(frozen=True)
class House:
    """A running house and the folder of its models."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        beside = Path(sys.executable).parent
        return os.environ | {
            "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
            "HEADRACE_URL": f"http://127.0.0.1:{self.port}",
        }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def folder_of(page: Path, made: Path) -> Path:
    """README.md: its blocks written out as the files that it says they are."""
    if page.parent != ROOT:
        return ROOT
    shown = blocks(page)
    (made / "models.py").write_text(next(b.text for b in shown if is_model(b)))
    (made / "headrace.toml").write_text(settings_of(page))
    return made


def settings_of(page: Path) -> str:
    """One file: what is shown further down is added to it."""
    return "\n".join(block.text for block in blocks(page) if block.language == "toml")


def start(page: Path, folder: Path, log: Path) -> House:
    port = free_port()
    shown = [command for block in blocks(page) for command, _ in commands(block)]
    [up] = [command for command in shown if command.startswith("headrace up")]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *shlex.split(up)],
            cwd=folder,
            env=os.environ | {"HEADRACE_GATEWAY__LISTEN": f"127.0.0.1:{port}"},
            stdout=out,
            stderr=out,
        )
    return House(folder, port, process)


def wait_until_ready(house: House, log: Path) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{house.port}/health/ready").close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert house.process.poll() is None, log.read_text()
            time.sleep(0.05)
    pytest.fail(f"the house is not ready: {log.read_text()}")


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, House]]:
    """A house for each page with commands, as `headrace up` starts it; all start at once."""
    up: dict[Path, House] = {}
    logs: dict[Path, Path] = {}
    try:
        for page in {block.path for block in of("console")}:
            made = tmp_path_factory.mktemp("house")
            logs[page] = made / "log"
            up[page] = start(page, folder_of(page, made), logs[page])
        for page, house in up.items():
            wait_until_ready(house, logs[page])
        yield up
    finally:
        for house in up.values():
            house.process.send_signal(signal.SIGINT)
        for house in up.values():
            house.process.wait(20)


# -- models, settings, JSON ------------------------------------------------------------------------


@pytest.mark.parametrize("block", [b for b in of("python") if is_model(b)], ids=str)
def test_a_model_serves_its_golden_call(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("shown_model")
    monkeypatch.setitem(sys.modules, "shown_model", module)
    exec(compile(block.text, str(block), "exec"), module.__dict__)
    kinds = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, headrace.Model)
    ]
    for kind in kinds:
        assert Signature(kind).input_schema
        start = Start(f"shown_model:{kind.__name__}", "", ".", "cpu", 0, 0)
        assert prove(Runner(start))
    assert len(kinds) == 1


@pytest.mark.parametrize("page", sorted({b.path for b in of("toml")}), ids=str)
def test_settings_are_read(page: Path, tmp_path: Path) -> None:
    path = tmp_path / "headrace.toml"
    path.write_text(settings_of(page))
    assert settings.load(path, environment={})


def test_json_is_json() -> None:
    shown = [b for page in markdown_files() for b in blocks(page) if b.language == "json"]
    assert [json.loads(block.text) for block in shown]


def test_the_model_of_the_readme_is_short() -> None:
    [model] = [b for b in blocks(ROOT / "README.md") if b.language == "python" and is_model(b)]
    assert sum(bool(line.strip()) for line in model.text.splitlines()) <= 20


# -- commands --------------------------------------------------------------------------------------


def commands(block: Block) -> list[tuple[str, str]]:
    """(command, what is shown below it)."""
    if block.language != "console":
        return []
    found = []
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        last = next(n for n in range(1, len(lines) + 1) if is_whole("\n".join(lines[:n])))
        found.append(("\n".join(lines[:last]), "\n".join(lines[last:]).strip()))
    return found


def is_whole(text: str) -> bool:
    """A command, not only its first lines."""
    try:
        return bool(shlex.split(text)) and not text.endswith("\\")
    except ValueError:  # a quotation is open
        return False


def runs(command: str) -> bool:
    return not any(command.startswith(begin) for begin in NOT_RUN)


ALL = [(b, command, shown) for b in of("console") for command, shown in commands(b)]


@pytest.mark.parametrize(
    ("block", "command", "shown"),
    [entry for entry in ALL if runs(entry[1])],
    ids=lambda v: str(v)[:60] if isinstance(v, str) else str(v),
)
def test_a_command_does_what_is_shown(
    block: Block, command: str, shown: str, houses: dict[Path, House]
) -> None:
    house = houses[block.path]
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace(PORT, str(house.port))],
        cwd=house.folder, env=house.environment, capture_output=True, text=True, timeout=20,
        check=False,
    )  # fmt: skip
    if shown.startswith("error: "):
        assert done.returncode == 1
        assert done.stderr.splitlines()[0] == shown.splitlines()[0]
        return
    assert done.returncode == 0, done.stdout + done.stderr
    if shown.startswith("{"):
        assert form(first_json(done.stdout)) == form(first_json(shown))


def first_json(text: str) -> Any:
    return json.JSONDecoder().raw_decode(text)[0]


def form(value: Any, name: str = "") -> Any:
    """A JSON value without what differs from call to call: ids, and how long things took."""
    if isinstance(value, dict):
        return {key: form(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [form(inner) for inner in value]
    if name.endswith("_ms") or name in VOLATILE:
        return type(value).__name__.replace("int", "float")
    return value


@pytest.mark.parametrize("block", [b for b in of("python") if not is_model(b)], ids=str)
def test_a_script_runs(block: Block, houses: dict[Path, House]) -> None:
    house = houses[block.path]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text.replace(PORT, str(house.port))],
        cwd=house.folder, env=house.environment, capture_output=True, text=True, timeout=20,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_what_is_shown_is_compared() -> None:
    block = Block(ROOT / "README.md", 1, "console", "$ a \\\n b\n{}\n$ c '\n d'\ne\n$ f\n")
    assert commands(block) == [("a \\\n b", "{}"), ("c '\n d'", "e"), ("f", "")]
    assert form({"total_ms": 1, "n": 2}) == form({"total_ms": 9.5, "n": 2})
    assert form({"n": 2}) != form({"n": 3})


def test_every_command_named_in_the_readme_exists() -> None:
    """Also in prose: `headrace gateway` and its like."""
    face = ast.parse((ROOT / "src" / "headrace" / "cli" / "face.py").read_text())
    names = {
        alias.name
        for node in ast.walk(face)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headrace.cli.")
        for alias in node.names
    }
    pages = "\n".join(page.read_text() for page in READMES if page.exists())
    named = set(re.findall(r"(?:`|\$ )headrace ([a-z]+)", pages))
    assert named - names == set()
    assert "up" in named
