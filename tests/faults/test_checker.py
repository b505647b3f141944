"""The checker on hand-made accounts: a good one passes, each kind of harm is called by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from .checker import ALL_STOPPED, Accounts, Move, Row, check, quantile
from .ledger import Event
from .models import REFUSED, Run, fate, note, read_runs, truth


def attempt(number: int, at: float = 1.0) -> Event:
    return Event("attempt", at, key=f"r.{number}")


def acked(number: int, job: str, at: float = 1.1) -> Event:
    return Event("acked", at, since=at - 0.1, key=f"r.{number}", id=job, status=202)


def unknown(number: int, code: str = "IncompleteReadError") -> Event:
    return Event("unknown", 1.1, since=1.0, key=f"r.{number}", code=code)


def refused(number: int, status: int = 503, code: str = "overloaded", **more: object) -> Event:
    fields: dict[str, object] = {"retry_after": status in (429, 503)} | more
    return Event("refused", 1.1, since=1.0, key=f"r.{number}", status=status, code=code, **fields)  # type: ignore[arg-type]


def seen(job: str, state: str, tried: int, at: float, since: float, *result: object) -> Event:
    kind = "ok" if state in ("succeeded", "failed", "dead") else "seen"
    return Event(
        kind, at, since=since, id=job, state=state, attempt=tried, result=[*result, None][0]
    )


def row(number: int, job: str, state: str = "succeeded", **more: object) -> Row:
    made = Row(job, f"r.{number}", state, 1, "1", truth(number, "1"))
    return made._replace(**more)


def run(number: int, pid: int = 10, at: float = 2.0) -> Run:
    return Run(number, pid, pid - 1, at, "1")


def good() -> Accounts:
    """1 acked at once, 2 acked at the second try, 3 unknown and recovered, 4 refused, 5 unknown and
    not there, 6 acked and refused by the model (49)."""
    return Accounts(
        events=[
            attempt(1), acked(1, "a"),
            attempt(2), unknown(2), attempt(2), acked(2, "b"),
            attempt(3), unknown(3),
            attempt(4), refused(4),
            attempt(5), unknown(5),
            attempt(49), acked(49, "f"),
            seen("a", "waiting", 0, 1.3, 1.2), seen("a", "running", 1, 1.5, 1.4),
            seen("a", "succeeded", 1, 1.7, 1.6, truth(1, "1")),
        ],
        runs=[run(0), run(0), run(1), run(2), run(3), run(49)],
        rows=[row(1, "a"), row(2, "b"), row(3, "c"), row(49, "f", "failed", result=REFUSED)],
        moves=[
            Move("a", "waiting", "running", 0, 1),
            Move("a", "running", "succeeded", 1, 1),
        ],
    )  # fmt: skip


def test_a_good_run_is_good() -> None:
    verdict = check(good())
    assert verdict.good, verdict.told()
    assert {name: verdict.counts[name] for name in ("jobs", "accepted", "recovered", "runs")} == {
        "jobs": 6, "accepted": 3, "recovered": 1, "runs": 4,
    }  # fmt: skip
    assert verdict.counts["repeats"] == 0
    assert verdict.accept_s == pytest.approx([0.1] * 3)


def broken(accounts: Accounts) -> set[str]:
    return set(check(accounts).broken)


def test_lost_is_acked_and_not_there() -> None:
    accounts = good()
    accounts.rows = accounts.rows[1:]
    accounts.events = [event for event in accounts.events if not event.state]
    assert broken(accounts) == {"lost"}


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_lost_is_acked_and_never_over(state: str) -> None:
    accounts = good()
    accounts.rows[1] = row(2, "b", state, result=None)
    assert broken(accounts) == {"lost", "residue"}


def test_lost_is_acked_and_unknown_to_get() -> None:
    accounts = good()
    accounts.events.append(Event("refused", 3.0, since=2.9, id="b", status=404, code="not-found"))
    assert broken(accounts) == {"lost"}


def test_an_unknown_one_that_is_not_there_is_not_lost_but_left_half_done_is_residue() -> None:
    accounts = good()
    accounts.rows[2] = row(3, "c", "running", result=None)
    assert broken(accounts) == {"residue"}


def test_an_outbox_entry_that_nobody_settled() -> None:
    accounts = good()
    accounts.rows[1] = row(2, "b", owed=True)
    assert broken(accounts) == {"residue"}


def test_duplicated_is_one_key_with_two_jobs() -> None:
    accounts = good()
    accounts.rows.append(row(2, "b2"))
    assert broken(accounts) == {"duplicated"}


def test_duplicated_is_one_key_acked_with_two_ids() -> None:
    accounts = good()
    accounts.events += [attempt(2), acked(2, "b2")]
    assert broken(accounts) == {"duplicated", "lost"}


def test_duplicated_is_one_job_whose_end_was_committed_twice() -> None:
    accounts = good()
    assert accounts.moves is not None
    accounts.moves.append(Move("a", "succeeded", "succeeded", 1, 1))
    assert broken(accounts) == {"duplicated"}


def test_duplicated_is_two_results_shown() -> None:
    accounts = good()
    accounts.events.append(seen("a", "succeeded", 1, 2.0, 1.9, truth(1, "2")))
    assert broken(accounts) == {"duplicated", "untruthful"}


def test_unexpected_is_a_job_nobody_attempted() -> None:
    accounts = good()
    accounts.rows.append(row(7, "g"))
    accounts.runs.append(run(7))
    assert broken(accounts) == {"unexpected"}


def test_unexpected_is_a_job_without_a_key() -> None:
    accounts = good()
    accounts.rows.append(row(7, "g", key=""))
    assert broken(accounts) == {"unexpected"}


def test_unexpected_is_a_job_that_was_refused() -> None:
    accounts = good()
    accounts.rows.append(row(4, "d"))
    accounts.runs.append(run(4))
    assert broken(accounts) == {"unexpected"}


def test_a_refusal_that_leaves_it_open_is_an_unknown() -> None:
    accounts = good()
    accounts.events += [attempt(6), refused(6, 503, "storage-unavailable")]
    accounts.rows.append(row(6, "e"))
    accounts.runs.append(run(6))
    verdict = check(accounts)
    assert verdict.good, verdict.told()
    assert verdict.counts["recovered"] == 2


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (1, {"result": truth(1, "2")}),
        (1, {"result": truth(2, "1")}),
        (1, {"result": None}),
        (1, {"state": "dead"}),
        (1, {"state": "expired"}),
        (49, {"state": "succeeded", "result": truth(49, "1")}),
        (49, {"result": "model-failed"}),
    ],
)
def test_wrong_ends_and_results(number: int, change: dict[str, object]) -> None:
    accounts = good()
    accounts.events = [event for event in accounts.events if not event.state]
    accounts.rows = [
        each._replace(**change) if each.key == f"r.{number}" else each for each in accounts.rows
    ]
    assert broken(accounts) == {"wrong"}


def test_wrong_is_a_result_without_a_run() -> None:
    accounts = good()
    accounts.runs = [each for each in accounts.runs if each.number != 2]
    assert broken(accounts) == {"wrong"}


def test_poison_must_end_dead() -> None:
    accounts = good()
    accounts.events += [attempt(-3), acked(-3, "p")]
    accounts.rows.append(row(-3, "p", "dead", result="poison-input"))
    assert check(accounts).good
    accounts.rows[-1] = row(-3, "p", "failed", result="poison-input")
    assert broken(accounts) == {"wrong"}


def test_not_monotone_is_what_goes_back_before_a_client() -> None:
    accounts = good()
    accounts.events.append(seen("a", "running", 1, 2.0, 1.9))
    assert broken(accounts) == {"not_monotone"}
    accounts = good()
    accounts.events.insert(-1, seen("a", "waiting", 0, 1.6, 1.55))
    assert broken(accounts) == {"not_monotone"}


def test_answers_that_overlap_may_come_in_any_order() -> None:
    accounts = good()
    accounts.events.append(seen("a", "waiting", 0, 1.8, 1.25))
    assert check(accounts).good


@pytest.mark.parametrize(
    "move",
    [
        Move("a", "succeeded", "waiting", 1, 1),
        Move("b", "cancelled", "succeeded", 1, 1),
        Move("b", "running", "running", 2, 1),
    ],
)
def test_not_monotone_is_what_goes_back_in_the_database(move: Move) -> None:
    accounts = good()
    assert accounts.moves is not None
    accounts.moves.append(move)
    assert broken(accounts) == {"not_monotone"}


def test_unbounded_is_a_call_that_came_to_no_end() -> None:
    accounts = good()
    accounts.events.append(attempt(5))
    assert broken(accounts) == {"unbounded"}


def test_unbounded_is_an_answer_after_deadline_and_grace() -> None:
    accounts = good()
    late = Event("acked", 8.1, since=2.0, key="r.1", id="a", deadline_s=5.0)
    accounts.events += [attempt(1), late]
    assert broken(accounts) == {"unbounded"}
    late.deadline_s = 5.2
    assert check(accounts).good


def test_a_timeout_is_unbounded_unless_a_gateway_was_paused_then() -> None:
    accounts = good()
    accounts.events += [attempt(5), unknown(5, "timeout")]
    assert broken(accounts) == {"unbounded"}
    stopped = {"what": "pause gateway", "pids": [5], "proof": "stopped"}
    accounts.events += [Event("fault", 1.05, **stopped), Event("lifted", 2.0, **stopped)]  # type: ignore[arg-type]
    verdict = check(accounts)
    assert verdict.good, verdict.told()
    assert verdict.counts["timeouts"] == 1


@pytest.mark.parametrize(
    "event", [refused(4, retry_after=False), refused(4, 500, "internal"), refused(4, 502, "x")]
)
def test_unbounded_is_a_bad_refusal(event: Event) -> None:
    accounts = good()
    accounts.events += [attempt(4), event]
    assert broken(accounts) == {"unbounded"}


def test_untruthful_is_an_api_that_says_what_the_database_does_not() -> None:
    accounts = good()
    accounts.api = list(accounts.rows)
    assert check(accounts).good
    accounts.api[0] = row(1, "a", attempt=2)
    assert broken(accounts) == {"untruthful"}
    accounts.api = accounts.rows[1:]
    assert broken(accounts) == {"untruthful"}
    accounts.api = [*accounts.rows, row(9, "z")]
    assert broken(accounts) == {"untruthful"}


def test_second_runs_are_counted_apart_and_a_strike_has_to_explain_each() -> None:
    accounts = good()
    accounts.runs += [run(1, at=3.0), run(1, pid=20, at=4.0)]
    counts = ("runs", "repeats", "unexplained")
    verdict = check(accounts)
    assert set(verdict.broken) == {"repeated"}
    assert [verdict.counts[name] for name in counts] == [6, 2, 2]
    assert check(replace(accounts, unexplained_most=2)).good
    accounts.events.append(Event("fault", 3.5, what="kill worker", pids=[9, 10], proof="gone"))
    assert check(replace(accounts, unexplained_most=1)).good
    verdict = check(accounts)
    assert set(verdict.broken) == {"repeated"}
    assert [verdict.counts[name] for name in counts] == [6, 2, 1]


def test_unexpected_is_a_run_of_what_nobody_attempted() -> None:
    accounts = good()
    accounts.runs.append(run(77))
    assert broken(accounts) == {"unexpected"}


def test_what_the_house_left_is_residue() -> None:
    assert broken(replace(good(), residue=["17: nats-server"])) == {"residue"}


def test_a_fault_without_proof_makes_the_run_void() -> None:
    accounts = good()
    accounts.events.append(Event("fault", 2.0, what="kill worker", pids=[9], proof="gone"))
    assert check(accounts).good
    accounts.events.append(Event("fault", 2.0, what="kill worker", pids=[9]))
    assert broken(accounts) == {"void"}


def test_a_ledger_of_nothing_says_nothing_wrong_but_counts_nothing() -> None:
    verdict = check(Accounts([], [], []))
    assert verdict.good and verdict.counts["accepted"] == 0


def test_the_model_notes_runs_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs"
    assert read_runs(path) == []
    monkeypatch.setenv("HEADRACE_FAULTS_RUNS", str(path))
    note([1, 2], "1")
    note([3], "2")
    assert [(each.number, each.version) for each in read_runs(path)] == [
        (1, "1"),
        (2, "1"),
        (3, "2"),
    ]
    assert [fate(number) for number in (-1, 48, 49, 99)] == [
        "dead",
        "succeeded",
        "failed",
        "failed",
    ]


def test_quantile() -> None:
    assert quantile([], 0.5) == 0
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([3, 1, 2], 0.99) == 3


def readiness(*probes: tuple[float, int]) -> list[Event]:
    """Every worker is stopped from 100 to 110."""
    return [
        Event("fault", 100.0, what=ALL_STOPPED, pids=[1], proof="stopped"),
        Event("lifted", 110.0, what=ALL_STOPPED, pids=[1], proof="goes on"),
        *(Event("probe", at, since=at - 0.01, status=status) for at, status in probes),
    ]


def test_ready_while_nobody_can_work_is_untruthful() -> None:
    honest = readiness((99.0, 200), (104.0, 200), (106.0, 503), (110.5, 200))
    assert check(Accounts(honest, [], [])).good
    verdict = check(Accounts(readiness((106.0, 200)), [], []))
    assert set(verdict.broken) == {"untruthful"}
