"""Measure Headrace beside its peers, in one run, in interleaved rounds.

    python benchmarks/run.py setup                    make the peers' venvs (minutes, once)
    python benchmarks/run.py                          three rounds of everything (about 40 min)
    python benchmarks/run.py --workloads w2 --peers headrace mosec --rounds 1 --seconds 3
    python benchmarks/run.py --write                  also append the tables to RESULTS.md

Needs wrk (Debian: apt-get install wrk) and Headrace installed beside --headrace-python.
"""

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import lineup, machine
from bench.lineup import DEFAULT, HOME, PEERS, Peer
from bench.load import drive, drive_quietly, find_wrk
from bench.serving import Server, ServerFailed
from bench.tables import Failed, Limit, Record, Timed, report
from bench.workloads import NAMES, workload

WARM_S = 1.0
SETTLE_S = 0.5
LIMIT_S = 2.0
RESULTS = HOME / "RESULTS.md"
PEERS_HELP = f"default: {' '.join(DEFAULT)}; the others are lesser variants"
SECONDS_HELP = "seconds of load a cell, after 1 s of warm-up (default 8)"
EPILOG = """\
Each round visits every workload and, inside it, every peer, in an order that turns from round to
round; one server at a time. A server is timed only after 64 inputs got their right answers, and is
asked again afterwards. Figures are medians over the rounds; calls/s counts 2xx answers only.
`python benchmarks/overload.py --help` is the other half: what happens past the limit.
"""


def main() -> int:
    options = parse()
    if options.action == "setup":
        return make_venvs(options.peers)
    find_wrk()
    usable = [peer for peer in options.peers if can_run(PEERS[peer], options.headrace_python)]
    if not usable:
        return 2
    options.left_out = [peer for peer in options.peers if peer not in usable]
    options.peers = usable
    records = list(measure(options))
    text = heading(options) + report(records, options.workloads) + "\n"
    print(text)
    if options.write:
        append(text)
    return 1 if any(isinstance(record, Failed) for record in records) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("action", nargs="?", default="run", choices=("run", "setup"), help="default: run")
    add("named", nargs="*", metavar="peer", help="setup: only these peers")
    add("--peers", nargs="+", choices=PEERS, default=DEFAULT, help=PEERS_HELP)
    add("--workloads", nargs="+", choices=NAMES, default=list(NAMES), help="default: all")
    add("--connections", nargs="+", type=int, default=[32, 128], help="default: 32 128")
    add("--rounds", type=int, default=3, help="default: 3")
    add("--seconds", type=float, default=8.0, help=SECONDS_HELP)
    add("--headrace-python", type=Path, default=Path(sys.executable), help="default: this python")
    add("--write", action="store_true", help="append the tables to benchmarks/RESULTS.md")
    options = parser.parse_args()
    if options.action == "setup" and options.named:
        options.peers = options.named
    unknown = set(options.peers) - set(PEERS)
    if unknown or (options.action == "run" and options.named):
        parser.error(f"unknown: {', '.join(unknown or options.named)}; peers: {', '.join(PEERS)}")
    options.headrace_python = options.headrace_python.absolute()
    return options


def make_venvs(names: list[str]) -> int:
    for name in names:
        if name == "headrace":  # it is measured from --headrace-python
            continue
        say(f"{name}: installing peers/{name}/requirements.txt")
        lineup.setup(PEERS[name])
    return 0


def can_run(peer: Peer, headrace_python: Path) -> bool:
    reason = lineup.missing(peer, headrace_python)
    if reason:
        say(f"left out: {reason}")
    return reason is None


def measure(options: argparse.Namespace) -> Iterator[Record]:
    """All rounds; a peer that fails is a record too, and the run goes on."""
    visits = list(plan(options))
    began = time.monotonic()
    for number, (turn, name, peer) in enumerate(visits):
        left = (time.monotonic() - began) / number * (len(visits) - number) if number else 0
        eta = f", about {left / 60:.0f} min left" if left else ""
        say(f"[{number + 1}/{len(visits)}] round {turn + 1} {name} {peer or 'limits'}{eta}")
        yield from visit(options, name, peer) if peer else limits(options, name)


def plan(options: argparse.Namespace) -> Iterator[tuple[int, str, str | None]]:
    """(round, workload, peer); None in place of a peer stands for the limits."""
    for turn in range(options.rounds):
        for name in options.workloads:
            first = turn % len(options.peers)
            yield from ((turn, name, p) for p in options.peers[first:] + options.peers[:first])
            if name != "w1":  # a no-op has no model to measure
                yield turn, name, None


def visit(options: argparse.Namespace, name: str, peer: str) -> Iterator[Record]:
    """One peer on one workload in one round: start, prove, weigh, load, prove again."""
    try:
        with Server(PEERS[peer], workload(name), options.headrace_python) as server:
            time.sleep(SETTLE_S)
            idle_mb = server.pss_mb()
            loads = []
            for connections in options.connections:
                drive(server, connections, WARM_S)
                server.drain()
                loads.append(drive_quietly(server, connections, options.seconds))
                show(connections, loads[-1].calls_s, loads[-1].p99_ms)
            loaded_mb = server.pss_mb()
            server.check()
    except (ServerFailed, OSError, subprocess.TimeoutExpired) as error:
        say(f"    FAILED: {error}")
        yield Failed(peer, name, str(error).splitlines()[0][:300])
        return
    for connections, load in zip(options.connections, loads, strict=True):
        first_s = server.first_answer_s
        yield Timed(peer, name, connections, load, idle_mb, loaded_mb, first_s)


def limits(options: argparse.Namespace, name: str) -> Iterator[Record]:
    """The model alone, in the fastapi peer's venv."""
    python = PEERS["fastapi"].python(options.headrace_python)
    if not python.exists():
        say("    no limits: they need `python benchmarks/run.py setup fastapi`")
        return
    command = [str(python), "-m", "bench.limits", str(LIMIT_S), name]
    env = {**os.environ, "PYTHONPATH": str(HOME)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    for row, calls_s in json.loads(done.stdout).items():
        say(f"    {row}: {calls_s:,.0f}/s")
        yield Limit(row, calls_s)


def heading(options: argparse.Namespace) -> str:
    """What a reader needs to run it again."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    versions = {p: lineup.version(PEERS[p], options.headrace_python) for p in options.peers}
    shown = ", ".join(f"{name} {number}" for name, number in versions.items())
    files = "; ".join(PEERS[name].files for name in options.peers)
    return (
        f"## {now}\n\n"
        f"- machine: {machine.describe()}; load average at the end {machine.load_average()}\n"
        f"- command: `python benchmarks/run.py {shlex.join(flags(options))}`\n"
        f"- versions: {shown}; wrk, 1 thread, on the same machine\n"
        f"- configurations: {files}\n"
        f"- asked for and not set up: {', '.join(options.left_out) or 'none'}\n\n"
    )


def flags(options: argparse.Namespace) -> list[str]:
    """The command line that repeats this run, without this machine's paths."""
    connections = [str(number) for number in options.connections]
    asked = ["--peers", *options.peers, "--workloads", *options.workloads]
    timing = ["--rounds", str(options.rounds), "--seconds", f"{options.seconds:g}"]
    return [*asked, "--connections", *connections, *timing]


def append(text: str) -> None:
    if not RESULTS.exists():
        RESULTS.write_text("# Results\n\nAppended by `run.py --write` and `overload.py --write`.\n")
    with RESULTS.open("a") as file:
        file.write("\n" + text)
    say("appended to benchmarks/RESULTS.md")


def show(connections: int, calls_s: float, p99_ms: float) -> None:
    say(f"    {connections} connections: {calls_s:,.0f} calls/s, p99 {p99_ms:.1f} ms")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
