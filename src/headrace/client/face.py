"""The two clients: what to ask is in `asks`, how often in `attempt`; here it is only sent.

Both have the same methods; `handle` has what a submit gives.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar, overload

import httpx

from headrace.client import asks
from headrace.client.answers import Answer, Readiness, ServedModel, Status
from headrace.client.asks import Ask
from headrace.client.attempt import Send, Steps, Wait, attempts
from headrace.client.ended import ended
from headrace.client.errors import CallRefused
from headrace.client.handle import AsyncJob, Job
from headrace.client.held import AsyncHeld, Held
from headrace.client.read import Found
from headrace.client.retry import Outcome, RetryBudget

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_URL = "http://127.0.0.1:8100"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
PAGE = 200  # jobs in one page of a list: the most that a house gives


class _Settings:
    """What both clients are made with."""

    _kind: ClassVar[Any]
    _http: Any

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        deadline_s: float = 30.0,
        retries: int = 2,
        retry_budget: RetryBudget | None = None,
        headers: Mapping[str, str] | None = None,
        connections: int = 256,
        transport: Any = None,
    ) -> None:
        """
        url           the gateway, or what stands before several, such as "http://127.0.0.1:8100"
        deadline_s    seconds that a call may take, retries and all
        retries       further attempts after the first, on what may be retried (see `retry`)
        retry_budget  at most 10 % more calls by default; clients may share one
        headers       sent with every call
        connections   open at most, to all gateways together
        transport     an httpx transport in place of the network, for tests
        """
        self._url = _checked(url)
        self._deadline_s = _positive(deadline_s)
        self._most = 1 + max(0, retries)
        self._budget = retry_budget or RetryBudget()
        parsed = httpx.URL(self._url)
        self._http = self._kind(
            headers={"Accept": "application/json", **(headers or {})},
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=100),
            transport=transport,
            # Reading the certificates takes 0.1 s, for which plain HTTP has no use.
            verify=parsed.scheme == "https",
            # The environment's proxy cannot reach this machine's loopback.
            trust_env=parsed.host not in LOOPBACK,
        )

    def _steps(self, ask: Ask[T], deadline_s: float | None) -> Steps[T]:
        seconds = self._deadline_s if deadline_s is None else _positive(deadline_s)
        return attempts(ask, self._url, seconds, self._most, self._budget)

    def _ended(self, found: Found, timeout_s: float | None) -> Steps[Found]:
        return ended(found, self._url, timeout_s, self._deadline_s)


def _checked(url: str) -> str:
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"url = {url!r}: expected http://host:port or https://host")
    return url.rstrip("/")


def _positive(deadline_s: float) -> float:
    if not deadline_s > 0:
        raise ValueError(f"deadline_s = {deadline_s!r}: expected seconds above 0")
    return deadline_s


class Client(Held, _Settings):
    """Calls a house and blocks until the answer. May be used by several threads at once.

    with Client("http://127.0.0.1:8100", deadline_s=2) as client:
        client.predict("sum", [1, 2, 3]).result
    """

    _kind = httpx.Client
    _http: httpx.Client

    @overload
    def predict(
        self,
        model: str,
        input: Any,
        *,
        deadline_s: float | None = None,
        result_type: type[R],
        idempotency_key: str | None = None,
        route_key: str | None = None,
    ) -> Answer[R]: ...
    @overload
    def predict(
        self,
        model: str,
        input: Any,
        *,
        deadline_s: float | None = None,
        result_type: None = None,
        idempotency_key: str | None = None,
        route_key: str | None = None,
    ) -> Answer[Any]: ...
    def predict(
        self,
        model: str,
        input: Any,
        *,
        deadline_s: float | None = None,
        result_type: Any = None,
        idempotency_key: str | None = None,
        route_key: str | None = None,
    ) -> Answer[Any]:
        """One input, one answer.

        `input`: dict, list, number, text, dataclass, msgspec struct, pydantic model, numpy array;
        an image as `headrace.Image`, bytes or `pathlib.Path`, alone or as a field of a record.
        `result_type`: what `.result` is read as; plain dicts and lists where it is None.
        `idempotency_key`: the house stores the call under it. Whoever comes with the same key and
        input, also after the deadline or from another process, gets the one answer.
        `route_key`: the same for a user, say, who is to be answered by one version while several
        are served.

        Raises CallRefused, CallFailed, DeadlinePassed, AnswerUnreadable.
        """
        return self._run(
            asks.predict(model, input, result_type, idempotency_key, route_key), deadline_s
        )

    @overload
    def predict_many(
        self,
        model: str,
        inputs: Iterable[Any],
        *,
        deadline_s: float | None = None,
        route_key: str | None = None,
        result_type: type[R],
    ) -> list[R | CallRefused]: ...
    @overload
    def predict_many(
        self,
        model: str,
        inputs: Iterable[Any],
        *,
        deadline_s: float | None = None,
        route_key: str | None = None,
        result_type: None = None,
    ) -> list[Any]: ...
    def predict_many(
        self,
        model: str,
        inputs: Iterable[Any],
        *,
        deadline_s: float | None = None,
        route_key: str | None = None,
        result_type: Any = None,
    ) -> list[Any]:
        """Several inputs in one call: one result, or one CallRefused, for each, in order.

        Raises as `predict` where the call as a whole has no answer.
        """
        return self._run(asks.predict_many(model, inputs, result_type, route_key), deadline_s)

    @overload
    def submit(
        self,
        model: str,
        input: Any,
        *,
        idempotency_key: str | None = None,
        route_key: str | None = None,
        priority: str = "interactive",
        ttl_s: float | None = None,
        result_type: type[R],
    ) -> Job[R]: ...
    @overload
    def submit(
        self,
        model: str,
        input: Any,
        *,
        idempotency_key: str | None = None,
        route_key: str | None = None,
        priority: str = "interactive",
        ttl_s: float | None = None,
        result_type: None = None,
    ) -> Job[Any]: ...
    def submit(
        self,
        model: str,
        input: Any,
        *,
        idempotency_key: str | None = None,
        route_key: str | None = None,
        priority: str = "interactive",
        ttl_s: float | None = None,
        result_type: Any = None,
    ) -> Job[Any]:
        """Stores a job that the house runs when it can; returns once it is safe in its database.

        `idempotency_key`: one that is made up where none is given, so that no retry of ours stores
        it twice; give one of yours where your program may try again. `priority`: "interactive", or
        "bulk" for what may wait. `ttl_s`: the job expires after so many seconds (the house's
        `jobs.default_ttl_s`). `result_type`: what `job.result()` is read as.
        `route_key`: as in `predict`.

        Raises as `predict`.
        """
        key = secrets.token_hex(16) if idempotency_key is None else idempotency_key
        ask = asks.submit(model, input, key, priority, ttl_s, route_key)
        return Job(self, self._run(ask), result_type)

    @overload
    def job(self, id: str, *, wait_s: float = 0, result_type: type[R]) -> Job[R]: ...
    @overload
    def job(self, id: str, *, wait_s: float = 0, result_type: None = None) -> Job[Any]: ...
    def job(self, id: str, *, wait_s: float = 0, result_type: Any = None) -> Job[Any]:
        """A stored job as it is now, or as soon as it has ended, after `wait_s` at the latest.

        Raises CallRefused (404), and as `predict`.
        """
        found = self._run(asks.job(id, wait_s), self._deadline_s + wait_s)
        return Job(self, found, result_type)

    def jobs(
        self, *, state: str | Iterable[str] = (), model: str = "", page: int = PAGE
    ) -> Iterator[Job[Any]]:
        """Stored jobs, newest first, page by page as they are asked for.

        `state`: one or several, such as "dead"; all where it is empty.
        """
        states = [state] if isinstance(state, str) else list(state)
        cursor: str | None = None
        while True:
            found = self._run(asks.jobs(states, model, page, cursor))
            for view in found.jobs:
                yield Job(self, Found(view, None))
            if not found.next:
                return
            cursor = found.next

    def cancel(self, id: str) -> Job[Any]:
        """Takes back a job that has not ended. A run under way is not stopped by it, but what it
        comes to is dropped. Raises CallRefused (404, 409 `job-ended`)."""
        return Job(self, self._run(asks.cancel(id)))

    def replay(self, id: str) -> Job[Any]:
        """A dead job waits again, with all its tries. Raises CallRefused (404, 409)."""
        return Job(self, self._run(asks.replay(id)))

    def discard(self, id: str) -> None:
        """Removes a job that has ended, its input and its result. Raises CallRefused (404, 409)."""
        self._run(asks.discard(id))

    def feedback(self, model: str, labels: Mapping[str, Any], *, at: float | None = None) -> int:
        """What was right, by request id or job id: at most 1,000. `at`: Unix time at which it
        became known; now. Gives how many were taken."""
        return self._run(asks.feedback(model, labels, at))

    def models(self) -> list[ServedModel]:
        """What the house serves."""
        return self._run(asks.models())

    def model(self, name: str) -> ServedModel:
        """One model with its schemas. Raises CallRefused (404)."""
        return self._run(asks.model(name))

    def ready(self) -> Readiness:
        """Whether every model answers, and why not."""
        return self._run(asks.ready())

    def status(self) -> Status:
        """Models, workers, slots, what waits, and the pace."""
        return self._run(asks.status())

    def _run(self, ask: Ask[T], deadline_s: float | None = None) -> T:
        return self._run_steps(self._steps(ask, deadline_s))

    def _run_steps(self, steps: Steps[T]) -> T:
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if isinstance(step, Wait):
                time.sleep(step.seconds)
                outcome = None
            else:
                outcome = self._send(step)

    def _send(self, send: Send) -> Outcome:
        try:
            return self._http.request(
                send.method,
                send.url,
                content=send.content,
                headers=send.headers,
                extensions=send.extensions,
            )
        except httpx.RequestError as error:
            return error

    def close(self) -> None:
        self._http.close()


class AsyncClient(AsyncHeld, _Settings):
    """`Client` for asyncio: the same methods, awaited, with the same arguments and errors.

    async with AsyncClient("http://127.0.0.1:8100", deadline_s=2) as client:
        (await client.predict("sum", [1, 2, 3])).result
    """

    _kind = httpx.AsyncClient
    _http: httpx.AsyncClient

    @overload
    async def predict(
        self,
        model: str,
        input: Any,
        *,
        deadline_s: float | None = None,
        result_type: type[R],
        idempotency_key: str | None = None,
        route_key: str | None = None,
    ) -> Answer[R]: ...
    @overload
    async def predict(
        self,
        model: str,
        input: Any,
        *,
        deadline_s: float | None = None,
        result_type: None = None,
        idempotency_key: str | None = None,
        route_key: str | None = None,
    ) -> Answer[Any]: ...
    async def predict(
        self,
        model: str,
        input: Any,
        *,
        deadline_s: float | None = None,
        result_type: Any = None,
        idempotency_key: str | None = None,
        route_key: str | None = None,
    ) -> Answer[Any]:
        """As `Client.predict`."""
        return await self._run(
            asks.predict(model, input, result_type, idempotency_key, route_key), deadline_s
        )

    @overload
    async def predict_many(
        self,
        model: str,
        inputs: Iterable[Any],
        *,
        deadline_s: float | None = None,
        route_key: str | None = None,
        result_type: type[R],
    ) -> list[R | CallRefused]: ...
    @overload
    async def predict_many(
        self,
        model: str,
        inputs: Iterable[Any],
        *,
        deadline_s: float | None = None,
        route_key: str | None = None,
        result_type: None = None,
    ) -> list[Any]: ...
    async def predict_many(
        self,
        model: str,
        inputs: Iterable[Any],
        *,
        deadline_s: float | None = None,
        route_key: str | None = None,
        result_type: Any = None,
    ) -> list[Any]:
        """As `Client.predict_many`."""
        return await self._run(asks.predict_many(model, inputs, result_type, route_key), deadline_s)

    @overload
    async def submit(
        self,
        model: str,
        input: Any,
        *,
        idempotency_key: str | None = None,
        route_key: str | None = None,
        priority: str = "interactive",
        ttl_s: float | None = None,
        result_type: type[R],
    ) -> AsyncJob[R]: ...
    @overload
    async def submit(
        self,
        model: str,
        input: Any,
        *,
        idempotency_key: str | None = None,
        route_key: str | None = None,
        priority: str = "interactive",
        ttl_s: float | None = None,
        result_type: None = None,
    ) -> AsyncJob[Any]: ...
    async def submit(
        self,
        model: str,
        input: Any,
        *,
        idempotency_key: str | None = None,
        route_key: str | None = None,
        priority: str = "interactive",
        ttl_s: float | None = None,
        result_type: Any = None,
    ) -> AsyncJob[Any]:
        """As `Client.submit`."""
        key = secrets.token_hex(16) if idempotency_key is None else idempotency_key
        ask = asks.submit(model, input, key, priority, ttl_s, route_key)
        return AsyncJob(self, await self._run(ask), result_type)

    @overload
    async def job(self, id: str, *, wait_s: float = 0, result_type: type[R]) -> AsyncJob[R]: ...
    @overload
    async def job(
        self, id: str, *, wait_s: float = 0, result_type: None = None
    ) -> AsyncJob[Any]: ...
    async def job(self, id: str, *, wait_s: float = 0, result_type: Any = None) -> AsyncJob[Any]:
        """As `Client.job`."""
        found = await self._run(asks.job(id, wait_s), self._deadline_s + wait_s)
        return AsyncJob(self, found, result_type)

    async def jobs(
        self, *, state: str | Iterable[str] = (), model: str = "", page: int = PAGE
    ) -> AsyncIterator[AsyncJob[Any]]:
        """As `Client.jobs`."""
        states = [state] if isinstance(state, str) else list(state)
        cursor: str | None = None
        while True:
            found = await self._run(asks.jobs(states, model, page, cursor))
            for view in found.jobs:
                yield AsyncJob(self, Found(view, None))
            if not found.next:
                return
            cursor = found.next

    async def cancel(self, id: str) -> AsyncJob[Any]:
        """As `Client.cancel`."""
        return AsyncJob(self, await self._run(asks.cancel(id)))

    async def replay(self, id: str) -> AsyncJob[Any]:
        """As `Client.replay`."""
        return AsyncJob(self, await self._run(asks.replay(id)))

    async def discard(self, id: str) -> None:
        """As `Client.discard`."""
        await self._run(asks.discard(id))

    async def feedback(
        self, model: str, labels: Mapping[str, Any], *, at: float | None = None
    ) -> int:
        """What was right, by request id or job id: at most 1,000. `at`: Unix time at which it
        became known; now. Gives how many were taken."""
        return await self._run(asks.feedback(model, labels, at))

    async def models(self) -> list[ServedModel]:
        """As `Client.models`."""
        return await self._run(asks.models())

    async def model(self, name: str) -> ServedModel:
        """As `Client.model`."""
        return await self._run(asks.model(name))

    async def ready(self) -> Readiness:
        """As `Client.ready`."""
        return await self._run(asks.ready())

    async def status(self) -> Status:
        """As `Client.status`."""
        return await self._run(asks.status())

    async def _run(self, ask: Ask[T], deadline_s: float | None = None) -> T:
        return await self._run_steps(self._steps(ask, deadline_s))

    async def _run_steps(self, steps: Steps[T]) -> T:
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._send(step)

    async def _send(self, send: Send) -> Outcome:
        try:
            return await self._http.request(
                send.method,
                send.url,
                content=send.content,
                headers=send.headers,
                extensions=send.extensions,
            )
        except httpx.RequestError as error:
            return error

    async def close(self) -> None:
        await self._http.aclose()
