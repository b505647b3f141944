"""Who is measured: how each peer is started, called and read. Its configuration is in peers/."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1]
PORT = 8750  # also in peers/headrace/*.toml
HOST = "127.0.0.1"
HEADRACE_MODELS = {"w1": "sum", "w2": "sum", "w2slow": "sum", "w3": "mlp", "w4": "mean"}


def identity(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Peer:
    name: str
    package: str
    files: str
    command: Callable[[Path, str], list[str]]
    """(its venv's python, the workload) -> argv"""
    path: Callable[[str], str] = lambda _: "/predict"
    wrap: Callable[[Any], Any] = identity
    unwrap: Callable[[Any], Any] = identity
    venv: str = ""
    """the venv's name, where it is another peer's"""
    env: dict[str, str] = field(default_factory=dict)
    call_headers: dict[str, str] = field(default_factory=dict)

    def python(self, headrace_python: Path) -> Path:
        if self.name == "headrace":
            return headrace_python
        return HOME / ".venvs" / (self.venv or self.name) / "bin" / "python"

    def body(self, value: Any) -> bytes:
        """The request body: pictures go raw, the rest as this peer's JSON."""
        if isinstance(value, bytes):
            return value
        return json.dumps(self.wrap(value), separators=(",", ":")).encode()

    def read(self, body: bytes) -> Any:
        return self.unwrap(json.loads(body))


def _script(folder: str, file: str) -> Callable[[Path, str], list[str]]:
    return lambda python, _: [str(python), str(HOME / "peers" / folder / file)]


def _headrace(python: Path, workload: str) -> list[str]:
    house = HOME / "peers" / "headrace" / f"{workload}.toml"
    return [str(python.parent / "headrace"), "up", "-f", str(house)]


def _fastapi(python: Path, workload: str) -> list[str]:
    flags = "--workers 1 --loop uvloop --http httptools --no-access-log --log-level error"
    where = ["--app-dir", str(HOME / "peers" / "fastapi"), "--host", HOST, "--port", str(PORT)]
    return [str(python), "-m", "uvicorn", "app:app", *flags.split(), *where]


def _bentoml(python: Path, workload: str) -> list[str]:
    where = ["--host", HOST, "--port", str(PORT), "--working-dir", str(HOME / "peers" / "bentoml")]
    return [str(python.parent / "bentoml"), "serve", "service:Served", *where]


def _mosec(python: Path, workload: str) -> list[str]:
    """Past the limit its 3 s timeout is what is measured; elsewhere it must not refuse."""
    limit_ms = 3_000 if workload == "w2slow" else 60_000
    flags = f"--address {HOST} --port {PORT} --log-level error --timeout {limit_ms}"
    return [str(python), str(HOME / "peers" / "mosec" / "server.py"), *flags.split()]


def _one(answer: Any) -> Any:
    return answer[0] if isinstance(answer, list) and len(answer) == 1 else answer


RAY = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
RAY_HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "{scratch}/haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "{scratch}/haproxy.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "{scratch}/metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "{scratch}",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "{scratch}/haproxy.state",
}
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "headrace",
            "headrace",
            "peers/headrace/{workload}.toml, models.py",
            _headrace,
            path=lambda workload: f"/models/{HEADRACE_MODELS[workload]}/predict",
            unwrap=lambda answer: answer["result"],
            call_headers={"Headrace-Deadline-Ms": "{deadline_ms}"},
        ),
        Peer(
            "mosec",
            "mosec",
            "peers/mosec/server.py",
            _mosec,
            path=lambda _: "/inference",
        ),
        Peer(
            "mosec-single",
            "mosec",
            "peers/mosec/server.py with BENCH_BATCHING=0",
            _mosec,
            path=lambda _: "/inference",
            venv="mosec",
            env={"BENCH_BATCHING": "0"},
        ),
        Peer("fastapi", "fastapi", "peers/fastapi/app.py", _fastapi),
        Peer("litserve", "litserve", "peers/litserve/server.py", _script("litserve", "server.py")),
        Peer(
            "bentoml",
            "bentoml",
            "peers/bentoml/service.py",
            _bentoml,
            wrap=lambda value: {"rows": [value]},
            unwrap=_one,
            env={"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Peer(
            "ray",
            "ray",
            "peers/ray/server.py",
            _script("ray", "server.py"),
            env={**RAY, **RAY_HAPROXY},
        ),
        Peer(
            "ray-python-proxy",
            "ray",
            "peers/ray/server.py without HAProxy",
            _script("ray", "server.py"),
            venv="ray",
            env=RAY,
        ),
    )
}

VARIANTS = ("mosec-single", "ray-python-proxy")  # a peer's lesser configuration, on request
DEFAULT = [name for name in PEERS if name not in VARIANTS]


def version(peer: Peer, headrace_python: Path) -> str:
    """The version installed in the peer's venv."""
    ask = f"from importlib.metadata import version; print(version({peer.package!r}))"
    command = [str(peer.python(headrace_python)), "-c", ask]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "?"


def missing(peer: Peer, headrace_python: Path) -> str | None:
    """Why this peer cannot run here, with the command that helps; None when it can."""
    python = peer.python(headrace_python)
    if not python.exists():
        if peer.name == "headrace":
            return f"no python at {python}: pass --headrace-python"
        return f"{peer.name} is not set up: run `python benchmarks/run.py setup {python.parts[-3]}`"
    if peer.name == "headrace" and not (python.parent / "headrace").exists():
        return "headrace is not installed beside --headrace-python: pip install -e . there"
    return None


def setup(peer: Peer) -> None:
    """Make the peer's venv from its pinned requirements."""
    name = peer.venv or peer.name
    venv = HOME / ".venvs" / name
    if not (venv / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    needs = HOME / "peers" / name / "requirements.txt"
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-r", os.fspath(needs)], check=True)
