"""Submissions -> one transaction for all that wait -> 202 -> the broker.

Publishing comes after the commit, and the answer does not wait for it: what is lost there is
published by the clerk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.broker.port import Broker
from headrace.dispatch import post_stored
from headrace.errors import Refusal, Unavailable
from headrace.failpoints import failpoint
from headrace.records import Priority, Record, Submission, queue_name
from headrace.store.together import Together
from headrace.telemetry.metrics import GatewayMetrics

if TYPE_CHECKING:
    from headrace.store.door import StoreDoor

MOST = 256  # in one transaction


class Submits:
    def __init__(
        self,
        door: StoreDoor,
        broker: Broker,
        parcel_size: Callable[[str], int],
        metrics: GatewayMetrics,
        workload: Callable[[str, str], str] = lambda model, _: model,
    ) -> None:
        """`parcel_size`: how many jobs of a workload may travel together. `workload`: which one
        gets the job of a model."""
        self._door, self._broker, self._parcel_size = door, broker, parcel_size
        self._workload = workload
        self._metrics = metrics
        self._together = Together(self._submit_all, MOST)

    async def submit(self, submission: Submission) -> Record | None:
        """Returns when it is committed. None: it is new; a record: the job its key stood for.
        Raises Unavailable: it is not known to be stored."""
        return await self._together.ask(submission)

    async def _submit_all(self, batch: list[Submission]) -> list[Record | None]:
        try:
            store = await self._door.open()
        except ImportError as error:
            raise Unavailable(str(error), code="storage-unavailable") from None
        failpoint("gateway.submitting")
        records = await store.jobs.submit(batch)
        failpoint("gateway.submitted")
        known = zip(batch, records, strict=True)
        self._publish([submission for submission, record in known if record is None])
        return records

    def _publish(self, submissions: list[Submission]) -> None:
        queues: dict[tuple[str, Priority], list[str]] = {}
        for submission in submissions:
            self._metrics.submitted.add(submission.model)
            workload = self._workload(submission.model, submission.id)
            queues.setdefault((workload, submission.priority), []).append(submission.id)
        for (workload, priority), ids in queues.items():
            queue = queue_name(workload, priority)
            post_stored(self._broker, queue, ids, self._parcel_size(workload), self._not_taken)
        failpoint("gateway.published")

    def _not_taken(self, refusal: Refusal) -> None:
        self._metrics.unposted.add(refusal.code)

    async def flush(self) -> None:
        await self._together.flush()
