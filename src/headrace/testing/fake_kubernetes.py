"""As much of the Kubernetes API as scaling needs, by the rules that its servers follow.

Not a judge of what a real cluster does: the exam runs over one, too, where KUBECONFIG is set.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

from headrace.testing.fake_http import Asked, FakeHttp

TOKEN = "only-this-one"  # noqa: S105
Said = tuple[int, Any]


@dataclass
class Deployment:
    """`pods` run, of which `old` are of an earlier version and `ready` answer. `meta` and `spec`:
    as they were sent, without the count."""

    replicas: int
    pods: int
    old: int = 0
    ready: int = 0
    generation: int = 1
    observed: int = 1
    uid: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)


class FakeKubernetes(FakeHttp):
    """One namespace. `hurries`: the controller does at once what is asked for. `restless`: so many
    reads are each followed by a change of a deployment's status."""

    def __init__(
        self,
        namespace: str = "models",
        deployments: tuple[str, ...] = ("square",),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        self.namespace = namespace
        self.deployments = {name: _first(name) for name in deployments}
        self.version = 100
        self.made = 0
        self.scalers: dict[str, str] | None = {}  # name -> deployment; None: we may not see them
        self.hurries, self.restless = True, 0
        self.token = TOKEN

    def url(self, namespace: str = "") -> str:
        return f"kubernetes://127.0.0.1:{self.port}/{namespace or self.namespace}?tls=0"

    def settle(self) -> None:
        """The controller has done what was asked for."""
        with self.lock:
            for one in self.deployments.values():
                one.pods = one.ready = one.replicas
                one.old, one.observed = 0, one.generation
            self.version += 1

    def act(self, asked: Asked) -> Said:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return 401, _status(401, "Unauthorized")
        if asked.path[0] != "apis" or asked.path[3:5] != ["namespaces", self.namespace]:
            return 404, _status(404, "NotFound")
        group, below = asked.path[1:3], asked.path[5:]
        if group == ["autoscaling", "v2"] and below == ["horizontalpodautoscalers"]:
            return self._scalers()
        if group != ["apps", "v1"] or below[:1] != ["deployments"]:
            return 404, _status(404, "NotFound")
        if asked.method == "POST" and len(below) == 1:
            return self._create(asked.body)
        return self._of_one(asked, below)

    def _of_one(self, asked: Asked, below: list[str]) -> Said:
        one = self.deployments.get(below[1])
        if one is None:
            return 404, _status(404, f'deployments.apps "{below[1]}" not found')
        if asked.method == "GET" and len(below) == 2:
            said = self._read(below[1], one)
            if self.restless:
                self.restless -= 1
                self.version += 1
            return 200, said
        if asked.method == "PATCH" and below[2:] == ["scale"]:
            return self._patch(one, asked)
        if asked.method == "DELETE" and len(below) == 2:
            return self._delete(below[1], one, asked.body)
        return 405, _status(405, "MethodNotAllowed")

    def _scalers(self) -> Said:
        if self.scalers is None:
            return 403, _status(403, "Forbidden")
        items = [
            {
                "metadata": {"name": name},
                "spec": {"scaleTargetRef": {"kind": "Deployment", "name": deployment}},
            }
            for name, deployment in self.scalers.items()
        ]
        return 200, {"kind": "HorizontalPodAutoscalerList", "items": items}

    def _create(self, body: dict[str, Any]) -> Said:
        meta, spec = body["metadata"], dict(body["spec"])
        if meta["name"] in self.deployments:
            return 409, _status(409, f'deployments.apps "{meta["name"]}" already exists')
        if meta.keys() & {"resourceVersion", "uid"} or "status" in body:
            return 400, _status(400, "resourceVersion should not be set on objects to be created")
        selector, pods = spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]
        values = [*meta.get("labels", {}).values(), *pods.values()]
        if not selector.items() <= pods.items() or any(len(value) > 63 for value in values):
            return 422, _status(422, "spec.template.metadata.labels: Invalid value")
        count = spec.pop("replicas", 1)
        self.made += 1
        one = Deployment(count, pods=0, uid=f"u-{self.made}", meta=meta, spec=spec, observed=0)
        self.deployments[meta["name"]] = one
        self.version += 1
        if self.hurries:
            self.settle()
        return 201, self._read(meta["name"], one)

    def _delete(self, name: str, one: Deployment, options: dict[str, Any] | None) -> Said:
        wanted = (options or {}).get("preconditions", {}).get("uid", one.uid)
        if wanted != one.uid:
            return 409, _status(409, "the UID in the precondition does not match")
        del self.deployments[name]
        return 200, {"kind": "Status", "status": "Success"}

    def _read(self, name: str, one: Deployment) -> dict[str, Any]:
        told = {
            "observedGeneration": one.observed, "replicas": one.pods, "readyReplicas": one.ready,
            "updatedReplicas": one.pods - one.old,
        }  # fmt: skip
        return {
            "kind": "Deployment",
            "metadata": one.meta
            | {
                "name": name,
                "uid": one.uid,
                "generation": one.generation,
                "resourceVersion": str(self.version),
            },
            "spec": one.spec | {"replicas": one.replicas},
            "status": {key: value for key, value in told.items() if value},
        }

    def _patch(self, one: Deployment, asked: Asked) -> Said:
        if asked.headers.get("content-type") != "application/merge-patch+json":
            return 415, _status(415, "UnsupportedMediaType")
        version = asked.body.get("metadata", {}).get("resourceVersion", str(self.version))
        if version != str(self.version):
            return 409, _status(409, "the object has been modified")
        count = asked.body["spec"]["replicas"]
        if not 0 <= count < 2**31:
            return 422, _status(422, "spec.replicas: Invalid value")
        if count != one.replicas:
            one.replicas = count
            one.generation += 1
            self.version += 1
            if self.hurries:
                self.settle()
        return 200, {"kind": "Scale", "spec": {"replicas": count}}


def _first(name: str) -> Deployment:
    """As somebody applied it, of a worker that serves the model of its name."""
    labels = {"app.kubernetes.io/name": "headrace", "app.kubernetes.io/component": f"worker-{name}"}
    return Deployment(
        1, pods=1, ready=1, uid=f"u-{name}",
        meta={
            "labels": labels | {"app.kubernetes.io/instance": "argo"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}",
                            "deployment.kubernetes.io/revision": "7"},
            "ownerReferences": [{"kind": "House", "name": "wines"}],
        },
        spec={
            "paused": False,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels | {"team": "wines"},
                             "annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-01",
                                             "prometheus.io/scrape": "true"}},
                "spec": {
                    "containers": [{"name": "worker", "args": ["worker", "--model", name]}],
                    "topologySpreadConstraints": [{"labelSelector": {"matchLabels": labels}}],
                },
            },
        },
    )  # fmt: skip


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "message": message}
