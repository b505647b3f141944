"""A model's deployment -> one for a version of it, with pods that no other selector finds."""

from __future__ import annotations

import copy
from typing import Any
from zlib import crc32

from headrace.deployments import parted
from headrace.orchestrator import copies, refusals

Tree = dict[str, Any]

#: An annotation: which workload we made it for. What has none is somebody else's.
MARK = "headrace.dev/workload"
#: A label, for people who look for them all.
BY = {"app.kubernetes.io/managed-by": "headrace"}
MOST_LABEL = 63


def copied(found: Tree, name: str, workload: str, count: int) -> Tree:
    """What is said of the deployment as an object (labels, annotations, owners) stays behind: it
    tells kubectl, Helm or whoever applied it that it is theirs, and they would remove the copy.
    Raises Invalid."""
    spec = copy.deepcopy(found["spec"])
    spec.pop("paused", None)
    spec["replicas"] = count
    labels = spec.get("selector", {}).get("matchLabels")
    if not labels:
        raise refusals.not_copied(f"deployment {_name(found)!r} has no selector.matchLabels")
    key = _telling(labels, workload)
    old, new = labels[key], _own(labels[key], parted(workload)[1])
    template = spec["template"]
    meta = template["metadata"]
    labels[key] = meta["labels"][key] = new
    notes = meta.get("annotations") or {}
    meta["annotations"] = {k: v for k, v in notes.items() if not k.startswith("kubectl.")}
    _follow(template["spec"], key, old, new)
    containers = template["spec"]["containers"]
    commands = [each[part] for each in containers for part in ("command", "args") if each.get(part)]
    copies.rename(commands, workload)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels | BY, "annotations": {MARK: workload}},
        "spec": spec,
    }


def _telling(labels: dict[str, str], workload: str) -> str:
    """The label of the selector that names the model; else any, always the same."""
    model = copies.model_of(workload).replace("_", "-")
    names = [key for key in sorted(labels) if labels[key].replace("_", "-").endswith(model)]
    return names[0] if names else max(labels)


def _own(value: str, version: int) -> str:
    made = f"{value}-{version}"
    if len(made) <= MOST_LABEL:
        return made
    short = f"-{crc32(value.encode()):08x}-{version}"
    return value[: MOST_LABEL - len(short)] + short


def _follow(tree: Any, key: str, old: str, new: str) -> None:
    """Pods that keep away from their like, or spread among them, mean their own."""
    if isinstance(tree, list):
        for each in tree:
            _follow(each, key, old, new)
    elif isinstance(tree, dict):
        for name, value in tree.items():
            if name == "matchLabels" and isinstance(value, dict) and value.get(key) == old:
                value[key] = new
            else:
                _follow(value, key, old, new)


def _name(found: Tree) -> str:
    return str(found["metadata"]["name"])
