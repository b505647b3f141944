"""A stored job in the caller's hand. Two thin faces, as the clients': the steps are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headrace.client import asks
from headrace.client.answers import JobView
from headrace.client.attempt import Steps
from headrace.client.read import Found, result_of

if TYPE_CHECKING:
    from headrace.client.face import AsyncClient, Client

R = TypeVar("R")


class _Held(Generic[R]):
    """`view` is what was heard of the job last."""

    _client: Any

    def __init__(self, client: Any, found: Found, kind: Any = None) -> None:
        self._client, self._found, self._kind = client, found, kind

    @property
    def view(self) -> JobView:
        return self._found.view

    @property
    def id(self) -> str:
        return self.view.id

    @property
    def state(self) -> str:
        return self.view.state

    @property
    def ended(self) -> bool:
        return self.view.ended

    @property
    def result_json(self) -> bytes | None:
        """The result as the house wrote it, where it came with the job."""
        return self._found.result

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.view.model} {self.state}>"

    def _to_its_end(self, timeout_s: float | None) -> Steps[JobView]:
        self._found = yield from self._client._ended(self._found, timeout_s)
        return self.view

    def _to_its_result(self, timeout_s: float | None) -> Steps[R]:
        yield from self._to_its_end(timeout_s)
        data = self._found.result
        if data is None:
            data = yield from self._client._steps(asks.result(self.id), None)
        result: R = result_of(data, self._kind, self.view.request_id)
        return result


class Job(_Held[R]):
    """A stored job: it goes on whether or not anybody waits for it.

    job = client.submit("sum", [1, 2, 3])
    job.result(timeout_s=60)
    """

    _client: Client

    def result(self, timeout_s: float | None = None) -> R:
        """Waits for the end, by long polls. None: as long as the job takes.

        Raises DeadlinePassed where it has not ended by then, CallRefused where it ended without a
        result: the model's refusal, 409 `job-cancelled`, 504 where it expired.
        """
        return self._client._run_steps(self._to_its_result(timeout_s))

    def wait(self, timeout_s: float | None = None) -> JobView:
        """The job at its end, whatever that is. Raises DeadlinePassed."""
        return self._client._run_steps(self._to_its_end(timeout_s))


class AsyncJob(_Held[R]):
    """`Job` for asyncio: the same methods, awaited."""

    _client: AsyncClient

    async def result(self, timeout_s: float | None = None) -> R:
        """As `Job.result`."""
        return await self._client._run_steps(self._to_its_result(timeout_s))

    async def wait(self, timeout_s: float | None = None) -> JobView:
        """As `Job.wait`."""
        return await self._client._run_steps(self._to_its_end(timeout_s))
