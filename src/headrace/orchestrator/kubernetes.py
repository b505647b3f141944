"""`kubernetes://host:port/NAMESPACE`: each workload is the deployment of its name.

`kubernetes:///NAMESPACE` from inside the cluster, as the pod's service account. It may `get`
deployments and `patch` deployments/scale, and for versions `create` and `delete` deployments; if it
may also `list` horizontalpodautoscalers, a deployment that one of them scales is left alone.
Options: `prefix` before the deployment's name, `tls=0` for `kubectl proxy`, `ca`, `cert`, `key`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

import httpx
import msgspec
import structlog

from headrace.errors import NotFound
from headrace.orchestrator import copies, refusals
from headrace.orchestrator.kubernetes_copy import MARK, copied
from headrace.orchestrator.port import Status
from headrace.orchestrator.web import TLS, Web, options, tls, words
from headrace.schemes import shown

log = structlog.get_logger("headrace.orchestrator")

#: What every pod is given.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MOST = 2**31 - 1  # replicas are 32 bits
#: A deployment's version moves with its status, too: so often it is read again before we give up.
TRIES = 5


class _Meta(msgspec.Struct, rename="camel"):
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Container(msgspec.Struct):
    command: list[str] | None = None
    args: list[str] | None = None


class _Pod(msgspec.Struct):
    containers: list[_Container] = []


class _Template(msgspec.Struct):
    spec: _Pod = msgspec.field(default_factory=_Pod)


class _Spec(msgspec.Struct):
    replicas: int = 1
    template: _Template = msgspec.field(default_factory=_Template)


class _Found(msgspec.Struct, rename="camel"):
    """The status of a deployment: what is 0 is left out."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0


class _Deployment(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Found = msgspec.field(default_factory=_Found)


class _Target(msgspec.Struct):
    kind: str = ""
    name: str = ""


class _ScalerSpec(msgspec.Struct, rename="camel"):
    scale_target_ref: _Target = msgspec.field(default_factory=_Target)


class _ScalerMeta(msgspec.Struct):
    name: str = ""


class _Scaler(msgspec.Struct):
    metadata: _ScalerMeta
    spec: _ScalerSpec


class _Scalers(msgspec.Struct):
    items: list[_Scaler] | None = None


class _Token(NamedTuple):
    """Of a `Status`. `generation` moves with the deployment's spec alone, `version` with all."""

    uid: str
    generation: str
    version: str

    @classmethod
    def of(cls, meta: _Meta) -> _Token:
        return cls(meta.uid, str(meta.generation), meta.resource_version)

    @classmethod
    def read(cls, text: str) -> _Token:
        uid, _, rest = text.partition("/")
        generation, _, version = rest.partition("/")
        return cls(uid, generation, version)

    def __str__(self) -> str:
        return "/".join(self)

    def same_spec(self, other: _Token) -> bool:
        return self[:2] == other[:2]


class KubernetesOrchestrator:
    """One namespace of one cluster."""

    def __init__(self, url: str, *, token_file: str = "", timeout_s: float = 5.0) -> None:
        """Raises ValueError, and OSError where a file that the URL names is not there."""
        at = urlsplit(url)
        given = options(at, {"prefix", "tls", *TLS})
        secure = given.get("tls", "1") not in ("0", "false")
        host, own = _host(at)
        if own:
            given = {"ca": str(ACCOUNT / "ca.crt")} | given
            token_file = token_file or str(ACCOUNT / "token")
        self._namespace = at.path.strip("/") or _namespace(own)
        if "/" in self._namespace:
            raise ValueError(
                f"orchestrator.url = {shown(url)!r}: expected kubernetes://host:port/namespace"
            )
        self._web = Web(
            f"{'https' if secure else 'http'}://{host}",
            name="the Kubernetes API",
            timeout_s=timeout_s,
            tls=tls(given) if secure else None,
            token_file=token_file,
        )
        self._prefix = given.get("prefix", "")
        self._alone: set[str] = set()  # deployments that no other autoscaler was found to scale

    async def open(self) -> None:
        """Connections are made when they are needed."""

    async def close(self) -> None:
        await self._web.close()

    async def status(self, workload: str) -> Status:
        found = await self._read(workload)
        told, meta = found.status, found.metadata
        return Status(
            desired=found.spec.replicas,
            running=told.replicas,
            ready=told.ready_replicas,
            # Pods of an older version are left, or nobody has looked at the newest change yet.
            moving=told.replicas > told.updated_replicas
            or told.observed_generation < meta.generation,
            token=str(_Token.of(meta)),
        )

    async def scale(
        self, workload: str, count: int, reason: str, seen: Status | None = None
    ) -> None:
        if not 0 <= count <= MOST:
            raise refusals.out_of_bounds(f"{count} of {workload!r}")
        await self._look_for_another(workload)
        token = _Token.read(seen.token) if seen else None
        for _ in range(TRIES):
            if await self._patch(workload, count, token):
                log.info("scaled", workload=workload, count=count, reason=reason)
                return
            if token is None:  # without a version in it a patch has nothing to conflict with
                break
            now = _Token.of((await self._read(workload)).metadata)
            if not now.same_spec(token):
                break
            token = now
        raise refusals.changed(f"{self._name(workload)!r} was changed by somebody else")

    async def create(self, workload: str, count: int, reason: str) -> None:
        model = copies.model_of(workload)
        if not 0 <= count <= MOST:
            raise refusals.out_of_bounds(f"{count} of {workload!r}")
        try:
            await self._read(workload)
        except NotFound:
            found = self._web.read(await self._get(model), dict[str, Any])
            if await self._make(copied(found, self._name(workload), workload, count)):
                log.info("made", workload=workload, count=count, reason=reason)
                return
            await self._read(workload)  # somebody was quicker; or another's has the name
        await self.scale(workload, count, reason)

    async def remove(self, workload: str, reason: str) -> None:
        try:
            found = await self._read(workload)
            if (found.metadata.annotations or {}).get(MARK) != workload:
                await self.scale(workload, 0, reason)
                return
        except NotFound:
            return
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
            "preconditions": {"uid": found.metadata.uid},  # this one, and none of the name's
        }
        answer = await self._web.ask(
            "DELETE", self._path(workload), msgspec.json.encode(options), told=[202, 404, 409]
        )
        if answer.status_code == 409:
            raise refusals.changed(f"{self._name(workload)!r} was made anew by somebody else")
        self._alone.discard(self._name(workload))
        log.info("removed", workload=workload, reason=reason)

    async def note(self, workload: str, text: str) -> None:
        await self._read(workload)
        log.info("note", workload=workload, text=text)

    def _name(self, workload: str) -> str:
        """Of its deployment: such names have no underscores, and no @ before a version."""
        return self._prefix + workload.replace("_", "-").replace("@", "-")

    @property
    def _place(self) -> str:
        return f"/apis/apps/v1/namespaces/{quote(self._namespace, safe='')}/deployments"

    def _path(self, workload: str) -> str:
        return f"{self._place}/{quote(self._name(workload), safe='')}"

    def _unknown(self, workload: str, answer: httpx.Response) -> Exception:
        return refusals.unknown(
            f"no deployment {self._name(workload)!r} in namespace {self._namespace!r}: "
            f"{words(answer)}"
        )

    async def _get(self, workload: str) -> httpx.Response:
        answer = await self._web.ask("GET", self._path(workload), told=[404])
        if answer.status_code == 404:
            raise self._unknown(workload, answer)
        return answer

    async def _read(self, workload: str) -> _Deployment:
        """Raises NotFound, also where the deployment of this name is of another workload: version 3
        of `wine` and the model `wine-3` would have the same."""
        found = self._web.read(await self._get(workload), _Deployment)
        pod = found.spec.template.spec
        said = [w for each in pod.containers for w in (each.command or []) + (each.args or [])]
        served = copies.served(said)
        if "@" in workload and served and workload not in served:
            name = self._name(workload)
            raise refusals.unknown(f"deployment {name!r} is not of {workload} but of {served[0]}")
        return found

    async def _make(self, deployment: dict[str, Any]) -> bool:
        """False where there is one of its name."""
        answer = await self._web.ask(
            "POST", self._place, msgspec.json.encode(deployment), told=[202, 409, 422]
        )
        if answer.status_code == 422:
            raise refusals.not_copied(f"the Kubernetes API: {words(answer)}")
        return answer.status_code != 409

    async def _patch(self, workload: str, count: int, token: _Token | None) -> bool:
        """False where the deployment has another version than the token's."""
        change: dict[str, object] = {"spec": {"replicas": count}}
        if token:
            change["metadata"] = {"resourceVersion": token.version}
        answer = await self._web.ask(
            "PATCH", f"{self._path(workload)}/scale", msgspec.json.encode(change),
            content_type="application/merge-patch+json", told=[404, 409, 422],
        )  # fmt: skip
        if answer.status_code == 404:
            raise self._unknown(workload, answer)
        if answer.status_code == 422:
            raise refusals.out_of_bounds(f"{count} of {workload!r}: {words(answer)}")
        return answer.status_code != 409

    async def _look_for_another(self, workload: str) -> None:
        """Before a deployment is scaled for the first time. Raises Conflict."""
        name = self._name(workload)
        if name in self._alone:
            return
        place = f"/apis/autoscaling/v2/namespaces/{quote(self._namespace, safe='')}"
        answer = await self._web.ask(
            "GET", f"{place}/horizontalpodautoscalers", told=[401, 403, 404]
        )
        if answer.status_code in (200, 201):
            for scaler in self._web.read(answer, _Scalers).items or ():
                target = scaler.spec.scale_target_ref
                if (target.kind, target.name) == ("Deployment", name):
                    raise refusals.shared(
                        f"HorizontalPodAutoscaler {scaler.metadata.name!r} scales {name!r}: "
                        "remove one of the two hands"
                    )
        self._alone.add(name)


def _host(at: SplitResult) -> tuple[str, bool]:
    """host:port, and whether it is the cluster that we run in. Raises ValueError."""
    own = not at.hostname
    host = at.hostname or os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = at.port or (os.environ.get("KUBERNETES_SERVICE_PORT", "443") if own else 443)
    if not host:
        raise ValueError(
            f"orchestrator.url = {shown(at.geturl())!r}: no host in it, and no "
            "KUBERNETES_SERVICE_HOST in the environment, as a pod has it"
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}", own


def _namespace(own: bool) -> str:
    """Where the URL names none."""
    try:
        return (ACCOUNT / "namespace").read_text().strip() if own else "default"
    except OSError:
        return "default"
