"""The load generator: wrk, one thread, closed loop, every answer's status counted."""

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.serving import Server, ServerFailed

SCRIPT = Path(__file__).parent / "drive.lua"
ANSWER_LIMIT_S = 10
MISSING = "wrk is not installed; on Debian: apt-get install wrk"


@dataclass(frozen=True)
class Load:
    """What wrk saw. calls_s counts right answers (2xx) only."""

    calls_s: float
    p50_ms: float
    p99_ms: float
    non2xx: int
    socket_errors: int


def find_wrk() -> str:
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit(MISSING)
    return found


def drive(server: Server, connections: int, seconds: float) -> Load:
    """Load the server for that long and read wrk's figures."""
    with tempfile.TemporaryDirectory(prefix="hb-wrk-") as scratch:
        folder = Path(scratch)
        bodies = [server.peer.body(case.value) for case in server.workload.cases]
        framed = b"".join(b"%d\n%b" % (len(body), body) for body in bodies)
        (folder / "bodies").write_bytes(framed)
        env = {
            **os.environ,
            "BENCH_BODIES": str(folder / "bodies"),
            "BENCH_TYPE": server.workload.content_type,
            "BENCH_OUT": str(folder / "out.json"),
        }
        flags = f"-t1 -c{connections} -d{max(1, round(seconds))}s --timeout {ANSWER_LIMIT_S}s"
        command = [find_wrk(), *flags.split(), "-s", str(SCRIPT), server.url]
        limit_s = seconds + 60
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=limit_s, check=False
        )
        if done.returncode != 0:
            raise ServerFailed(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
        return _read(json.loads((folder / "out.json").read_text()))


def _read(seen: dict[str, float]) -> Load:
    socket_errors = sum(int(seen[kind]) for kind in ("connect", "read", "write", "timeout"))
    right = seen["answers"] - seen["non2xx"]
    return Load(
        calls_s=right / seen["seconds"],
        p50_ms=seen["p50_ms"],
        p99_ms=seen["p99_ms"],
        non2xx=int(seen["non2xx"]),
        socket_errors=socket_errors,
    )
