"""A client of stored jobs that does not believe the house: it keeps what it was promised."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

from headrace.testing.load import Answer, Connection, get, post


class Desk:
    """`promised`: id -> input, of all that were answered with 202."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.promised: dict[str, Any] = {}
        self.took_s: list[float] = []  # of submissions that came through at the first try
        self._number = 0

    async def submit(self, model: str, value: Any, **headers: str) -> str:
        """The job's id. Tries again for 30 s, with one key, as a client does."""
        self._number += 1
        given = {"idempotency_key": f"desk-{id(self)}-{self._number}"} | headers
        began = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                answer = await post(self.port, f"/models/{model}/jobs", value, **given)
            except (OSError, asyncio.IncompleteReadError):
                answer = None
            if answer is not None and answer.status in (200, 202):  # 200: it has ended meanwhile
                break
            assert answer is None or answer.status in (404, 503), answer
            assert time.monotonic() - began < 30, f"not submitted in 30 s: {answer}"
            await asyncio.sleep(0.05)
        if tries == 1:
            self.took_s.append(time.monotonic() - began)
        job = str(answer.json["id"])
        self.promised[job] = value
        return job

    async def many(self, model: str, values: list[Any], connections: int = 8, **more: str) -> None:
        """All of them, over so many connections."""
        left = list(reversed(values))

        async def one() -> None:
            while left:
                await self.submit(model, left.pop(), **more)

        await asyncio.gather(*(one() for _ in range(connections)))

    async def view(self, job: str) -> dict[str, Any]:
        answer = await get(self.port, f"/jobs/{job}")
        assert answer.status == 200, answer
        view: dict[str, Any] = answer.json
        return view

    async def until(self, job: str, *states: str, wait_s: float = 30.0) -> dict[str, Any]:
        """Its view when it is in one of the states; any end, where none are named."""
        wanted = states or ("succeeded", "failed", "dead", "expired", "cancelled")
        began, view = time.monotonic(), None
        while time.monotonic() - began < wait_s:
            try:
                view = await self.view(job)
                if view["state"] in wanted:
                    return view
            except (OSError, asyncio.IncompleteReadError, AssertionError):
                pass
            await asyncio.sleep(0.02)
        raise AssertionError(f"{job} not {wanted} in {wait_s:g} s: {view}")

    async def all_ended(self, wait_s: float = 60.0) -> dict[str, dict[str, Any]]:
        """The views of all that was promised, by id."""
        end = time.monotonic() + wait_s
        views = {}
        for job in self.promised:
            views[job] = await self.until(job, wait_s=max(0.5, end - time.monotonic()))
        return views

    async def all_right(self, wait_s: float = 60.0) -> dict[str, dict[str, Any]]:
        """Every promise was kept, with the right result: the square and one."""
        views = await self.all_ended(wait_s)
        states = Counter(view["state"] for view in views.values())
        assert states == {"succeeded": len(self.promised)}, states
        wrong = [j for j, n in self.promised.items() if views[j]["result"] != n * n + 1]
        assert not wrong, f"{len(wrong)} wrong results: {wrong[:5]}"
        return views


async def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """Any method, as DELETE and POST without a body are."""
    connection = Connection(port)
    reader, writer = await connection.open()
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}"]
    lines += ["Content-Type: application/json"] if data else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        read = {n.lower(): v.strip() for n, _, v in (x.partition(":") for x in head[1:])}
        answer = await reader.readexactly(int(read["content-length"]))
        return Answer(int(head[0].split()[1]), read, answer)
    finally:
        connection.abort()
