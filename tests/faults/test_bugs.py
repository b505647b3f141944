"""Bugs on purpose, in processes of a real house: the checker calls each by its name.

A run that says nothing of a bug that acted would say nothing of any house.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .checker import ALL_STOPPED, Accounts, check
from .ledger import Ledger, read_ledger
from .nemesis import Strike, pause, resume
from .run import Asked, Outcome, run
from .scene import BUG, HERE, Scene


def test_a_bug_that_nobody_knows_is_an_error() -> None:
    environment = {BUG: "no-such-bug", "PYTHONPATH": str(HERE / "bugs")}
    ended = subprocess.run(
        [sys.executable, "-c", ""], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0 and "no bug no-such-bug" in ended.stderr


async def of(
    folder: Path,
    bug: str,
    *strikes: tuple[int, str, str],
    jobs: int = 200,
    rate: float = 200.0,
    environment: dict[str, str] | None = None,
    **more: object,
) -> Outcome:
    """A run with the bug; the strikes come after so many runs of the model."""
    small = {
        "connections": 16,
        "gateways": 1,
        "workers": 2,
        "clerks": 1,
        "quiet_s": 8.0,
        "follow": 0,
        "at_work": True,  # who has nothing in hand shows no bug
    }
    asked = Asked(jobs=jobs, kills=0, bug=bug, rate=rate, **(small | more))  # type: ignore[arg-type]
    chosen = [Strike(after, role, how, 0.5) for after, how, role in strikes]
    outcome = await run(asked, folder, strikes=chosen, environment=environment)
    assert outcome.acted == set(bug.split(",")), f"{bug} did nothing: the run says nothing"
    return outcome


def found(outcome: Outcome, kind: str, words: str = "") -> bool:
    return any(words in told for told in outcome.verdict.broken.get(kind, []))


#: More than the workers can do, so that each of them is at work when it is struck.
BURST = {"rate": 2000.0, "connections": 32, "work_ms": 200.0}
#: SQLite has one lock for all who write: where the paused one holds it, nobody gets its jobs.
PAUSED = BURST | {"database": "postgresql"}
#: One worker, with a batch under way and the next one in its hands.
QUEUE = {"rate": 2000.0, "connections": 32, "work_ms": 90.0, "workers": 1, "jobs": 400}


async def test_202_before_the_commit(tmp_path: Path) -> None:
    """Each gateway dies before its fifth commit."""
    outcome = await of(
        tmp_path, "early-202", jobs=60,
        environment={"HEADRACE_FAILPOINTS": "gateway.submitting=kill@5"},
    )  # fmt: skip
    assert found(outcome, "lost", "is not in the database"), outcome.verdict.told()


async def test_no_outbox(tmp_path: Path) -> None:
    """Committed, not published, and nobody looks."""
    outcome = await of(tmp_path, "no-outbox,drop-publish", jobs=60)
    assert found(outcome, "lost", "is waiting"), outcome.verdict.told()


async def test_a_claim_without_end(tmp_path: Path) -> None:
    outcome = await of(tmp_path, "no-lease", (60, "kill", "worker"), **BURST)
    assert found(outcome, "lost", "is running"), outcome.verdict.told()


async def test_a_drain_that_forgets_what_is_queued(tmp_path: Path) -> None:
    outcome = await of(tmp_path, "forget-queued,no-way-back", (200, "drain", "worker"), **QUEUE)
    assert found(outcome, "lost", "is running"), outcome.verdict.told()


async def test_what_is_behind_makes_good(tmp_path: Path) -> None:
    """Three bugs that lose jobs elsewhere: lost publications, acks before the run, a drain that
    forgets. The clerk sees to all of them, and the verdict is good."""
    outcome = await of(
        tmp_path, "drop-publish,ack-first,forget-queued", (100, "kill", "worker"),
        (200, "drain", "worker"), quiet_s=60.0, **QUEUE,
    )  # fmt: skip
    assert outcome.verdict.good, outcome.verdict.told()


async def test_a_key_that_is_not_looked_up(tmp_path: Path) -> None:
    """Each gateway dies when it has committed twice, and not yet answered the second time."""
    outcome = await of(
        tmp_path, "no-dedup", jobs=24, connections=8,
        environment={"HEADRACE_FAILPOINTS": "gateway.submitted=kill@2"},
    )  # fmt: skip
    assert found(outcome, "duplicated", "jobs ["), outcome.verdict.told()


async def test_no_fencing(tmp_path: Path) -> None:
    """A worker that was paused for longer than its lease comes back with results."""
    outcome = await of(tmp_path, "no-fencing", (60, "pause", "worker"), **PAUSED)
    assert found(outcome, "duplicated", "ends were committed"), outcome.verdict.told()


async def test_a_claim_of_what_is_over(tmp_path: Path) -> None:
    outcome = await of(tmp_path, "any-claim", (60, "pause", "worker"), **PAUSED)
    assert found(outcome, "not_monotone"), outcome.verdict.told()


async def test_calls_without_an_answer(tmp_path: Path) -> None:
    patience = {"HEADRACE_GATEWAY__DRAIN_S": "1"}
    outcome = await of(tmp_path, "hung-call", jobs=40, environment=patience)
    assert found(outcome, "unbounded", "timeout"), outcome.verdict.told()


async def test_results_that_are_swapped(tmp_path: Path) -> None:
    outcome = await of(tmp_path, "swapped", jobs=100, **BURST)
    assert found(outcome, "wrong"), outcome.verdict.told()


async def test_a_folder_left_behind(tmp_path: Path) -> None:
    outcome = await of(tmp_path, "left-behind", jobs=20)
    assert set(outcome.verdict.broken) == {"residue"}, outcome.verdict.told()


@pytest.mark.parametrize("bug", ["", "always-ready"])
async def test_readiness(bug: str, tmp_path: Path) -> None:
    """Every worker is stopped for 7 s: an honest house says so."""
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        async with Scene(tmp_path, bug=bug, gateways=1, workers=2, clerks=1) as scene:
            pids = scene.pids("worker")
            proofs = [await pause(pid) for pid in pids]
            ledger.enter("fault", what=ALL_STOPPED, pids=pids, proof=", ".join(proofs))
            end = time.monotonic() + 7.0
            while time.monotonic() < end:
                since = time.monotonic()
                answer = await scene.house.health()
                assert answer is not None
                ledger.enter("probe", since=since, status=answer.status)
                await asyncio.sleep(0.1)
            proofs = [await resume(pid) for pid in pids]
            ledger.enter("lifted", what=ALL_STOPPED, pids=pids, proof=", ".join(proofs))
        assert scene.acted() == ({bug} if bug else set())
    verdict = check(Accounts(read_ledger(ledger.path), [], []))
    assert set(verdict.broken) == ({"untruthful"} if bug else set()), verdict.told()
