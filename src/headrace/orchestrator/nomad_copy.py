"""A model's task group -> a job of its own for a version of the model."""

from __future__ import annotations

import copy
from typing import Any

from headrace.orchestrator import copies

Tree = dict[str, Any]

#: In the job's meta: of which job it is a copy. What has none is somebody else's.
MARK = "headrace_copy_of"
#: What servers write into a job, and what only a whole job can be.
LEFT = frozenset({
    "Stop", "ParentID", "Dispatched", "DispatchIdempotencyToken", "Payload", "NomadTokenID",
    "Status", "StatusDescription", "Stable", "Version", "SubmitTime", "CreateIndex", "ModifyIndex",
    "JobModifyIndex", "VersionTag", "Multiregion", "Periodic", "ParameterizedJob",
})  # fmt: skip


def copied(job: Tree, group: Tree, name: str, workload: str, count: int) -> Tree:
    """Raises Invalid."""
    group = copy.deepcopy(group)
    group["Count"] = count
    if scaling := group.get("Scaling"):
        # A version begins with fewer than the least, and ends with none. What the policy in it
        # tells another autoscaler is not told twice.
        group["Scaling"] = {"Min": 0, "Max": scaling.get("Max"), "Enabled": scaling.get("Enabled")}
    configs = [task.get("Config") or {} for task in group.get("Tasks") or ()]
    copies.rename([config["args"] for config in configs if config.get("args")], workload)
    kept = {key: copy.deepcopy(value) for key, value in job.items() if key not in LEFT}
    meta = (job.get("Meta") or {}) | {MARK: job["ID"]}
    return kept | {"ID": name, "Name": name, "Meta": meta, "TaskGroups": [group]}
