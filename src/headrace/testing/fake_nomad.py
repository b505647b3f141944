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


class FakeNomad(FakeHttp):
    """One job. `deploys`: each change of a count is a deployment, which lasts until `settle`.
    `knows_index`: it looks at JobModifyIndex, as servers do from some version on. `stopped`: it
    still takes counts, and starts nothing.

    Stricter than a real server in one thing: it compares and writes at once."""

    def __init__(self, job: str = "house", groups: tuple[str, ...] = ("square",)) -> None:
        super().__init__()
        self.job, self.groups = job, {name: Group(1, started=1) for name in groups}
        self.index, self.modified = 10, 11  # of the job as it was submitted; of its state, too
        self.deployment: str | None = None
        self.deploys, self.knows_index, self.stopped = False, True, False

    def url(self, job: str = "") -> str:
        return f"nomad://127.0.0.1:{self.port}/{job or self.job}"

    def settle(self) -> None:
        """What was asked for runs; a deployment is over."""
        with self.lock:
            for group in self.groups.values():
                group.started = group.count
            self.modified += 1
            if self.deployment:
                self.deployment = "successful"

    def meddle(self) -> None:
        """Somebody submits the job again."""
        with self.lock:
            self.index, self.modified = self.modified + 7, self.modified + 8

    def act(self, asked: Asked) -> Said:
        if asked.headers.get("x-nomad-token") != TOKEN:
            return 403, "Permission denied"
        if asked.path[:2] != ["v1", "job"] or len(asked.path) > 4:
            return 404, "Invalid path"
        if asked.path[2] != self.job:
            return 404, "job not found"
        what = "".join(asked.path[3:])
        if asked.method == "POST" and what == "scale":
            return self._scale(asked.body)
        if asked.method != "GET":
            return 405, "Invalid method"
        return {"": self._job, "scale": self._status, "deployment": self._deployment}[what]()

    def _job(self) -> Said:
        said = {"ID": self.job, "Stop": self.stopped, "JobModifyIndex": self.index}
        return 200, said | {"ModifyIndex": self.modified}

    def _status(self) -> Said:
        groups = {
            name: {
                "Desired": group.count, "Placed": group.started, "Running": group.started,
                "Healthy": group.started, "Unhealthy": 0, "Events": group.events or None,
            }
            for name, group in self.groups.items()
        }  # fmt: skip
        # Under this name it gives what the job's state moves, too.
        return 200, {"JobID": self.job, "JobModifyIndex": self.modified, "TaskGroups": groups}

    def _deployment(self) -> Said:
        return 200, {"Status": self.deployment} if self.deployment else None

    def _scale(self, body: dict[str, Any]) -> Said:
        name, count = body["Target"].get("Group", ""), body.get("Count")
        group = self.groups.get(name)
        if group is None:
            return 400, f'task group "{name}" specified for scaling does not exist in job'
        if count is not None:
            no = self._why_not(group, count, body)
            if no:
                return no
            if count != group.count:
                group.count, self.index = count, self.modified + 1
                self.modified += 2
                if self.deploys:
                    self.deployment = "running"
                else:
                    group.started = count
        event = {"Count": count, "Message": body.get("Message", ""), "Meta": body.get("Meta")}
        group.events.insert(0, event | {"Error": body.get("Error", False)})
        return 200, {"JobModifyIndex": self.modified, "EvalID": ""}

    def _why_not(self, group: Group, count: int, body: dict[str, Any]) -> Said | None:
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
        if self.deployment in ("running", "paused", "pending"):
            return 400, "job scaling blocked due to active deployment"
        index = body.get("JobModifyIndex", 0)
        if self.knows_index and index and index != self.index:
            return 500, (
                f"Enforcing job modify index {index}: job exists with conflicting job modify "
                f"index: {self.index}"
            )
        return None
