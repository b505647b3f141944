"""Processor time of each process on a call's way, under load: python benchmarks/path.py

Starts a house, loads it with wrk, and reads user and system time of every process before and after.
Microseconds a call are steadier than calls a second on a machine shared with others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
PORT = 8750
WORKLOADS = {"w1": ("sum", 16), "w2": ("sum", 16), "w3": ("mlp", 64)}
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
ROLES = (
    ("broker", "nats-server"),
    ("gateway", "headrace.roles gateway"),
    ("worker", "headrace.roles worker"),
    ("model process", "headrace.worker.child"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", nargs="+", default=["w1", "w3"], choices=list(WORKLOADS))
    parser.add_argument("--connections", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--seconds", type=int, default=8)
    asked = parser.parse_args()
    names = [name for name, _ in ROLES]
    print("| workload | connections | calls/s | " + " | ".join(f"{n}, us" for n in names) + " |")
    print("|---" * (3 + len(names)) + "|")
    for workload in asked.workloads:
        model, floats = WORKLOADS[workload]
        body = str([round((n * 0.6180339887) % 1, 16) for n in range(1, floats + 1)])
        house = start(HERE / f"peers/headrace/{workload}.toml")
        try:
            for connections in asked.connections:
                per_second, costs = load(house, model, body, connections, asked.seconds)
                shown = " | ".join(f"{costs[name][0]:.0f} + {costs[name][1]:.0f}" for name in names)
                print(f"| {workload} | {connections} | {per_second:,.0f} | {shown} |", flush=True)
        finally:
            house.send_signal(signal.SIGINT)
            house.wait(30)
    print("\nEach cost is user + system time.")


def start(settings: Path, port: int = PORT) -> subprocess.Popen[bytes]:
    """A house that listens there; it is ready."""
    house = subprocess.Popen(
        [sys.executable, "-m", "headrace", "up", "-f", settings],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1):
                return house
        except OSError:
            time.sleep(0.1)
    house.kill()
    raise SystemExit(f"the house of {settings} did not become ready")


def load(
    house: subprocess.Popen[bytes],
    model: str,
    body: str,
    connections: int,
    seconds: int,
    port: int = PORT,
) -> tuple[float, dict[str, tuple[float, float]]]:
    """Calls/s, and user and system microseconds a call by role."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
            f"wrk.body = {json.dumps(body)}\n"
        )
        script.flush()
        url = f"http://127.0.0.1:{port}/models/{model}/predict"
        wrk = ["wrk", "-t1", f"-c{connections}", "-s", script.name]
        subprocess.run([*wrk, "-d1", url], check=True, capture_output=True)
        before = times(house.pid)
        done = subprocess.run([*wrk, f"-d{seconds}", url], check=True, capture_output=True)
        after = times(house.pid)
    text = done.stdout.decode()
    calls = int(re.findall(r"(\d+) requests in", text)[0])
    per_second = float(re.findall(r"Requests/sec: +([\d.]+)", text)[0])
    costs = {
        name: tuple((after[name][n] - before[name][n]) / calls for n in (0, 1)) for name, _ in ROLES
    }
    return per_second, costs  # type: ignore[return-value]


def times(root: int) -> dict[str, tuple[float, float]]:
    """User and system microseconds so far, by role, of the processes below `root`."""
    totals = {name: (0.0, 0.0) for name, _ in ROLES}
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    parents = {pid: stat(pid) for pid in pids}
    for pid, fields in parents.items():
        if fields is None or root not in ancestors(pid, parents):
            continue
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        for name, sign in ROLES:
            if sign in command:
                user, system = totals[name]
                totals[name] = user + int(fields[11]) * TICK_US, system + int(fields[12]) * TICK_US
    return totals


def stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def ancestors(pid: int, parents: dict[int, list[str] | None]) -> set[int]:
    found = set()
    while (fields := parents.get(pid)) is not None:
        pid = int(fields[1])
        found.add(pid)
    return found


if __name__ == "__main__":
    main()
