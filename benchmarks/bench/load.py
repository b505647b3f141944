"""The load generator: wrk, one thread, closed loop, every answer's status counted."""

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from bench.machine import Stolen, wait_quiet
from bench.serving import Server, ServerFailed

SCRIPT = Path(__file__).parent / "drive.lua"
ANSWER_LIMIT_S = 10
QUIET = 0.1  # a cell measured with less stolen counts at once
TRIES = 2
WAIT_QUIET_S = 8.0
MISSING = "wrk is not installed; on Debian: apt-get install wrk"


@dataclass(frozen=True)
class Load:
    """What wrk saw. calls_s counts right answers (2xx) only."""

    calls_s: float
    p50_ms: float
    p99_ms: float
    non2xx: int
    socket_errors: int
    stolen: float = 0.0  # share of the machine that the host kept meanwhile


def drive_quietly(server: Server, connections: int, seconds: float) -> Load:
    """The least disturbed of a few tries: once is enough where the host leaves us alone."""
    tried: list[Load] = []
    while len(tried) < TRIES and min((t.stolen for t in tried), default=1.0) > QUIET:
        wait_quiet(QUIET, WAIT_QUIET_S)
        stolen = Stolen()
        load = drive(server, connections, seconds)
        tried.append(replace(load, stolen=stolen.share()))
        server.drain()
    return min(tried, key=lambda t: t.stolen)


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
