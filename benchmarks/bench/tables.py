"""Records of a run -> markdown tables, one a workload; medians over the rounds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.load import Load
from bench.workloads import workload

HEAD = (
    "peer",
    "connections",
    "calls/s",
    "min-max",
    "of headrace",
    "p50 ms",
    "p99 ms",
    "non-2xx",
    "socket errors",
    "PSS idle MB",
    "PSS loaded MB",
    "first answer s",
    "stolen %",
)


@dataclass(frozen=True)
class Timed:
    """One peer, one workload, one number of connections, one round."""

    peer: str
    workload: str
    connections: int
    load: Load
    idle_mb: float
    loaded_mb: float
    first_answer_s: float


@dataclass(frozen=True)
class Failed:
    """A peer that was not timed, and why."""

    peer: str
    workload: str
    reason: str


@dataclass(frozen=True)
class Limit:
    row: str
    calls_s: float


Record = Timed | Failed | Limit


def report(records: Sequence[Record], names: Sequence[str]) -> str:
    return "\n\n".join(section(records, name) for name in names)


def section(records: Sequence[Record], name: str) -> str:
    timed = [r for r in records if isinstance(r, Timed) and r.workload == name]
    lines = [
        f"### {name.upper()}, {workload(name).title}",
        "",
        _row(HEAD),
        _row(["---"] * len(HEAD)),
    ]
    for connections in sorted({r.connections for r in timed}):
        lines += _peer_rows([r for r in timed if r.connections == connections])
    lines += _limit_rows(r for r in records if isinstance(r, Limit) and r.row.startswith(name))
    lost = [r for r in records if isinstance(r, Failed) and r.workload == name]
    failed = {f"- {r.peer} was not timed: {r.reason}" for r in lost}
    return "\n".join([*lines, *([""] if failed else []), *sorted(failed)])


def _peer_rows(timed: Sequence[Timed]) -> list[str]:
    by_peer: dict[str, list[Timed]] = {}
    for record in timed:
        by_peer.setdefault(record.peer, []).append(record)
    speeds = {peer: median(r.load.calls_s for r in rows) for peer, rows in by_peer.items()}
    ranked = sorted(by_peer, key=lambda peer: -speeds[peer])
    return [_peer_row(by_peer[peer], speeds[peer], speeds.get("headrace")) for peer in ranked]


def _peer_row(rows: Sequence[Timed], speed: float, ours: float | None) -> str:
    speeds = [r.load.calls_s for r in rows]
    return _row(
        (
            rows[0].peer,
            str(rows[0].connections),
            f"{speed:,.0f}",
            f"{min(speeds):,.0f}-{max(speeds):,.0f}",
            f"{speed / ours:.2f}" if ours else "-",
            f"{median(r.load.p50_ms for r in rows):.1f}",
            f"{median(r.load.p99_ms for r in rows):.1f}",
            str(sum(r.load.non2xx for r in rows)),
            str(sum(r.load.socket_errors for r in rows)),
            f"{median(r.idle_mb for r in rows):.0f}",
            f"{median(r.loaded_mb for r in rows):.0f}",
            f"{median(r.first_answer_s for r in rows):.2f}",
            f"{100 * max(r.load.stolen for r in rows):.0f}",
        )
    )


def _limit_rows(limits: Iterable[Limit]) -> list[str]:
    by_row: dict[str, list[float]] = {}
    for limit in limits:
        by_row.setdefault(limit.row, []).append(limit.calls_s)
    return [_limit_row(row, speeds) for row, speeds in by_row.items()]


def _limit_row(row: str, speeds: Sequence[float]) -> str:
    spread = f"{min(speeds):,.0f}-{max(speeds):,.0f}"
    cells = [f"*limit: {row.split(' ', 1)[1]}*", "", f"{median(speeds):,.0f}", spread]
    return _row([*cells, *([""] * (len(HEAD) - len(cells)))])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
