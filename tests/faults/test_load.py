"""The load against a jobs API that misbehaves on purpose: what it writes down is what happened, and
the checker says of each lie which it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from .checker import Accounts, Row, Verdict, check
from .ledger import Ledger, read_ledger
from .load import JobLoad
from .models import REFUSED, Run, fate, truth

Answer = tuple[int, dict[str, Any]]


class Api:
    """Jobs in a dict; each job has ended by the second GET. `on_submit`: what happens to the n-th
    submit in place of an honest answer; None: nothing."""

    def __init__(self, on_submit: Callable[[int], str | None] = lambda _: None) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self.gets: Counter[str] = Counter()
        self.submits, self._on_submit = 0, on_submit
        self.dedup = True

    async def met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = head.split("\r\n")[0].split()
                act = None
                if method == "post":
                    self.submits += 1
                    act = self._on_submit(self.submits)
                if act == "reset before":
                    break
                answer = (
                    self.submit(headers["idempotency-key"], json.loads(body), act)
                    if method == "post"
                    else self.get(path.rpartition("/")[2])
                )
                if act == "reset after":
                    break
                self._write(writer, *answer)
        writer.close()

    def _write(self, writer: asyncio.StreamWriter, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        retry = "retry-after: 0\r\n" if status == 503 else ""
        writer.write(b"HTTP/1.1 %d x\r\n%scontent-length: %d\r\n\r\n%s" % (
            status, retry.encode(), len(data), data,
        ))  # fmt: skip

    def submit(self, key: str, number: int, act: str | None) -> Answer:
        if act == "refuse":
            return 503, {"code": "overloaded"}
        if act == "refuse for good":
            return 422, {"code": "validation-failed"}
        job = self.keys.get(key) if self.dedup else None
        if job is None:
            job = f"j{len(self.keys)}-{self.submits}"
            if act != "forget":
                self.jobs[job] = {"id": job, "key": key, "number": number, "state": "waiting"}
            self.keys[key] = job
        return 202, {"id": job}

    def get(self, job: str) -> Answer:
        if job not in self.jobs:
            return 404, {"code": "not-found"}
        self.gets[job] += 1
        view = dict(self.jobs[job], attempt=0, result=None, version=None, problem=None)
        if self.gets[job] > 1:
            row = self.row(job)
            view |= {"state": row.state, "attempt": 1, "version": "1"}
            ended = "result" if row.state == "succeeded" else "problem"
            view[ended] = row.result if ended == "result" else {"code": row.result}
        return 200, view

    def row(self, job: str) -> Row:
        kept = self.jobs[job]
        number, state = kept["number"], fate(kept["number"])
        result = truth(number, "1") if state == "succeeded" else REFUSED
        return Row(job, kept["key"], state, 1, "1", result)

    def rows(self) -> list[Row]:
        return [self.row(job) for job in self.jobs]


@contextlib.asynccontextmanager
async def serving(api: Api) -> AsyncIterator[int]:
    server = await asyncio.start_server(api.met, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.sleep(0.01)


async def judge(
    api: Api, tmp_path: Path, jobs: int = 200, ports: int = 1, **options: Any
) -> tuple[Verdict, JobLoad]:
    async with contextlib.AsyncExitStack() as stack:
        listening = [await stack.enter_async_context(serving(api)) for _ in range(ports)]
        ledger = stack.enter_context(Ledger(tmp_path / "ledger"))
        load = JobLoad(listening, ledger, range(1, jobs + 1), rate=5000, connections=4, **options)
        await load.submit_all()
        for _ in range(2):
            seen = await load.look_at(set(load.acked.values()) | set(api.jobs))
    runs = [Run(api.jobs[job]["number"], 1, 1, 0.0, "1") for job in api.jobs]
    events = read_ledger(tmp_path / "ledger")
    return check(Accounts(events, runs, api.rows(), seen)), load


async def test_all_is_well(tmp_path: Path) -> None:
    verdict, load = await judge(Api(), tmp_path)
    assert verdict.good, verdict.told()
    assert len(load.acked) == verdict.counts["accepted"] == 200
    assert verdict.counts["attempt"] == 200
    assert (verdict.counts["succeeded"], verdict.counts["failed"]) == (196, 4)
    assert verdict.counts["seen"] >= 20 and verdict.counts["ok"] >= 200


async def test_the_rate_is_kept(tmp_path: Path) -> None:
    async with serving(Api()) as port:
        with Ledger(tmp_path / "ledger") as ledger:
            load = JobLoad([port], ledger, range(1, 41), rate=400, connections=4)
            await load.submit_all()
    assert 0.095 <= load.wall_s < 1.0


@pytest.mark.parametrize("act", ["reset before", "reset after", "refuse"])
async def test_what_is_not_acked_is_tried_again_under_its_key(act: str, tmp_path: Path) -> None:
    api = Api(lambda count: act if count % 10 == 0 else None)
    verdict, load = await judge(api, tmp_path, ports=2)
    assert verdict.good, verdict.told()
    assert len(load.acked) == len(api.jobs) == 200
    assert verdict.counts["unknown" if act.startswith("reset") else "refused"] > 10
    assert verdict.counts["attempt"] == api.submits > 210


async def test_one_that_is_never_acked_but_there_is_recovered(tmp_path: Path) -> None:
    api = Api(lambda count: "reset after" if count == 1 else None)
    verdict, load = await judge(api, tmp_path, jobs=1, give_up_s=0.01)
    assert verdict.good, verdict.told()
    assert load.given_up == ["r.1"] and verdict.counts["recovered"] == 1


async def test_one_that_was_refused_for_good_is_not_tried_again(tmp_path: Path) -> None:
    api = Api(lambda count: "refuse for good" if count == 7 else None)
    verdict, load = await judge(api, tmp_path)
    assert verdict.good, verdict.told()
    assert len(load.given_up) == 1 and api.submits == 200


async def test_nobody_listens_is_a_refusal(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        load = JobLoad([1], ledger, [1], give_up_s=0.01)
        await load.submit_all()
    events = read_ledger(tmp_path / "ledger")
    assert [(event.event, event.code) for event in events[:2]] == [
        ("attempt", ""), ("refused", "nobody-listens"),
    ]  # fmt: skip


async def test_a_202_for_what_was_not_kept_is_lost(tmp_path: Path) -> None:
    api = Api(lambda count: "forget" if count == 20 else None)
    verdict, _ = await judge(api, tmp_path, give_up_s=0.2)
    assert "lost" in verdict.broken


async def test_a_key_that_means_nothing_is_duplicated(tmp_path: Path) -> None:
    api = Api(lambda count: "reset after" if count == 20 else None)
    api.dedup = False
    verdict, _ = await judge(api, tmp_path)
    assert "duplicated" in verdict.broken


async def test_a_call_without_an_answer_is_unbounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faults.load.GRACE_S", 0.02)

    async def hear_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    silent = await asyncio.start_server(hear_out, "127.0.0.1", 0)
    with Ledger(tmp_path / "ledger") as ledger:
        port = silent.sockets[0].getsockname()[1]
        load = JobLoad([port], ledger, [1], deadline_s=0.03, give_up_s=0.04)
        await load.submit_all()
    silent.close()
    await asyncio.sleep(0.01)
    verdict = check(Accounts(read_ledger(tmp_path / "ledger"), [], []))
    assert set(verdict.broken) == {"unbounded"}
    assert verdict.counts["timeouts"] == verdict.counts["attempt"] >= 1
