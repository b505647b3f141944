"""The manifests of deploy/ as the tests read them: each as the roles that it starts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import hcl2
import yaml
from pages import ROOT

DEPLOY = ROOT / "deploy"
SETTINGS = DEPLOY / "headrace.toml"
IN_IMAGE = "/app/headrace.toml"
Tree = dict[str, Any]


class Probe(NamedTuple):
    path: str  # "" for whether the port is open
    port: str


class Role(NamedTuple):
    """One role as a manifest starts it."""

    place: str
    command: list[str]  # behind `headrace`
    environment: dict[str, str]
    grace_s: float  # from SIGTERM to SIGKILL
    probes: list[Probe]

    def __str__(self) -> str:
        return f"{self.place}:{self.command[0]}"

    def option(self, name: str) -> str:
        """ "" where it is not given."""
        return dict(zip(self.command, [*self.command[1:], ""], strict=True)).get(name, "")


def seconds(text: Any) -> float:
    """ "90s", "2m" or 90."""
    value, unit = re.fullmatch(r"(\d+)(s|m|)", str(text)).groups()  # type: ignore[union-attr]
    return float(value) * (60 if unit == "m" else 1)


# -- Kubernetes ------------------------------------------------------------------------------------

BASE = DEPLOY / "kubernetes" / "base"
KEDA = DEPLOY / "kubernetes" / "overlays" / "keda"


def documents(path: Path) -> list[Tree]:
    return list(yaml.load_all(path.read_text(), yaml.CSafeLoader))


def kustomized(folder: Path) -> list[Tree]:
    """What `kubectl apply -k` would send, as far as ours use it: resources, namespace, patches."""
    [kustomization] = documents(folder / "kustomization.yaml")
    assert set(kustomization) <= {
        "apiVersion", "kind", "namespace", "resources", "patches", "images",
    }  # fmt: skip
    objects: list[Tree] = []
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        objects += kustomized(path) if path.is_dir() else documents(path)
    for patch in kustomization.get("patches", []):
        [target] = [
            o for o in objects if named(o) == (patch["target"]["kind"], patch["target"]["name"])
        ]
        for step in yaml.safe_load(patch["patch"]):
            apply(step, target)
    for found in objects:
        if found["kind"] != "Namespace":
            found["metadata"].setdefault("namespace", kustomization["namespace"])
    return objects


def named(found: Tree) -> tuple[str, str]:
    return found["kind"], found["metadata"]["name"]


def apply(step: Tree, target: Any) -> None:
    """One operation of a JSON patch (RFC 6902). Raises where its path leads nowhere."""
    *way, last = step["path"].removeprefix("/").split("/")
    for key in way:
        target = target[int(key) if isinstance(target, list) else key]
    place: Any = int(last) if isinstance(target, list) else last
    if step["op"] in ("replace", "remove"):
        target[place]  # it is there
    else:
        assert step["op"] == "add"
        assert isinstance(target, dict)
    if step["op"] == "remove":
        del target[place]
    else:
        target[place] = step["value"]


def of_kind(objects: list[Tree], kind: str) -> dict[str, Tree]:
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def container_of(deployment: Tree) -> Tree:
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return container


def kubernetes_roles(folder: Path) -> Iterator[Role]:
    objects = kustomized(folder)
    maps = of_kind(objects, "ConfigMap")
    secrets = of_kind(documents(BASE / "secret.example.yaml"), "Secret")
    for name, deployment in of_kind(objects, "Deployment").items():
        container = container_of(deployment)
        environment: dict[str, str] = {}
        for source in container["envFrom"]:
            if "configMapRef" in source:
                environment |= maps[source["configMapRef"]["name"]]["data"]
            else:
                environment |= secrets[source["secretRef"]["name"]]["stringData"]
        environment |= {one["name"]: one["value"] for one in container.get("env", [])}
        ports = {one["name"]: str(one["containerPort"]) for one in container.get("ports", [])}
        probes = []
        for kind in ("readinessProbe", "livenessProbe"):
            if probe := container.get(kind):
                asked = probe.get("httpGet") or probe["tcpSocket"]
                probes.append(Probe(asked.get("path", ""), ports[asked["port"]]))
        grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        place = f"{folder.name}/{name}"
        yield Role(place, container["args"], environment, seconds(grace), probes)


# -- Nomad -----------------------------------------------------------------------------------------

JOB = DEPLOY / "nomad" / "headrace.nomad.hcl"


def plain_hcl(value: Any) -> Any:
    """Without the parser's marks: texts without quotes, blocks as dicts of lists."""
    if isinstance(value, dict):
        return {
            plain_hcl(k): plain_hcl(v)
            for k, v in value.items()
            if not (k.startswith("__") and k.endswith("__"))
        }
    if isinstance(value, list):
        return [plain_hcl(one) for one in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


@cache
def hcl(path: Path) -> Tree:
    """Not to be changed: it is read once, which takes its time."""
    with path.open() as file:
        return dict(plain_hcl(hcl2.load(file)))


def labelled(blocks: list[Tree]) -> Tree:
    """[{label: body}, ...] -> {label: body}; no label twice."""
    found: Tree = {}
    for block in blocks:
        assert not found.keys() & block.keys()
        found |= block
    return found


def job() -> Tree:
    return dict(labelled(hcl(JOB)["job"])["headrace"])


def variables() -> dict[str, str]:
    return {
        name: str(body.get("default", "headrace"))
        for name, body in labelled(hcl(JOB)["variable"]).items()
    }


def filled(text: Any, ports: dict[str, str]) -> str:
    """An expression with the defaults of the variables, and any port for one of Nomad's choice."""
    given = {f"var.{name}": value for name, value in variables().items()}
    given |= {f"NOMAD_PORT_{name}": port for name, port in ports.items()}
    given |= {"NOMAD_SECRETS_DIR": "/secrets", "NOMAD_ALLOC_DIR": "/alloc"}
    return re.sub(r"\$\{([\w.]+)\}", lambda found: given[found[1]], str(text))


def nomad_roles() -> Iterator[Role]:
    for name, group in labelled(job()["group"]).items():
        ports: dict[str, str] = {}
        for network in group.get("network", []):
            for label, body in labelled(network["port"]).items():
                ports[label] = filled(body.get("static", "20001"), {})
        probes = [
            Probe(check["path"], ports[service["port"]])
            for service in group.get("service", [])
            for check in service["check"]
        ]
        [task] = labelled(group["task"]).values()
        command = [filled(one, ports) for one in task["config"][0]["args"]]
        environment = {k: filled(v, ports) for k, v in task["env"][0].items()}
        yield Role(f"nomad/{name}", command, environment, seconds(task["kill_timeout"]), probes)


# -- systemd ---------------------------------------------------------------------------------------

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
INSTANCE = "wine-cultivar"


def unit(path: Path) -> dict[str, dict[str, list[str]]]:
    """Section -> key -> values, as systemd reads it. Raises ValueError for any other line."""
    sections: dict[str, dict[str, list[str]]] = {}
    section = None
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if found := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(found[1], {})
        elif (found := re.fullmatch(r"(\w+)=(.*)", line)) and section is not None:
            section.setdefault(found[1], []).append(found[2])
        else:
            raise ValueError(f"{path.name}: {line!r}")
    return sections


def env_file(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text().splitlines() if line and line[0] != "#")
    return dict(line.split("=", 1) for line in lines)


def systemd_roles() -> Iterator[Role]:
    for path in UNITS:
        service = unit(path)["Service"]
        environment = dict(one.split("=", 1) for one in service.get("Environment", []))
        if "/etc/headrace/headrace.env" in service.get("EnvironmentFile", []):
            environment |= env_file(DEPLOY / "systemd" / "headrace.env")
        [line] = service["ExecStart"]
        for name, value in environment.items():
            line = line.replace(f"${{{name}}}", value)
        program, *command = shlex.split(line.replace("%i", INSTANCE))
        assert program == "/opt/headrace/bin/headrace"
        [grace] = service["TimeoutStopSec"]
        yield Role(f"systemd/{path.name}", command, environment, seconds(grace), [])


# -- compose and the image -------------------------------------------------------------------------

COMPOSE = DEPLOY / "compose" / "compose.yaml"
CONTAINERFILE = DEPLOY / "Containerfile"


def compose() -> Tree:
    """With a password, and without the merges of YAML."""
    text = re.sub(r"\$\{\w+:\?\}", "password", COMPOSE.read_text())
    assert "$" not in text, "a variable without a word on what happens where it is not set"
    return dict(yaml.safe_load(text))


def compose_roles() -> Iterator[Role]:
    for name, service in compose()["services"].items():
        if service["image"] != "headrace":
            continue
        said = " ".join(service.get("healthcheck", {}).get("test", []))
        probes = [Probe(path, port) for port, path in re.findall(r"127.0.0.1:(\d+)(/[\w/]+)", said)]
        yield Role(f"compose/{name}", service["command"], image()[1] | service["environment"],
                   seconds(service["stop_grace_period"]), probes)  # fmt: skip


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", CONTAINERFILE.read_text())
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def image() -> tuple[list[str], dict[str, str]]:
    """What it runs by itself, and its environment."""
    found = dict(instructions())
    command = yaml.safe_load(found["CMD"])
    assert yaml.safe_load(found["ENTRYPOINT"]) == ["headrace"]
    return command, dict(one.split("=", 1) for one in found["ENV"].split())


def roles() -> list[Role]:
    command, environment = image()
    return [
        *kubernetes_roles(BASE),
        *kubernetes_roles(KEDA),
        *nomad_roles(),
        *systemd_roles(),
        *compose_roles(),
        Role("image", command, environment, 0, []),
    ]
