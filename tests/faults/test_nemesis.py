"""The nemesis: the same seed, the same plan; each strike acts, and shows it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from headrace.testing.house import alive

from . import nemesis
from .ledger import Ledger, read_ledger
from .nemesis import (
    ROLES,
    Ended,
    Nemesis,
    Strike,
    Void,
    children,
    drain,
    kill,
    pause,
    plan,
    resume,
    state,
)


def test_a_seed_is_a_plan() -> None:
    assert plan(7, 50, 20_000) == plan(7, 50, 20_000)
    assert plan(7, 50, 20_000) != plan(8, 50, 20_000)


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_strikes_every_role_in_mid_traffic(seed: int) -> None:
    strikes = plan(seed, 50, 20_000)
    assert Counter(strike.how for strike in strikes) == {"kill": 50, "pause": 8}
    assert {strike.role for strike in strikes if strike.how == "kill"} == set(ROLES)
    assert [strike.after for strike in strikes] == sorted(strike.after for strike in strikes)
    assert strikes[0].after >= 400 and strikes[-1].after <= 19_000


def test_a_plan_can_do_without_pauses_and_without_some_roles() -> None:
    strikes = plan(1, 3, 1000, {"worker": 1, "model": 0}, pauses_a_kill=0)
    assert [strike.how for strike in strikes] == ["kill"] * 3
    assert sorted(strike.role for strike in strikes)[0] == "model"  # each is struck once
    assert plan(1, 0, 1000) == []


class Sleepers:
    """Processes that sleep; killed ones are started again."""

    def __init__(self) -> None:
        self.running = [self._start()]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def pids(self, role: str) -> list[int]:
        return [each.pid for each in self.running if alive(each.pid)]

    def at_work(self, role: str) -> int | None:
        return self.running[-1].pid

    async def revive(self, role: str) -> None:
        self.running.append(self._start())


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    sleepers = Sleepers()
    yield sleepers
    for each in sleepers.running:
        each.kill()
        each.wait()


async def test_kill_pause_and_resume_are_proven(sleepers: Sleepers) -> None:
    [pid] = sleepers.pids("worker")
    assert await pause(pid) == "stopped" and state(pid) == "T"
    assert await resume(pid) == "goes on" and state(pid) != "T"
    assert await kill(pid) == "gone" and not alive(pid)


async def test_a_drain_is_proven(sleepers: Sleepers) -> None:
    [pid] = sleepers.pids("worker")
    assert await drain(pid) == "left" and not alive(pid)


async def test_one_that_does_not_leave_makes_it_void(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nemesis, "LEFT_S", 0.05)
    deaf = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo; exec sleep 60"], stdout=subprocess.PIPE
    )
    assert deaf.stdout
    deaf.stdout.readline()
    with pytest.raises(Void, match="after SIGTERM"):
        await drain(deaf.pid)
    deaf.kill()
    deaf.communicate()


async def test_one_that_ended_while_stopped(sleepers: Sleepers) -> None:
    [pid] = sleepers.pids("worker")
    await pause(pid)
    sleepers.running[0].kill()
    sleepers.running[0].wait()
    assert await resume(pid) == "ended while stopped"


def test_children_are_of_any_thread() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess; subprocess.Popen(['cat']); print(1); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout and parent.stdout.readline()
    assert len(children(parent.pid)) == 1
    parent.communicate()


async def test_a_plan_is_carried_out_at_its_moments(
    sleepers: Sleepers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(nemesis.PAUSE_S, "gateway", 0.02)
    acked, told = 0, []
    strikes = [
        Strike(5, "worker", "kill", 0.3),
        Strike(10, "gateway", "pause", 0.9),
    ]
    with Ledger(tmp_path / "ledger") as ledger:
        acting = asyncio.create_task(
            Nemesis(sleepers, ledger, lambda: acked, lambda: acked >= 20).carry_out(
                strikes, lambda strike: told.append((strike, acked))
            )
        )
        for acked in range(12):  # noqa: B007
            await asyncio.sleep(0.02)
        await acting
    assert [at >= strike.after for strike, at in told] == [True, True]
    events = read_ledger(tmp_path / "ledger")
    assert [(event.event, event.what) for event in events] == [
        ("fault", "kill worker"), ("fault", "pause gateway"), ("lifted", "pause gateway"),
    ]  # fmt: skip
    assert events[0].proof.startswith("gone, ") and events[1].proof.startswith("stopped, ")
    assert events[2].proof == "goes on"


@pytest.mark.parametrize("act", [kill, drain, pause])
async def test_one_that_had_ended_was_not_struck(act: Callable[[int], Awaitable[str]]) -> None:
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert state(ended.pid) == "Z", "it still takes signals"
    with pytest.raises(Ended):
        await act(ended.pid)
    ended.wait()
    with pytest.raises(Ended):
        await act(ended.pid)


async def test_another_one_is_struck_in_the_place_of_one_that_ended(
    sleepers: Sleepers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [first] = sleepers.pids("worker")

    async def ends_first(pid: int) -> str:
        if pid == first:
            await kill(pid)
            await sleepers.revive("worker")
        return await pause(pid)

    monkeypatch.setitem(nemesis.ACTS, "pause", ends_first)
    monkeypatch.setitem(nemesis.PAUSE_S, "worker", 0.02)
    with Ledger(tmp_path / "ledger") as ledger:
        struck = Nemesis(sleepers, ledger, lambda: 9, lambda: False)
        await struck.carry_out([Strike(5, "worker", "pause", 0.0)])
    assert struck.struck == 1
    faults = [event for event in read_ledger(tmp_path / "ledger") if event.event == "fault"]
    assert [event.pids[0] for event in faults] == [sleepers.running[-1].pid], "one that was there"


async def test_traffic_that_is_over_makes_it_void(sleepers: Sleepers, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        struck = Nemesis(sleepers, ledger, lambda: 3, lambda: True)
        with pytest.raises(Void, match="over before"):
            await struck.carry_out([Strike(5, "worker", "kill", 0.3)])
    assert sleepers.pids("worker")


async def test_nobody_to_strike_makes_it_void(
    sleepers: Sleepers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nemesis, "VICTIM_WAIT_S", 0.05)
    await kill(sleepers.running[0].pid)
    with Ledger(tmp_path / "ledger") as ledger:
        struck = Nemesis(sleepers, ledger, lambda: 9, lambda: False)
        with pytest.raises(Void, match="no worker"):
            await struck.carry_out([Strike(5, "worker", "kill", 0.3)])
