"""What became of each job, from accounts that are not the system's own: pure.

    ledger (client, nemesis)  --+
    runs (the model's)          +--> Verdict: what was broken, by whose name; what was counted
    books (API, database)     --+

    lost          I1  acked, and not over, or not there
    duplicated    I2  one key with two jobs, one job with two ends
    unbounded     I3  a call that no answer ended in time, a refusal without Retry-After, a 500
    wrong         I4  not the result of this input and version, not the end it had to come to
    not_monotone  I5  out of a terminal state, or an attempt less than before
    untruthful    I6  API and database, or what a client saw and what is now, disagree; ready while
                      nobody can work
    residue       I8  jobs that are not over, outbox entries, processes and files left
    unexpected        a job or run that nobody attempted, or of a call that was refused
    repeated          second runs that no strike explains
    void              a fault without proof that it acted: the run says nothing

A key that nobody knows the fate of (unknown) is neither lost nor ok; it is `recovered` if its job
is there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .ledger import Event
from .models import REFUSED, Run, fate, truth
from .repeats import requeues, unexplained

TERMINAL = frozenset({"succeeded", "failed", "dead", "expired", "cancelled"})
#: Refusals that come where it is open whether the commit got through.
OPEN = frozenset({"storage-unavailable", "deadline-exceeded"})
GRACE_S = 1.0  # after the client's deadline (I3)
#: A house of which every worker is stopped may call itself ready for so long: workers speak once a
#: second, and one not heard of for 3.5 s is gone.
READY_LAG_S = 5.0
ALL_STOPPED = "pause every worker"


class Row(NamedTuple):
    """A job in the books. `result` is the problem's code where it has no result; `owed`: the outbox
    still has something to do for it."""

    id: str
    key: str
    state: str
    attempt: int
    version: str
    result: Any
    owed: bool = False


class Move(NamedTuple):
    """One write of a row's state, attempt or result, as a trigger of the database saw it."""

    id: str
    old_state: str
    new_state: str
    old_attempt: int
    new_attempt: int


@dataclass
class Accounts:
    """All that is known at the end of a run. `api` and `moves` are None where nobody asked."""

    events: list[Event]
    runs: list[Run]
    rows: list[Row]
    api: list[Row] | None = None
    moves: list[Move] | None = None
    residue: list[str] = field(default_factory=list)
    #: Second runs that no strike explains: a host may keep the processor for longer than a lease.
    unexplained_most: int = 0


@dataclass
class Verdict:
    broken: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)
    accept_s: list[float] = field(default_factory=list)
    refusal_s: list[float] = field(default_factory=list)
    requeue_s: list[float] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.broken

    def told(self) -> str:
        """The first of each kind."""
        return "\n".join(
            f"{kind}: {len(found)}, as {found[:3]}" for kind, found in sorted(self.broken.items())
        )


@dataclass
class Told:
    """What the ledger says of one key."""

    ids: list[str] = field(default_factory=list)
    attempts: int = 0
    ended: int = 0  # attempts that the client knows an end of
    open: bool = False  # some attempt may have taken effect without an ack
    seen: list[Event] = field(default_factory=list)


def number_of(key: str) -> int:
    """Keys are RUN.NUMBER."""
    return int(key.rpartition(".")[2])


def check(accounts: Accounts) -> Verdict:
    verdict = Verdict()
    told = _read(accounts.events, verdict)
    rows = {row.id: row for row in accounts.rows}
    by_key = defaultdict(list)
    for row in accounts.rows:
        by_key[row.key].append(row)
    for key, of_key in told.items():
        _judge_key(key, of_key, by_key.get(key, []), rows, verdict)
    for row in accounts.rows:
        _judge_row(row, told, verdict)
    _judge_calls(accounts.events, verdict)
    _judge_readiness(accounts.events, verdict)
    _judge_runs(accounts, told, verdict)
    _judge_moves(accounts.moves or [], verdict)
    if accounts.api is not None:
        _compare(accounts.api, rows, verdict)
    _judge_faults(accounts.events, verdict)
    verdict.requeue_s = requeues(accounts.events, accounts.runs)
    if accounts.residue:
        verdict.broken["residue"] += accounts.residue
    return verdict


def _read(events: Iterable[Event], verdict: Verdict) -> dict[str, Told]:
    told: dict[str, Told] = {}
    key_of: dict[str, str] = {}
    for event in events:
        verdict.counts[event.event] += 1
        key = event.key or key_of.get(event.id, "")
        if event.event == "attempt":
            told.setdefault(key, Told()).attempts += 1
            continue
        if not key:
            continue
        of_key = told[key]
        if event.key:  # the end of a submit; those by id are of a GET
            of_key.ended += 1
            of_key.open |= event.event == "unknown" or event.code in OPEN
        if event.event == "acked":
            of_key.ids.append(event.id)
            key_of[event.id] = key
            verdict.accept_s.append(event.took_s)
        elif event.event in ("seen", "ok"):
            of_key.seen.append(event)
        elif event.event == "refused":
            verdict.refusal_s.append(event.took_s)
            if event.id and event.status == 404:
                verdict.broken["lost"].append(f"{key}: GET of {event.id} says 404")
    verdict.counts["jobs"] = len(told)
    verdict.counts["accepted"] = sum(bool(of_key.ids) for of_key in told.values())
    return told


def _judge_key(
    key: str, told: Told, of_key: list[Row], rows: dict[str, Row], verdict: Verdict
) -> None:
    if len({*told.ids, *(row.id for row in of_key)}) > 1:
        ids = sorted({*told.ids, *(row.id for row in of_key)})
        verdict.broken["duplicated"].append(f"{key}: jobs {ids}")
    for acked in sorted(set(told.ids)):
        if acked not in rows:
            verdict.broken["lost"].append(f"{key}: {acked} is not in the database")
        elif rows[acked].state not in TERMINAL:
            verdict.broken["lost"].append(f"{key}: {acked} is {rows[acked].state}")
    if not told.ids and of_key:
        if told.open or told.ended < told.attempts:
            verdict.counts["recovered"] += 1
        else:
            verdict.broken["unexpected"].append(f"{key}: refused, and {of_key[0].id} is there")
    if told.ended < told.attempts:
        verdict.broken["unbounded"].append(f"{key}: {told.attempts - told.ended} calls had no end")
    _judge_seen(key, told.seen, rows, verdict)


def _judge_seen(key: str, seen: list[Event], rows: dict[str, Row], verdict: Verdict) -> None:
    """Answers that overlap in time may come in any order; others may not go back."""
    for number, later in enumerate(seen):
        for earlier in seen[:number]:
            if earlier.id != later.id or earlier.at > later.since:
                continue
            if earlier.attempt > later.attempt:
                verdict.broken["not_monotone"].append(
                    f"{key}: attempt {earlier.attempt}, then {later.attempt}"
                )
            if earlier.state in TERMINAL and earlier.state != later.state:
                verdict.broken["not_monotone"].append(f"{key}: {earlier.state}, {later.state}")
    ends = [event for event in seen if event.event == "ok"]
    if any(end.result != ends[0].result for end in ends):
        verdict.broken["duplicated"].append(f"{key}: two results were shown")
    for end in ends[-1:]:
        row = rows.get(end.id)
        if row and (row.state, row.attempt, row.result) != (end.state, end.attempt, end.result):
            verdict.broken["untruthful"].append(f"{key}: was shown {end.state}, is {row.state}")


def _judge_row(row: Row, told: dict[str, Told], verdict: Verdict) -> None:
    verdict.counts[row.state] += 1
    if row.key not in told:
        verdict.broken["unexpected"].append(f"{row.id}: nobody attempted {row.key!r}")
        return
    if row.owed or row.state not in TERMINAL:
        verdict.broken["residue"].append(f"{row.id}: {row.state}, owed: {row.owed}")
        return
    number = number_of(row.key)
    if row.state != fate(number):
        verdict.broken["wrong"].append(f"{row.key}: {row.state}, had to be {fate(number)}")
    elif row.result != {"succeeded": truth(number, row.version), "failed": REFUSED}.get(
        row.state, row.result
    ):
        verdict.broken["wrong"].append(f"{row.key}: {row.result!r} by version {row.version!r}")


def _judge_calls(events: Iterable[Event], verdict: Verdict) -> None:
    """I3. No gateway answers while it is paused: what overlaps with that is not held against it."""
    events = list(events)
    pauses: dict[int, tuple[float, float]] = {}
    for event in events:
        if event.event == "fault" and event.what == "pause gateway":
            pauses[event.pids[0]] = (event.at, float("inf"))
        elif event.event == "lifted" and event.what == "pause gateway":
            pauses[event.pids[0]] = (pauses[event.pids[0]][0], event.at + GRACE_S)
    for event in events:
        late = event.deadline_s and event.took_s > event.deadline_s + GRACE_S
        if late or event.code == "timeout":
            verdict.counts["timeouts"] += 1
            paused = any(begin < event.at and event.since < end for begin, end in pauses.values())
            if not paused:
                verdict.broken["unbounded"].append(
                    f"{event.key or event.id}: {event.took_s:.3f} s, {event.event} {event.code}"
                )
        if event.event == "refused" and event.status in (429, 503) and not event.retry_after:
            verdict.broken["unbounded"].append(f"{event.key}: {event.code} without Retry-After")
        if event.event == "refused" and event.status in (500, 502):
            verdict.broken["unbounded"].append(f"{event.key or event.id}: {event.status}")


def _judge_readiness(events: Iterable[Event], verdict: Verdict) -> None:
    stopped_at = float("inf")
    for event in sorted(events, key=lambda event: event.at):
        if event.what == ALL_STOPPED:
            stopped_at = event.at if event.event == "fault" else float("inf")
        elif event.event == "probe" and event.status == 200:
            late_s = event.since - stopped_at
            if late_s > READY_LAG_S:
                verdict.broken["untruthful"].append(f"ready {late_s:.1f} s after {ALL_STOPPED}")


def _judge_runs(accounts: Accounts, told: dict[str, Told], verdict: Verdict) -> None:
    runs = Counter(run.number for run in accounts.runs if run.number)
    attempted = {number_of(key) for key in told}
    for number in sorted(runs.keys() - attempted):
        verdict.broken["unexpected"].append(f"{number} was run, and nobody attempted it")
    for row in accounts.rows:
        ran = row.state in ("succeeded", "failed") and row.key in told
        if ran and not runs[number_of(row.key)]:
            verdict.broken["wrong"].append(f"{row.key}: {row.state} without a run")
    repeats = sum(runs.values()) - len(runs)
    verdict.counts["runs"], verdict.counts["repeats"] = sum(runs.values()), repeats
    without = unexplained(accounts.events, accounts.runs)
    if without is None:
        return
    verdict.counts["unexplained"] = len(without)
    if len(without) > accounts.unexplained_most:
        verdict.broken["repeated"] += [
            f"{run.number} by {run.worker} at {run.at}" for run in without
        ]


def _judge_moves(moves: Iterable[Move], verdict: Verdict) -> None:
    ends: Counter[str] = Counter()
    for move in moves:
        if move.old_state in TERMINAL and move.new_state != move.old_state:
            verdict.broken["not_monotone"].append(f"{move.id}: {move.old_state}, {move.new_state}")
        if move.new_attempt < move.old_attempt:
            verdict.broken["not_monotone"].append(
                f"{move.id}: attempt {move.old_attempt}, then {move.new_attempt}"
            )
        ends[move.id] += move.new_state in TERMINAL
    for job, count in ends.items():
        if count > 1:
            verdict.broken["duplicated"].append(f"{job}: {count} ends were committed")


def _compare(api: list[Row], rows: dict[str, Row], verdict: Verdict) -> None:
    for row in api:
        kept = rows.get(row.id)
        if kept is None:
            verdict.broken["untruthful"].append(f"{row.id}: in the API, not in the database")
        elif row[2:6] != kept[2:6]:
            verdict.broken["untruthful"].append(f"{row.id}: API {row[2:6]}, database {kept[2:6]}")
    for missing in sorted(rows.keys() - {row.id for row in api}):
        verdict.broken["untruthful"].append(f"{missing}: in the database, not in the API")


def _judge_faults(events: Iterable[Event], verdict: Verdict) -> None:
    for event in events:
        if event.event == "fault":
            verdict.counts[event.what] += 1
            if not event.proof:
                verdict.broken["void"].append(f"{event.what} {event.pids}: no proof that it acted")


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0
