"""Kills and pauses by chance, in the middle of the traffic, that the same seed repeats.

A plan says at which number of acked jobs whom is struck, and how. Each strike proves that it acted
(the process is gone, the process is stopped), or the run is void; where its victim ended by itself
meanwhile another one is struck in its place.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from headrace.testing.house import alive

from .ledger import Ledger

ROLES = {"worker": 4, "model": 3, "gateway": 2, "clerk": 1, "broker": 1}
#: Longer than a lease for workers, within a client's patience for those who answer it.
PAUSE_S = {"worker": 4.0, "model": 4.0, "gateway": 1.5, "clerk": 3.0, "broker": 1.5}
PAUSES_A_KILL = 0.15
FIRST, LAST = 0.02, 0.95  # of the acked jobs: before and after there is no traffic to disturb
VICTIM_WAIT_S = 30.0
GONE_S = 5.0
LEFT_S = 40.0  # after SIGTERM


class Void(Exception):
    """A strike that did not act: the run says nothing."""


class Ended(Exception):
    """The victim was gone before it was struck: no strike."""


class Strike(NamedTuple):
    """`how`: kill, drain or pause. `chance` (0 to 1) draws the victim from those that there are
    then."""

    after: int
    role: str
    how: str
    chance: float

    @property
    def what(self) -> str:
        return f"{self.how} {self.role}"


def plan(
    seed: int,
    kills: int,
    jobs: int,
    roles: Mapping[str, int] = ROLES,
    pauses_a_kill: float = PAUSES_A_KILL,
) -> list[Strike]:
    """In the order of their moments: so many kills, and pauses beside them. Each role with a weight
    is killed, where there are enough kills for that."""
    dice = random.Random(seed)
    names, weights = list(roles), list(roles.values())
    pauses = round(kills * pauses_a_kill)
    killed = [*names, *dice.choices(names, weights, k=max(0, kills - len(names)))][:kills]
    acts = [("kill", role) for role in killed]
    acts += [("pause", role) for role in dice.choices(names, weights, k=pauses)]
    dice.shuffle(acts)
    moments = sorted(int(dice.uniform(FIRST, LAST) * jobs) for _ in acts)
    return [
        Strike(at, role, how, dice.random()) for at, (how, role) in zip(moments, acts, strict=True)
    ]


class Victims(Protocol):
    """Who can be struck: a house, or a house and services of its own."""

    def pids(self, role: str) -> list[int]: ...

    def at_work(self, role: str) -> int | None:
        """A worker or model that began a batch just now."""

    async def revive(self, role: str) -> None:
        """After a kill, for those that nobody else starts again."""


def state(pid: int) -> str:
    """R, S, D, T (stopped), Z; "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """Of all threads of a process."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, listed.read_text().split())
        except OSError:
            continue  # the thread ended
    return found


def there(pid: int) -> bool:
    """Runs, or could: neither stopped nor ended."""
    return state(pid) in ("R", "S", "D")


def _signal(pid: int, number: signal.Signals) -> None:
    """Raises Ended. A process that nobody has waited for takes signals, too, and heeds none."""
    if not there(pid):
        raise Ended(pid)
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise Ended(pid) from None


async def becomes(true: Callable[[], bool], within_s: float, every_s: float = 0.002) -> bool:
    end_at = time.monotonic() + within_s
    while not true():
        if time.monotonic() > end_at:
            return False
        await asyncio.sleep(every_s)
    return True


async def kill(pid: int) -> str:
    """The proof that it is gone. Raises Ended, Void."""
    _signal(pid, signal.SIGKILL)
    if not await becomes(lambda: not alive(pid), GONE_S):
        raise Void(f"{pid} is still there {GONE_S:g} s after SIGKILL")
    return "gone"


async def drain(pid: int) -> str:
    """Told to leave in order; the proof that it has. Raises Ended, Void."""
    _signal(pid, signal.SIGTERM)
    if not await becomes(lambda: not alive(pid), LEFT_S):
        raise Void(f"{pid} is still there {LEFT_S:g} s after SIGTERM")
    return "left"


async def pause(pid: int) -> str:
    """The proof that it is stopped. Raises Ended, also where somebody else ended it before it
    stopped, Void."""
    _signal(pid, signal.SIGSTOP)
    if not await becomes(lambda: not there(pid), GONE_S):
        raise Void(f"{pid} is {state(pid)!r} {GONE_S:g} s after SIGSTOP")
    if state(pid) != "T":
        raise Ended(pid)
    return "stopped"


ACTS = {"kill": kill, "drain": drain, "pause": pause}


async def resume(pid: int) -> str:
    """The proof that it goes on, or that somebody else has ended it meanwhile. Raises Void."""
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return "ended while stopped"
    if not await becomes(lambda: state(pid) != "T", GONE_S):
        raise Void(f"{pid} is still stopped {GONE_S:g} s after SIGCONT")
    return "goes on"


class Nemesis:
    """Carries out a plan. `acked` says how far the traffic is, `over` whether it is past.
    `at_work`: workers and models are struck in the middle of a batch alone; `apart_s`: strikes are
    no closer to one another."""

    def __init__(
        self,
        victims: Victims,
        ledger: Ledger,
        acked: Callable[[], int],
        over: Callable[[], bool],
        *,
        at_work: bool = False,
        apart_s: float = 0.0,
    ) -> None:
        self._victims, self._ledger = victims, ledger
        self._at_work, self._apart_s = at_work, apart_s
        self._acked, self._over = acked, over
        self.struck = 0

    async def carry_out(
        self, strikes: list[Strike], told: Callable[[Strike], None] = lambda _: None
    ) -> None:
        """A pause runs beside the strikes that follow it. Raises Void."""
        paused: list[Awaitable[None]] = []
        try:
            for strike in strikes:
                while self._acked() < strike.after and not self._over():
                    await asyncio.sleep(0.005)
                if self._over():
                    raise Void(f"the traffic was over before {strike}")
                pause_of = await self._act(strike)
                if pause_of is not None:
                    paused.append(asyncio.create_task(self._let_go(strike, pause_of)))
                told(strike)
                await asyncio.sleep(self._apart_s)
        finally:
            await asyncio.gather(*paused)

    async def _act(self, strike: Strike) -> int | None:
        """The pid, if it is paused."""
        while True:
            pid = await self._victim(strike)
            kin = [pid, *(children(pid) if strike.role == "worker" else [])]
            at = time.monotonic()
            try:
                proof = await ACTS[strike.how](pid)
                break
            except Ended:
                continue  # by itself since we looked: another one
        self._ledger.enter(
            "fault", at=at, what=strike.what, pids=kin, proof=f"{proof}, {self._acked()} acked"
        )
        self.struck += 1
        if strike.how != "pause":
            await self._victims.revive(strike.role)
        return pid if strike.how == "pause" else None

    async def _victim(self, strike: Strike) -> int:
        """Nobody who is stopped: he would not notice. Raises Void."""
        found: list[int] = []
        role = strike.role
        working = self._at_work and role in ("worker", "model")

        def found_some() -> bool:
            pids = [self._victims.at_work(role)] if working else self._victims.pids(role)
            found[:] = [pid for pid in pids if pid and there(pid)]
            return bool(found)

        if not await becomes(found_some, VICTIM_WAIT_S, every_s=0.002 if working else 0.05):
            raise Void(f"no {strike.role} to strike in {VICTIM_WAIT_S:g} s")
        return found[int(strike.chance * len(found))]

    async def _let_go(self, strike: Strike, pid: int) -> None:
        await asyncio.sleep(PAUSE_S[strike.role])
        proof = await resume(pid)
        self._ledger.enter("lifted", what=strike.what, pids=[pid], proof=proof)
