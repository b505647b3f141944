"""Processor time of each process on a call's way, under load.

    python benchmarks/path.py                       by workload and connections
    python benchmarks/path.py --against OTHER/src   of another checkout and of this one

Starts a house, loads it with wrk, and reads user and system time of every process before and after.
Microseconds a call are steadier than calls a second on a machine shared with others. Two houses are
loaded at once, so that whatever the machine does meets both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", default=["w1", "w3"], choices=list(WORKLOADS))
    parser.add_argument("--connections", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--against", metavar="SRC", type=Path, help="headrace of another checkout")
    parser.add_argument("--turns", type=int, default=40, help="with --against")
    asked = parser.parse_args()
    if asked.against:
        of_two_trees(asked)
    else:
        of_this_tree(asked)


def of_this_tree(asked: argparse.Namespace) -> None:
    names = [name for name, _ in ROLES]
    print("| workload | connections | calls/s | " + " | ".join(f"{n}, us" for n in names) + " |")
    print("|---" * (3 + len(names)) + "|")
    for workload in asked.workloads:
        model, floats = WORKLOADS[workload]
        with house(HERE / f"peers/headrace/{workload}.toml") as pid:
            for connections in asked.connections:
                per_second, costs = load(pid, model, body(floats), connections, asked.seconds)
                shown = " | ".join(f"{costs[name][0]:.0f} + {costs[name][1]:.0f}" for name in names)
                print(f"| {workload} | {connections} | {per_second:,.0f} | {shown} |", flush=True)
    print("\nEach cost is user + system time.")


def of_two_trees(asked: argparse.Namespace) -> None:
    here, there = HERE.parent / "src", asked.against.resolve()
    for workload in asked.workloads:
        model, floats = WORKLOADS[workload]
        settings = HERE / f"peers/headrace/{workload}.toml"
        with house(settings, PORT, there) as old, house(settings, PORT + 1, here) as new:
            for connections in asked.connections:
                print(f"\n{workload}, {connections} connections")
                side_by_side(
                    {"against": (old, PORT), "this": (new, PORT + 1)},
                    model, body(floats), connections, asked.seconds, asked.turns,
                )  # fmt: skip


def body(floats: int) -> str:
    return str([round((n * 0.6180339887) % 1, 16) for n in range(1, floats + 1)])


@contextlib.contextmanager
def house(settings: Path, port: int = PORT, source: Path | None = None) -> Iterator[int]:
    """The pid of a house that listens there and is ready; of the headrace in `source`."""
    environment = os.environ | {
        "HEADRACE_GATEWAY__LISTEN": f"127.0.0.1:{port}",
        "HEADRACE_HOUSE__NAME": f"bench-path-{port}",
    }
    if source:
        environment["PYTHONPATH"] = str(source)
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", "up", "-f", settings], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        _await_ready(port, settings)
        yield process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _await_ready(port: int, settings: Path) -> None:
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"the house of {settings} did not become ready")


def side_by_side(
    houses: dict[str, tuple[int, int]],
    model: str,
    body: str,
    connections: int,
    seconds: int,
    turns: int,
) -> None:
    """Two houses, by name: pid and port. Prints what a call costs in each, and the ratios of the
    second to the first. `connections` to each of them."""
    names = [name for name, _ in ROLES]
    seen: dict[str, list[list[float]]] = {which: [] for which in houses}

    def turn(which: str) -> None:
        pid, port = houses[which]
        per_second, costs = load(pid, model, body, connections, seconds, port)
        seen[which].append([per_second, *(sum(costs[name]) for name in names)])

    with ThreadPoolExecutor(len(houses)) as pool:
        for _ in range(turns):
            list(pool.map(turn, houses))
            print(".", end="", flush=True)
    print(f"\n\n| | calls/s | {', us | '.join(names)}, us | sum, us |")
    print("|---" * (len(names) + 3) + "|")
    for which, rows in seen.items():
        row = [statistics.median(column) for column in zip(*rows, strict=True)]
        total = statistics.median(sum(each[1:]) for each in rows)
        print(f"| {which} | {row[0]:,.0f} | " + " | ".join(f"{x:.1f}" for x in (*row[1:], total)),
              "|")  # fmt: skip
    first, second = seen.values()
    ratios = [sum(b[1:]) / sum(a[1:]) for a, b in zip(first, second, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"\nratio of the sums, turn by turn: median {middle:.3f}, half of them in {low:.3f} to"
        f" {high:.3f}"
    )


def load(
    house: int,
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
        before = times(house)
        done = subprocess.run([*wrk, f"-d{seconds}", url], check=True, capture_output=True)
        after = times(house)
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
