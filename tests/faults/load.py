"""Jobs submitted at a bounded rate over several connections, each until it is acked.

    numbers --> connections: POST, again under the same key --> acked --> some are followed: GET

Everything goes into the ledger. What is not answered is unknown, and is tried again at another
gateway; what is refused for now is tried again when the refusal says so, or a second later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Iterable, Iterator
from typing import Any

from headrace.testing.load import Answer, Connection

from .checker import GRACE_S, TERMINAL, Row
from .ledger import Ledger

#: A client's patience. SQLite has one writer at a time, and one that was stopped in the middle of a
#: commit holds all others up for as long as the house waits: 6 s.
DEADLINE_S = 8.0
RETRY_S = (0.02, 0.1, 0.3, 1.0)  # between tries whose end is unknown
RETRY_AFTER_MOST_S = 1.0
FOLLOW_WAIT_S, FOLLOW_EVERY_S = 2.0, 0.1
FOR_NOW = (429, 503, 504)


def row_of(view: dict[str, Any], key: str = "") -> Row:
    """GET /jobs/{id} as a row of the books."""
    problem = view.get("problem")
    result = problem["code"] if problem else view.get("result")
    return Row(view["id"], key, view["state"], view["attempt"], view.get("version") or "", result)


class Caller:
    """One client: calls by turns at the gateways, on one connection to each."""

    def __init__(self, ports: list[int], ledger: Ledger, deadline_s: float, turn: int = 0) -> None:
        self._connections = [Connection(port) for port in ports]
        self._ledger, self._deadline_s, self._turn = ledger, deadline_s, turn

    async def call(
        self, path: str, body: bytes | None, headers: dict[str, str], **about: str
    ) -> Answer | None:
        """None where the end is unknown, or where nobody listens: the ledger knows which."""
        connection = self._connections[self._turn % len(self._connections)]
        since = time.monotonic()
        told = about | {"since": since, "deadline_s": self._deadline_s}
        try:
            async with asyncio.timeout(self._deadline_s + GRACE_S):
                await connection.open()
                return await connection.call(path, body, headers)
        except ConnectionRefusedError:
            self._ledger.enter("refused", code="nobody-listens", **told)
        except TimeoutError:
            self._ledger.enter("unknown", code="timeout", **told)
        except (OSError, asyncio.IncompleteReadError) as error:
            self._ledger.enter("unknown", code=type(error).__name__, **told)
        self._turn += 1
        return None

    def close(self) -> None:
        for connection in self._connections:
            connection.abort()


class JobLoad:
    """Submits `numbers`; `rate` jobs a second; `follow`: of how many acked jobs one is followed to
    its end while others are submitted."""

    def __init__(
        self,
        ports: list[int],
        ledger: Ledger,
        numbers: Iterable[int],
        *,
        run: str = "r",
        model: str = "prove",
        rate: float = 1000.0,
        connections: int = 16,
        deadline_s: float = DEADLINE_S,
        job_deadline_s: float = 600.0,
        give_up_s: float = 120.0,
        follow: int = 10,
        followers: int = 8,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._ports, self._ledger, self._numbers = ports, ledger, iter(numbers)
        self._path, self._run, self._rate = f"/models/{model}/jobs", run, rate
        self._headers = {"headrace-deadline-ms": str(int(job_deadline_s * 1000))} | (headers or {})
        self._connections, self._deadline_s, self._give_up_s = connections, deadline_s, give_up_s
        self._follow, self._followers = follow, followers
        self._to_follow: asyncio.Queue[str | None] = asyncio.Queue()
        #: key -> id of those that were acked, and keys that were given up
        self.acked: dict[str, str] = {}
        self.given_up: list[str] = []
        self._missing: set[str] = set()  # jobs that a GET will not find by asking again
        self.wall_s = 0.0

    async def submit_all(self) -> None:
        """Returns when each number is acked or given up, and each followed job is over."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._followers):
                group.create_task(self._follow_some())
            due = self._dues(began)
            async with asyncio.TaskGroup() as submitting:
                for turn in range(self._connections):
                    submitting.create_task(self._submit_some(turn, due))
            self.wall_s = time.monotonic() - began
            for _ in range(self._followers):
                self._to_follow.put_nowait(None)

    def _dues(self, began: float) -> Iterator[tuple[int, float]]:
        for place, number in enumerate(self._numbers):
            yield number, began + place / self._rate

    async def _submit_some(self, turn: int, due: Iterator[tuple[int, float]]) -> None:
        caller = Caller(self._ports, self._ledger, self._deadline_s, turn)
        with contextlib.closing(caller):
            for number, at in due:
                if (early := at - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                await self._submit(caller, f"{self._run}.{number}", number)

    async def _submit(self, caller: Caller, key: str, number: int) -> None:
        give_up_at = time.monotonic() + self._give_up_s
        headers = self._headers | {"idempotency-key": key}
        body, tries = json.dumps(number).encode(), 0
        while time.monotonic() < give_up_at:
            self._ledger.enter("attempt", key=key)
            since = time.monotonic()
            answer = await caller.call(self._path, body, headers, key=key)
            if answer is None:
                await asyncio.sleep(RETRY_S[min(tries, 3)] * random.uniform(0.5, 1.5))
            elif self._enter(key, answer, since):
                return
            elif answer.status not in FOR_NOW:
                break
            else:
                after_s = float(answer.headers.get("retry-after", 1))
                await asyncio.sleep(min(after_s, RETRY_AFTER_MOST_S) * random.uniform(0.5, 1.0))
            tries += 1
        self.given_up.append(key)

    def _enter(self, key: str, answer: Answer, since: float) -> bool:
        """The end of a submit; whether it was acked."""
        about = {"key": key, "since": since, "deadline_s": self._deadline_s}
        if answer.status not in (200, 202):  # 200: the key's job is over already
            self._ledger.enter(
                "refused", **about, status=answer.status, code=answer.code,
                retry_after="retry-after" in answer.headers,
            )  # fmt: skip
            return False
        job = answer.json["id"]
        self._ledger.enter("acked", **about, id=job, status=answer.status)
        self.acked[key] = job
        if self._follow and len(self.acked) % self._follow == 0:
            self._to_follow.put_nowait(job)
        return True

    # -- GET -----------------------------------------------------------------------------------

    async def _follow_some(self) -> None:
        with contextlib.closing(Caller(self._ports, self._ledger, self._deadline_s)) as caller:
            while (job := await self._to_follow.get()) is not None:
                await self._follow_one(caller, job)

    async def _follow_one(self, caller: Caller, job: str) -> None:
        give_up_at = time.monotonic() + self._give_up_s
        while time.monotonic() < give_up_at:
            row = await self._look(caller, job, {"prefer": f"wait={FOLLOW_WAIT_S:g}"})
            if (row is not None and row.state in TERMINAL) or job in self._missing:
                return
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def _look(self, caller: Caller, job: str, headers: dict[str, str]) -> Row | None:
        since = time.monotonic()
        answer = await caller.call(f"/jobs/{job}", None, headers, id=job)
        if answer is None:
            return None
        about = {"id": job, "since": since, "deadline_s": self._deadline_s, "status": answer.status}
        if answer.status != 200:
            if answer.status not in FOR_NOW:
                self._missing.add(job)
            self._ledger.enter(
                "refused", **about, code=answer.code, retry_after="retry-after" in answer.headers
            )
            return None
        row = row_of(answer.json)
        self._ledger.enter(
            "ok" if row.state in TERMINAL else "seen", **about,
            state=row.state, attempt=row.attempt, version=row.version, result=row.result,
        )  # fmt: skip
        return row

    async def look_at(self, jobs: Iterable[str]) -> list[Row]:
        """The API's word on each, when all is quiet. Who is refused asks again; those that have no
        answer for so long that a submit would be given up are left out."""
        keys = {job: key for key, job in self.acked.items()}
        found: list[Row] = []
        todo = iter(jobs)

        async def some(turn: int) -> None:
            with contextlib.closing(
                Caller(self._ports, self._ledger, self._deadline_s, turn)
            ) as caller:
                for job in todo:
                    give_up_at = time.monotonic() + self._give_up_s
                    while (row := await self._look(caller, job, {})) is None:
                        if time.monotonic() > give_up_at or job in self._missing:
                            break
                        await asyncio.sleep(random.uniform(0.1, 0.5))
                    if row is not None:
                        found.append(row._replace(key=keys.get(job, "")))

        await asyncio.gather(*(some(turn) for turn in range(self._connections)))
        return found
