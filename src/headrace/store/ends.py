"""The end of a job, whoever ends it: its state and result, how long they are kept, who is told.

All in the caller's transaction: a job that ended has its deliveries, one that did not has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, bindparam, select, update

from headrace.records import State, new_id
from headrace.store.engine import NOW, Ids, one_of
from headrace.store.tables import deliveries, jobs, webhooks


class Keep(NamedTuple):
    """For how long after its end, in seconds."""

    input_s: float
    row_s: float


class Ended(NamedTuple):
    """A job at its end. `problem` is msgpack."""

    id: str
    tenant: str
    model: str
    state: State
    input_ref: str
    version: str = ""
    result: bytes = b""
    result_ref: str = ""
    problem: bytes | None = None
    executed_ms: float = 0.0
    tries: int = 0  # to be added


class Ends:
    def __init__(self, keep: Callable[[str, str], Keep], webhook_retry_s: float) -> None:
        """`keep`: of a tenant and a model."""
        self._keep, self._webhook_retry_s = keep, webhook_retry_s

    def end(self, connection: Connection, ended: list[Ended]) -> None:
        if not ended:
            return
        at: float = connection.execute(NOW).scalar_one()
        connection.execute(_END, [self._values(job, at) for job in ended])
        forget = [{"b_id": job.id} for job in ended if not self._keep(job.tenant, job.model)[0]]
        if forget:
            connection.execute(_FORGET_INPUT, forget)
        self._tell(connection, ended, at)

    def _values(self, job: Ended, at: float) -> dict[str, Any]:
        keep = self._keep(job.tenant, job.model)
        return {
            "b_id": job.id, "b_state": job.state.value, "b_finished": at, "b_version": job.version,
            "b_result": job.result or None, "b_result_ref": job.result_ref,
            "b_problem": job.problem, "b_executed_ms": job.executed_ms, "b_tries": job.tries,
            "b_input_until": at + keep.input_s, "b_row_until": at + keep.row_s,
        }  # fmt: skip

    def _tell(self, connection: Connection, ended: list[Ended], at: float) -> None:
        """A delivery for each webhook that asked for it: it names the job and holds no result."""
        tenants = {job.tenant for job in ended}
        hooks = connection.execute(_HOOKS, {"b_tenants": list(tenants)}).all()
        rows = []
        for hook in hooks:
            events = hook.events.split(",")
            for job in ended:
                event = f"job.{job.state}"
                if job.tenant == hook.tenant and ("*" in events or event in events):
                    rows.append(self._delivery(hook.id, job, event, at))
        if rows:
            connection.execute(_DELIVER, rows)

    def _delivery(self, webhook: str, job: Ended, event: str, at: float) -> dict[str, Any]:
        data = {"id": job.id, "model": job.model, "state": job.state, "version": job.version,
                "href": f"/jobs/{job.id}"}  # fmt: skip
        payload = msgspec.json.encode({"type": event, "timestamp": at, "data": data})
        return {
            "id": f"evt_{new_id()}", "webhook_id": webhook, "tenant": job.tenant, "job_id": job.id,
            "event": event, "payload": payload, "created": at, "due": at,
            "until": at + self._webhook_retry_s, "state": "waiting",
        }  # fmt: skip


_END = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .values(
        state=bindparam("b_state"), finished=bindparam("b_finished"), due=None, lease_until=None,
        version=bindparam("b_version"), result=bindparam("b_result"),
        result_ref=bindparam("b_result_ref"), problem=bindparam("b_problem"),
        executed_ms=bindparam("b_executed_ms"), tries=jobs.c.tries + bindparam("b_tries"),
        input_until=bindparam("b_input_until"), row_until=bindparam("b_row_until"),
    )
)  # fmt: skip
#: A policy that keeps inputs for no time: gone with the end. An object is removed by the clerk.
_FORGET_INPUT = update(jobs).where(jobs.c.id == bindparam("b_id")).values(input=None)
_HOOKS = select(webhooks.c.id, webhooks.c.tenant, webhooks.c.events).where(
    one_of(webhooks.c.tenant, bindparam("b_tenants", type_=Ids)), webhooks.c.enabled.is_(True)
)
_DELIVER = deliveries.insert()
