"""`nomad://host:port/JOB`, `nomads://` over TLS: each workload is the task group of its name; that
of a version, `wine@3`, is the group `wine` in a job of its own, `JOB-wine-3`.

Its token needs `read-job` and `scale-job` in the job's namespace, and for versions `submit-job`.
Options: `namespace`, `region`, `policy_override`, and with TLS `ca`, `cert`, `key`.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import structlog

from headrace.deployments import parted
from headrace.errors import NotFound, Refusal
from headrace.orchestrator import copies, refusals
from headrace.orchestrator.nomad_copy import MARK, copied
from headrace.orchestrator.port import Status
from headrace.orchestrator.web import TLS, Web, options, tls, words
from headrace.schemes import shown

log = structlog.get_logger("headrace.orchestrator")

PORT = 4646
#: States of a deployment in which Nomad scales nothing.
ACTIVE = frozenset({"running", "paused", "blocked", "unblocking", "initializing", "pending"})


class _Job(msgspec.Struct, rename="pascal"):
    job_modify_index: int
    stop: bool = False
    meta: dict[str, str] | None = None


class _Group(msgspec.Struct, rename="pascal"):
    desired: int
    running: int
    healthy: int
    unhealthy: int


class _Scale(msgspec.Struct, rename="pascal"):
    task_groups: dict[str, _Group]


class _Deployment(msgspec.Struct, rename="pascal"):
    status: str


class _Place(NamedTuple):
    """Where the workers of a workload are."""

    job: str
    group: str

    @property
    def path(self) -> str:
        return f"/v1/job/{quote(self.job, safe='')}"


class NomadOrchestrator:
    """One job of one Nomad cluster, and those of its models' versions."""

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
        self._params = {key: given[key] for key in given.keys() & {"namespace", "region"}}
        self._policy_override = given.get("policy_override", "") in ("1", "true")

    async def open(self) -> None:
        """Connections are made when they are needed."""

    async def close(self) -> None:
        await self._web.close()

    async def status(self, workload: str) -> Status:
        place = self._place(workload)
        # The index first: if somebody changes the job meanwhile, it is older than the count.
        index = await self._index(place)
        answer = await self._get(place, "/scale")
        group = self._web.read(answer, _Scale).task_groups.get(place.group)
        if group is None:
            raise refusals.unknown(f"job {place.job!r} has no group {place.group!r}")
        answer = await self._get(place, "/deployment")
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
        place = self._place(workload)
        asked: dict[str, object] = {"Count": count, "PolicyOverride": self._policy_override}
        index = await self._index(place)  # or Nomad would take the count of a job that is stopped
        if seen is not None:
            # Servers that do not know JobModifyIndex here leave it unread: looked at here, too.
            if str(index) != seen.token:
                raise refusals.changed(f"job {place.job!r} was changed by somebody else")
            asked["JobModifyIndex"] = index
        await self._post(place, reason, asked)

    async def create(self, workload: str, count: int, reason: str) -> None:
        model, place = copies.model_of(workload), self._place(workload)
        if count < 0:
            raise refusals.out_of_bounds(f"{count} of {workload!r}")
        there = await self._job_of(place)
        if there is not None and not there.stop:
            await self.scale(workload, count, reason)
            return
        if there is not None and not self._ours(there):
            raise refusals.not_copied(f"job {place.job!r} is stopped, and is not ours")
        answer = await self._get(_Place(self._job, model))
        house, found = self._web.read(answer, _Job), self._web.read(answer, dict[str, Any])
        groups = {group["Name"]: group for group in found["TaskGroups"] or ()}
        if house.stop or model not in groups:
            why = "is stopped" if house.stop else f"has no group {model!r}"
            raise refusals.unknown(f"job {self._job!r} {why}")
        made = copied(found, groups[model], place.job, workload, count)
        most = (made["TaskGroups"][0].get("Scaling") or {}).get("Max")
        if most is not None and count > most:
            raise refusals.out_of_bounds(f"{count} of {workload!r}: expected 0 to {most}")
        await self._register(made, there.job_modify_index if there else 0)
        log.info("made", workload=workload, job=place.job, count=count, reason=reason)

    async def remove(self, workload: str, reason: str) -> None:
        """The job is stopped. Nomad forgets it some hours later, and has its logs until then."""
        place = self._place(workload)
        found = await self._job_of(place)
        if found is None or found.stop:
            return
        if place.job == self._job or not self._ours(found):
            with contextlib.suppress(NotFound):
                await self.scale(workload, 0, reason)
            return
        await self._web.ask("DELETE", place.path, params=self._params, told=[404])
        log.info("removed", workload=workload, job=place.job, reason=reason)

    async def note(self, workload: str, text: str) -> None:
        await self._post(self._place(workload), text, {})

    def _place(self, workload: str) -> _Place:
        try:
            model, version = parted(workload)
        except ValueError:
            return _Place(self._job, workload)
        return _Place(f"{self._job}-{model}-{version}" if version else self._job, model)

    def _ours(self, job: _Job) -> bool:
        return (job.meta or {}).get(MARK) == self._job

    async def _job_of(self, place: _Place) -> _Job | None:
        answer = await self._web.ask("GET", place.path, params=self._params, told=[404])
        return None if answer.status_code == 404 else self._web.read(answer, _Job)

    async def _index(self, place: _Place) -> int:
        """Of the job's last change. (`/scale` has another number of the same name, which moves with
        the job's state, and with which scaling is refused.)"""
        job = self._web.read(await self._get(place), _Job)
        if job.stop:
            raise refusals.unknown(f"job {place.job!r} is stopped")
        return job.job_modify_index

    async def _get(self, place: _Place, below: str = "") -> httpx.Response:
        answer = await self._web.ask("GET", place.path + below, params=self._params, told=[404])
        if answer.status_code == 404:
            raise refusals.unknown(f"no job {place.job!r}: {words(answer)}")
        return answer

    async def _post(self, place: _Place, text: str, asked: dict[str, object]) -> None:
        body = {
            "Target": {"Group": place.group},
            "Message": text,
            "Error": False,
            "Meta": {"by": "headrace"},
        } | asked
        answer = await self._web.ask(
            "POST", f"{place.path}/scale", msgspec.json.encode(body), params=self._params,
            told=[400, 404, 500],
        )  # fmt: skip
        if answer.status_code not in (200, 201):
            raise _refusal(answer)

    async def _register(self, job: dict[str, Any], index: int) -> None:
        """`index`: of the job as it is; 0: there is none."""
        body = {
            "Job": job,
            "EnforceIndex": True,
            "JobModifyIndex": index,
            "PolicyOverride": self._policy_override,
        }
        answer = await self._web.ask(
            "POST", "/v1/jobs", msgspec.json.encode(body), params=self._params, told=[400, 500]
        )
        if answer.status_code == 400:
            raise refusals.not_copied(f"Nomad: {words(answer)}")
        if answer.status_code == 500:
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
