"""As much of Nomad's HTTP API as scaling needs, by the rules that its servers follow.

Not a judge of what a real agent does: the exam runs over one, too, where NOMAD_ADDR is set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headrace.testing.fake_http import Asked, FakeHttp

TOKEN = "only-this-one"  # noqa: S105
Said = tuple[int, Any]


@dataclass
class Group:
    """`started` of `count` run; `least` and `most` are of its scaling block."""

    count: int
    least: int = 0
    most: int = 10
    started: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Job:
    """`submitted`: as it came. `index` and `modified`: of that, and of its state, too. `stopped`:
    it still takes counts, and starts nothing."""

    submitted: dict[str, Any]
    groups: dict[str, Group]
    index: int = 10
    modified: int = 11
    deployment: str | None = None
    stopped: bool = False

    @classmethod
    def of(cls, submitted: dict[str, Any], modified: int) -> Job:
        groups = {}
        for each in submitted["TaskGroups"]:
            bounds, count = each["Scaling"], each["Count"]
            groups[each["Name"]] = Group(count, bounds["Min"], bounds["Max"], count)
        return cls(submitted, groups, modified, modified + 1)


class FakeNomad(FakeHttp):
    """`groups` are those of `job`. `deploys`: each change of a count is a deployment, which lasts
    until `settle`. `knows_index`: it looks at JobModifyIndex, as servers do from some version on.

    Stricter than a real server in one thing: it compares and writes at once."""

    def __init__(self, job: str = "house", groups: tuple[str, ...] = ("square",)) -> None:
        super().__init__()
        self.job, self.jobs = job, {job: Job.of(submitted(job, groups), 10)}
        self.deploys, self.knows_index = False, True

    @property
    def house(self) -> Job:
        return self.jobs[self.job]

    @property
    def groups(self) -> dict[str, Group]:
        return self.house.groups

    def url(self, job: str = "") -> str:
        return f"nomad://127.0.0.1:{self.port}/{job or self.job}"

    def settle(self) -> None:
        """What was asked for runs; deployments are over."""
        with self.lock:
            for job in self.jobs.values():
                for group in job.groups.values():
                    group.started = group.count
                job.modified += 1
                if job.deployment:
                    job.deployment = "successful"

    def meddle(self) -> None:
        """Somebody submits the job again."""
        with self.lock:
            self.house.index, self.house.modified = (
                self.house.modified + 7,
                self.house.modified + 8,
            )

    def act(self, asked: Asked) -> Said:
        if asked.headers.get("x-nomad-token") != TOKEN:
            return 403, "Permission denied"
        if (asked.method, asked.path) == ("POST", ["v1", "jobs"]):
            return self._register(asked.body)
        if asked.path[:2] != ["v1", "job"] or len(asked.path) > 4:
            return 404, "Invalid path"
        job = self.jobs.get(asked.path[2])
        if job is None:
            return 404, "job not found"
        what = "".join(asked.path[3:])
        if asked.method == "POST" and what == "scale":
            return self._scale(job, asked.body)
        if asked.method == "DELETE" and not what:
            job.stopped, job.index, job.modified = True, job.modified + 1, job.modified + 2
            return 200, {"EvalID": "", "JobModifyIndex": job.index}
        if asked.method != "GET":
            return 405, "Invalid method"
        return {"": self._job, "scale": self._status, "deployment": self._deployment}[what](job)

    def _register(self, body: dict[str, Any]) -> Said:
        job, index = body["Job"], body["JobModifyIndex"]
        if not job.get("ID") or " " in job["ID"] or job["ID"] != job.get("Name", job["ID"]):
            return 500, "1 error occurred: Missing or wrong job ID"
        there = self.jobs.get(job["ID"])
        if body.get("EnforceIndex") and index != (there.index if there else 0):
            what = f"job exists with conflicting job modify index: {there.index}" if there else ""
            what = "job already exists" if there and not index else what or "job does not exist"
            return 500, f"Enforcing job modify index {index}: {what}"
        self.jobs[job["ID"]] = made = Job.of(job, (there.modified if there else 20) + 1)
        if self.deploys:
            made.deployment = "running"
        return 200, {"EvalID": "", "JobModifyIndex": made.index}

    def _job(self, job: Job) -> Said:
        said = {"Stop": job.stopped, "JobModifyIndex": job.index, "ModifyIndex": job.modified}
        groups = [
            each | {"Count": job.groups[each["Name"]].count} for each in job.submitted["TaskGroups"]
        ]
        return 200, job.submitted | said | {"Status": "running", "Version": 1, "TaskGroups": groups}

    def _status(self, job: Job) -> Said:
        groups = {
            name: {
                "Desired": group.count, "Placed": group.started, "Running": group.started,
                "Healthy": group.started, "Unhealthy": 0, "Events": group.events or None,
            }
            for name, group in job.groups.items()
        }  # fmt: skip
        # Under this name it gives what the job's state moves, too.
        return 200, {"JobModifyIndex": job.modified, "TaskGroups": groups}

    def _deployment(self, job: Job) -> Said:
        return 200, {"Status": job.deployment} if job.deployment else None

    def _scale(self, job: Job, body: dict[str, Any]) -> Said:
        name, count = body["Target"].get("Group", ""), body.get("Count")
        group = job.groups.get(name)
        if group is None:
            return 400, f'task group "{name}" specified for scaling does not exist in job'
        if count is not None:
            no = self._why_not(job, group, count, body)
            if no:
                return no
            if count != group.count:
                group.count, job.index = count, job.modified + 1
                job.modified += 2
                if self.deploys:
                    job.deployment = "running"
                else:
                    group.started = count
        event = {"Count": count, "Message": body.get("Message", ""), "Meta": body.get("Meta")}
        group.events.insert(0, event | {"Error": body.get("Error", False)})
        return 200, {"JobModifyIndex": job.modified, "EvalID": ""}

    def _why_not(self, job: Job, group: Group, count: int, body: dict[str, Any]) -> Said | None:
        if count < 0:
            return 400, "scaling action count can't be negative"
        if body.get("Error"):
            return 400, "scaling action should not contain count if error is true"
        if count < group.least:
            return 400, f"group count was less than scaling policy minimum: {count} < {group.least}"
        if count > group.most:
            return 400, (
                f"group count was greater than scaling policy maximum: {count} > {group.most}"
            )
        if job.deployment in ("running", "paused", "pending"):
            return 400, "job scaling blocked due to active deployment"
        index = body.get("JobModifyIndex", 0)
        if self.knows_index and index and index != job.index:
            return 500, (
                f"Enforcing job modify index {index}: job exists with conflicting job modify "
                f"index: {job.index}"
            )
        return None


def submitted(job: str, groups: tuple[str, ...]) -> dict[str, Any]:
    """A job of one worker a group."""
    return {
        "ID": job,
        "Name": job,
        "Namespace": "default",
        "Meta": {"team": "wines"},
        "TaskGroups": [
            {
                "Name": name,
                "Count": 1,
                "Scaling": {"Min": 0, "Max": 10, "Enabled": True, "Policy": {"cooldown": "1m"}},
                "Tasks": [{
                    "Name": "worker", "Driver": "docker",
                    "Config": {"image": "headrace", "args": ["worker", "--model", name]},
                }],
            }
            for name in groups
        ],
    }  # fmt: skip
