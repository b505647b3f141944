"""`nomad://host:port/JOB`, `nomads://` over TLS: each workload is the task group of its name.

Its token needs `read-job` and `scale-job` in the job's namespace. Options: `namespace`, `region`,
`policy_override`, and with TLS `ca`, `cert`, `key`.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import httpx
import msgspec

from headrace.errors import Refusal
from headrace.orchestrator import refusals
from headrace.orchestrator.port import Status
from headrace.orchestrator.web import TLS, Web, options, tls, words
from headrace.schemes import shown

PORT = 4646
#: States of a deployment in which Nomad scales nothing.
ACTIVE = frozenset({"running", "paused", "blocked", "unblocking", "initializing", "pending"})


class _Job(msgspec.Struct, rename="pascal"):
    job_modify_index: int
    stop: bool = False


class _Group(msgspec.Struct, rename="pascal"):
    desired: int
    running: int
    healthy: int
    unhealthy: int


class _Scale(msgspec.Struct, rename="pascal"):
    task_groups: dict[str, _Group]


class _Deployment(msgspec.Struct, rename="pascal"):
    status: str


class NomadOrchestrator:
    """One job of one Nomad cluster."""

    def __init__(self, url: str, *, token_file: str = "", timeout_s: float = 5.0) -> None:
        """Raises ValueError, and OSError where a file that the URL names is not there."""
        at = urlsplit(url)
        self._job = at.path.strip("/")
        if not at.hostname or not self._job or "/" in self._job:
            raise ValueError(
                f"orchestrator.url = {shown(url)!r}: expected {at.scheme}://host:port/job"
            )
        secure = at.scheme == "nomads"
        own = {"namespace", "region", "policy_override"}
        given = options(at, own | TLS if secure else own)
        host = f"[{at.hostname}]" if ":" in at.hostname else at.hostname
        self._web = Web(
            f"{'https' if secure else 'http'}://{host}:{at.port or PORT}",
            timeout_s=timeout_s,
            tls=tls(given) if secure else None,
            token_file=token_file,
            token_header=("X-Nomad-Token", ""),
        )
        self._path = f"/v1/job/{quote(self._job, safe='')}"
        self._params = {key: given[key] for key in given.keys() & {"namespace", "region"}}
        self._policy_override = given.get("policy_override", "") in ("1", "true")

    async def open(self) -> None:
        """Connections are made when they are needed."""

    async def close(self) -> None:
        await self._web.close()

    async def status(self, workload: str) -> Status:
        # The index first: if somebody changes the job meanwhile, it is older than the count.
        index = await self._index()
        answer = await self._get("/scale")
        group = self._web.read(answer, _Scale).task_groups.get(workload)
        if group is None:
            raise refusals.unknown(f"job {self._job!r} has no group {workload!r}")
        answer = await self._get("/deployment")
        none = answer.content.strip() == b"null"
        state = "" if none else self._web.read(answer, _Deployment).status
        judged = group.healthy + group.unhealthy  # those that a deployment started
        return Status(
            desired=group.desired,
            running=group.running,
            ready=group.healthy if judged >= group.running else None,
            moving=state in ACTIVE,
            token=str(index),
        )

    async def scale(
        self, workload: str, count: int, reason: str, seen: Status | None = None
    ) -> None:
        if count < 0:
            raise refusals.out_of_bounds(f"{count} of {workload!r}")
        asked: dict[str, object] = {"Count": count, "PolicyOverride": self._policy_override}
        index = await self._index()  # or Nomad would take the count of a job that is stopped
        if seen is not None:
            # Servers that do not know JobModifyIndex here leave it unread: looked at here, too.
            if str(index) != seen.token:
                raise refusals.changed(f"job {self._job!r} was changed by somebody else")
            asked["JobModifyIndex"] = index
        await self._post(workload, reason, asked)

    async def note(self, workload: str, text: str) -> None:
        await self._post(workload, text, {})

    async def _index(self) -> int:
        """Of the job's last change. (`/scale` has another number of the same name, which moves with
        the job's state, and with which scaling is refused.)"""
        job = self._web.read(await self._get(""), _Job)
        if job.stop:
            raise refusals.unknown(f"job {self._job!r} is stopped")
        return job.job_modify_index

    async def _get(self, path: str) -> httpx.Response:
        answer = await self._web.ask("GET", self._path + path, params=self._params, told=[404])
        if answer.status_code == 404:
            raise refusals.unknown(f"no job {self._job!r}: {words(answer)}")
        return answer

    async def _post(self, workload: str, text: str, asked: dict[str, object]) -> None:
        body = {
            "Target": {"Group": workload},
            "Message": text,
            "Error": False,
            "Meta": {"by": "headrace"},
        } | asked
        answer = await self._web.ask(
            "POST", f"{self._path}/scale", msgspec.json.encode(body), params=self._params,
            told=[400, 404, 500],
        )  # fmt: skip
        if answer.status_code not in (200, 201):
            raise _refusal(answer)


def _refusal(answer: httpx.Response) -> Refusal:
    """What Nomad says in words, and with a status that means many things."""
    said = words(answer)
    if answer.status_code == 500:
        if "job modify index" in said:
            return refusals.changed(f"Nomad: {said}")
        return refusals.unreachable(f"Nomad answered 500: {said}")
    if answer.status_code == 404 or "does not exist in job" in said:
        return refusals.unknown(f"Nomad: {said}")
    if "active deployment" in said:
        return refusals.moving(f"Nomad: {said}")
    return refusals.out_of_bounds(f"Nomad: {said}")
