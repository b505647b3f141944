"""Measure what happens past the limit: a model ten times slower under 2,048 connections.

    python benchmarks/overload.py                         headrace and mosec, about 2 min
    python benchmarks/overload.py --peers headrace --seconds 20 --write
    python benchmarks/overload.py --pause-ms 0            refused callers come back at once

The model takes 50 ms a batch and 2 ms an item, at most 32 (281 calls/s). Goodput counts the
answers that came inside the deadline; its share is of the same server's peak at 128 connections.
"""

import argparse
import math
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import lineup, machine
from bench.crowd import Answer, Crowd, Window, run_crowd
from bench.lineup import HOST, PEERS, PORT
from bench.serving import Server, ServerFailed
from bench.workloads import workload
from run import append, can_run, say

WORKLOAD = "w2slow"
PEAK_CONNECTIONS = 128
REFUSALS = (408, 429, 503, 504)
HEAD = (
    "peer",
    "connections",
    "goodput/s",
    "of peak",
    "late 200s/s",
    "good p50 ms",
    "good p99 ms",
    "refused/s",
    "refusal p50 ms",
    "refusal p99 ms",
    "refusals by status (p50 / p99)",
    "other errors",
    "unanswered past deadline",
    "client lag p99 ms",
    "PSS MB",
)
EPILOG = """\
A closed loop of 2,048 callers who come back at once after a refusal measures mostly itself: 2,048
over R refusals/s is the least latency it can see. So a refused caller waits --pause-ms first, as
Retry-After asks, for every peer alike. "client lag" is how late the load client's own loop woke:
latencies of that size are the client's. A "refusal" is 408, 429, 503 or 504; those that came late
(408, 504 after the deadline) show in its p99. Memory is read once, right after the load.
"""


@dataclass(frozen=True)
class Overload:
    """One crowd on one server."""

    peer: str
    connections: int
    goodput_s: float
    late_s: float
    good_ms: tuple[float, float]
    refused_s: float
    refusal_ms: tuple[float, float]
    statuses: str
    errors: int
    unanswered: int
    lag_ms: float
    pss_mb: float


def main() -> int:
    options = parse()
    rows: list[Overload] = []
    failures: list[str] = []
    for name in options.peers:
        if not can_run(PEERS[name], options.headrace_python):
            failures.append(f"{name}: not set up")
            continue
        try:
            rows += measure(options, name)
        except ServerFailed as error:
            say(f"    FAILED: {error}")
            failures.append(str(error).splitlines()[0][:300])
    text = report(options, rows, failures)
    print(text)
    if options.write:
        append(text)
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--peers", nargs="+", choices=PEERS, default=["headrace", "mosec"])
    add("--connections", type=int, default=2048, help="default: 2048")
    add("--seconds", type=float, default=10.0, help="counted seconds a crowd (default 10)")
    add("--deadline-ms", type=int, default=3000, help="a later answer is not good (default 3000)")
    add("--pause-ms", type=int, default=1000, help="wait of a refused caller (default 1000)")
    add("--headrace-python", type=Path, default=Path(sys.executable), help="default: this python")
    add("--write", action="store_true", help="append the table to benchmarks/RESULTS.md")
    options = parser.parse_args()
    options.headrace_python = options.headrace_python.absolute()
    return options


def measure(options: argparse.Namespace, name: str) -> list[Overload]:
    """The peak first, then the overload, on one server."""
    rows = []
    with Server(PEERS[name], workload(WORKLOAD), options.headrace_python) as server:
        for connections in (PEAK_CONNECTIONS, options.connections):
            say(f"{name}: {connections} connections, {options.seconds:.0f} s")
            rows.append(press(options, server, connections))
            say(f"    {rows[-1].goodput_s:.0f} good/s, {rows[-1].refused_s:.0f} refused/s")
            server.drain()
    return rows


def press(options: argparse.Namespace, server: Server, connections: int) -> Overload:
    """Settle for the deadline and a second, then count for `seconds`."""
    deadline_s = options.deadline_ms / 1000
    crowd = Crowd(HOST, PORT, requests_of(server, options.deadline_ms), options.pause_ms / 1000)
    window = run_crowd(crowd, connections, deadline_s + 1, options.seconds)
    return count(server, crowd, window, connections, deadline_s)


def count(
    server: Server, crowd: Crowd, window: Window, connections: int, deadline_s: float
) -> Overload:
    """The crowd's answers inside the window, by what they were worth to the caller."""
    seen = [answer for answer in crowd.answers if window.holds(answer)]
    right = [a for a in seen if 200 <= a.status < 300]
    good = [a.latency_s for a in right if a.latency_s <= deadline_s]
    refused = [a for a in seen if a.status in REFUSALS]
    return Overload(
        peer=server.peer.name,
        connections=connections,
        goodput_s=len(good) / window.seconds,
        late_s=(len(right) - len(good)) / window.seconds,
        good_ms=ends(good),
        refused_s=len(refused) / window.seconds,
        refusal_ms=ends([a.latency_s for a in refused]),
        statuses=by_status(refused),
        errors=len(seen) - len(right) - len(refused),
        unanswered=sum(window.end_s - sent > deadline_s for sent in crowd.waiting.values()),
        lag_ms=ends(crowd.lags_s)[1],
        pss_mb=server.pss_mb(),
    )


def by_status(refused: Sequence[Answer]) -> str:
    """`429 x 3734 (1 / 3 ms)`: how many of each, with their p50 and p99."""
    shown = []
    for status in sorted({answer.status for answer in refused}):
        latencies_s = [answer.latency_s for answer in refused if answer.status == status]
        p50, p99 = ends(latencies_s)
        shown.append(f"{status} x {len(latencies_s)} ({p50:.0f} / {p99:.0f} ms)")
    return ", ".join(shown)


def requests_of(server: Server, deadline_ms: int) -> list[bytes]:
    """Every input of the workload as bytes ready for the socket."""
    extra = {k: v.format(deadline_ms=deadline_ms) for k, v in server.peer.call_headers.items()}
    bodies = [server.peer.body(case.value) for case in server.workload.cases]
    return [head(server, extra, len(body)) + body for body in bodies]


def head(server: Server, extra: dict[str, str], length: int) -> bytes:
    lines = {
        "Host": f"{HOST}:{PORT}",
        "Content-Type": server.workload.content_type,
        "Content-Length": str(length),
        **extra,
    }
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {server.path} HTTP/1.1\r\n{fields}\r\n".encode()


def ends(latencies_s: Sequence[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds; not-a-number for nothing."""
    if len(latencies_s) < 2:
        only = latencies_s[0] * 1000 if latencies_s else float("nan")
        return only, only
    cuts = statistics.quantiles(latencies_s, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


def report(options: argparse.Namespace, rows: Sequence[Overload], failures: Sequence[str]) -> str:
    """Heading, table, and who was not measured."""
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    peaks = {r.peer: r.goodput_s for r in rows if r.connections == PEAK_CONNECTIONS}
    versions = ", ".join(
        f"{name} {lineup.version(PEERS[name], options.headrace_python)}" for name in peaks
    )
    lines = [
        f"## {now}, overload",
        "",
        f"- machine: {machine.describe()}; load average at the end {machine.load_average()}",
        f"- command: `python benchmarks/overload.py {shlex.join(flags(options))}`",
        f"- versions: {versions}; {workload(WORKLOAD).title}",
        f"- configurations: {'; '.join(PEERS[name].files for name in peaks)}",
        "",
        table_row(HEAD),
        table_row(["---"] * len(HEAD)),
        *(table_row(cells(r, peaks[r.peer])) for r in rows),
        *(f"\n- not measured: {reason}" for reason in failures),
    ]
    return "\n".join(lines) + "\n"


def cells(row: Overload, peak: float) -> list[str]:
    return [
        row.peer,
        f"{row.connections:,}",
        f"{row.goodput_s:.0f}",
        f"{row.goodput_s / peak:.0%}" if peak else "-",
        f"{row.late_s:.0f}",
        *(shown(value, 0) for value in row.good_ms),
        f"{row.refused_s:.0f}",
        *(shown(value, 1) for value in row.refusal_ms),
        row.statuses or "-",
        str(row.errors),
        str(row.unanswered),
        f"{row.lag_ms:.1f}",
        f"{row.pss_mb:.0f}",
    ]


def shown(value_ms: float, digits: int) -> str:
    return "-" if math.isnan(value_ms) else f"{value_ms:.{digits}f}"


def table_row(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"


def flags(options: argparse.Namespace) -> list[str]:
    numbers = {
        "--connections": options.connections,
        "--seconds": f"{options.seconds:g}",
        "--deadline-ms": options.deadline_ms,
        "--pause-ms": options.pause_ms,
    }
    return ["--peers", *options.peers, *(str(part) for pair in numbers.items() for part in pair)]


if __name__ == "__main__":
    sys.exit(main())
