"""A scene, a ledger and loads, judged together at the end.

async with Play(folder, workers=2) as play:
    load = play.load(range(1, 101))
    ...                                 # strikes, loads, probes
assert play.verdict.good
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from .checker import Accounts, Verdict, check
from .ledger import Event, Ledger, read_ledger
from .load import JobLoad
from .models import read_runs
from .scene import Scene

#: Of the jobs: those that may run twice without a strike, as the host keeps the processor now and
#: then for longer than a lease.
STOLEN_SHARE = 0.005
QUIET_S = 60.0  # without an end of any job: what is not over then is lost


class Play:
    """When it is left: all is quiet, the API and the database are asked, the house is stopped, and
    `verdict` says what is to be said."""

    def __init__(
        self,
        folder: Path,
        *,
        quiet_s: float = QUIET_S,
        stage: Callable[[str], None] = lambda _: None,
        **scene: Any,
    ) -> None:
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.scene = Scene(folder, **scene)
        self.loads: list[JobLoad] = []
        self._quiet_most_s, self._stage = quiet_s, stage
        self.quiet_s = 0.0
        self.verdict = Verdict()

    def load(self, numbers: Iterable[int], **how: Any) -> JobLoad:
        load = JobLoad([self.scene.port], self.ledger, numbers, **how)
        self.loads.append(load)
        return load

    def fault(self, what: str, proof: str, *pids: int) -> None:
        self.ledger.enter("fault", what=what, pids=list(pids), proof=proof)

    def lifted(self, what: str, proof: str, *pids: int) -> None:
        self.ledger.enter("lifted", what=what, pids=list(pids), proof=proof)

    def events(self) -> list[Event]:
        """What came to the disk so far."""
        return read_ledger(self.ledger.path)

    async def __aenter__(self) -> Self:
        try:
            await self.scene.__aenter__()
        except BaseException:
            self.ledger.close()
            raise
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        accounts: Accounts | None = None
        try:
            if kind is None:
                accounts = await self._end()
            else:
                print(self.scene.house.tail())  # pytest shows it with the failure
        finally:
            await self.scene.__aexit__(None)
            self.ledger.close()
        if accounts is not None:
            events = self.events()
            accounts.events, accounts.residue = events, self.scene.residue
            accounts.unexplained_most = int(STOLEN_SHARE * len(accounts.rows))
            self.verdict = check(accounts)

    async def _end(self) -> Accounts:
        books = self.scene.books
        self._stage("until all is over")
        await self.quiet()
        self._stage("judged")
        acked = {job for load in self.loads for job in load.acked.values()}
        jobs = sorted({row.id for row in await books.rows()} | acked)
        api = await self.loads[0].look_at(jobs) if self.loads else []
        await self.scene.stop_house()
        rows, moves = await books.rows(), await books.moves()
        keys = {row.id: row.key for row in rows}
        api = [row._replace(key=keys.get(row.id, row.key)) for row in api]
        return Accounts([], read_runs(self.scene.runs), rows, api, moves)

    async def quiet(self) -> None:
        """Until no job has anything ahead, or none has ended for too long: then the checker will
        say what is left."""
        began = moved = time.monotonic()
        fewest = await self.scene.books.open()
        while fewest and time.monotonic() - moved < self._quiet_most_s:
            await asyncio.sleep(0.1)
            still = await self.scene.books.open()
            if still < fewest:
                fewest, moved = still, time.monotonic()
            self.quiet_s = time.monotonic() - began
