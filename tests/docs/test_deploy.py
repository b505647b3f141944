"""What deploy/ says is true of the code: commands, settings, ports, times, bounds, rights."""

from __future__ import annotations

import copy
import inspect
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import typer
from deployed import (
    BASE,
    COMPOSE,
    CONTAINERFILE,
    DEPLOY,
    IN_IMAGE,
    INSTANCE,
    KEDA,
    SETTINGS,
    UNITS,
    Role,
    Tree,
    apply,
    compose,
    container_of,
    documents,
    hcl,
    image,
    instructions,
    job,
    kustomized,
    labelled,
    named,
    of_kind,
    roles,
    seconds,
    unit,
    variables,
)
from pages import ROOT

from headrace import roles as starts
from headrace import schemes, settings
from headrace.cli.face import app
from headrace.gateway import pages as gateway_pages
from headrace.orchestrator import copies
from headrace.orchestrator.kubernetes_copy import copied
from headrace.settings import Settings
from headrace.worker import role as worker_role

ROLES = roles()
OVERLAYS = {"base": BASE, "keda": KEDA}
NEWEST, OLDEST = "1.37", "1.29"  # of Kubernetes
ALONE = ("headrace-monitor", "headrace-retrain")  # deployments that are one pod


def settled(role: Role) -> Settings:
    """Raises SettingsError: an unknown key, or a value that is none."""
    return settings.load(SETTINGS, environment=role.environment)


def with_scale() -> dict[str, Any]:
    return settings.load(SETTINGS, environment={}).policies()


# -- every role, wherever it runs ------------------------------------------------------------------


def accepted(command: list[str]) -> str:
    """The command as the real command line parses it, without running it. Raises UsageError."""
    found: Any = typer.main.get_command(app)
    context = found.make_context("headrace", list(command))
    while hasattr(found, "resolve_command"):
        name, found, rest = found.resolve_command(
            context, [*getattr(context, "_protected_args", ()), *context.args]
        )
        context = found.make_context(name, rest, parent=context)
    return str(context.command_path)


@pytest.mark.parametrize("role", ROLES, ids=str)
def test_the_command_is_one(role: Role) -> None:
    assert accepted(role.command).startswith(f"headrace {role.command[0]}")
    file = role.option("-f")
    assert file == ("/srv/headrace/headrace.toml" if "systemd" in role.place else IN_IMAGE)


@pytest.mark.parametrize("command", [["gateway", "--lisen", "x"], ["gatewey"], ["worker", "-f"]])
def test_a_wrong_command_is_found(command: list[str]) -> None:
    with pytest.raises(typer.BadParameter.__mro__[1]):
        accepted(command)


@pytest.mark.parametrize("role", ROLES, ids=str)
def test_the_environment_is_settings(role: Role) -> None:
    loaded = settled(role)
    ours = {name for name in role.environment if name.startswith(settings.PREFIX)}
    assert {name for name in ours if "__" not in name} == set(), "read by nobody"
    known = {
        loaded.broker.url: schemes.BROKERS,
        loaded.cache.url: schemes.CACHES,
        loaded.objects.url: schemes.OBJECTS,
        loaded.objects.transit: schemes.OBJECTS,
        loaded.orchestrator.url: schemes.ORCHESTRATORS,
        loaded.registry.url: schemes.REGISTRIES,
    }
    for url, table in known.items():
        assert not url or urlsplit(url).scheme in table, url
    if model := role.option("--model"):
        assert model in loaded.models


@pytest.mark.parametrize("role", [r for r in ROLES if r.command[0] != "up"], ids=str)
def test_roles_on_several_machines_meet(role: Role) -> None:
    """Nothing that they share is left to a default, which is of one machine."""
    loaded = settled(role)
    nomad = role.place.startswith("nomad/")  # its secrets come by a template, the database's too
    for url in (loaded.broker.url, loaded.objects.url, loaded.objects.transit):
        assert url
        assert "127.0.0.1" not in url
    assert nomad or loaded.database.url.startswith("postgresql://")
    shared = ("s3", "gs", "az") if not role.place.startswith("compose/") else ("file",)
    assert urlsplit(loaded.objects.transit).scheme in shared
    assert urlsplit(loaded.objects.url).scheme in shared
    registry = "mlflow" if not role.place.startswith("compose/") else "file"
    assert urlsplit(loaded.registry.url).scheme == registry


def shown() -> list[list[str]]:
    """The commands on docs/deploy.md, continued lines as one."""
    text = (ROOT / "docs" / "deploy.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^    (?:.* -- +)?headrace (\w+ .*)$", text, re.MULTILINE)
    named = re.findall(r"`headrace ([\w ]+)`", text)
    return [shlex.split(line) for line in [*lines, *named]]


@pytest.mark.parametrize("command", shown(), ids=lambda command: " ".join(command[:3]))
def test_the_commands_on_the_page_are_some(command: list[str]) -> None:
    accepted(command)


def test_an_unknown_setting_is_found() -> None:
    wrong = ROLES[0]._replace(environment={"HEADRACE_GATEWAY__LISTNE": "0.0.0.0:1"})
    with pytest.raises(settings.SettingsError, match="listne"):
        settled(wrong)


@pytest.mark.parametrize("role", [r for r in ROLES if r.place != "image"], ids=str)
def test_there_is_time_to_drain(role: Role) -> None:
    loaded = settled(role)
    needed = {
        "gateway": loaded.gateway.drain_notice_s + loaded.gateway.drain_s,
        # Claims that land, what runs, the books: each has this long.
        "worker": 3 * starts.WORKER_GRACE_S + worker_role.CUT_S,
        "clerk": loaded.webhooks.timeout_s + 1,
        "autoscale": loaded.orchestrator.timeout_s,
        "deploy": loaded.orchestrator.timeout_s + loaded.registry.timeout_s,
        "monitor": loaded.objects.timeout_s,
        "retrain": loaded.registry.timeout_s,
        "up": 4 * starts.WORKER_GRACE_S,
    }
    assert role.grace_s >= needed[role.command[0]] + 5


@pytest.mark.parametrize("role", ROLES, ids=str)
def test_probes_ask_what_is_served(role: Role) -> None:
    loaded = settled(role)
    port = {
        "gateway": loaded.gateway.listen.rpartition(":")[2],
        "worker": role.option("--metrics").rpartition(":")[2],
        "autoscale": str(urlsplit(loaded.orchestrator.url).port),
    }
    served = {
        "gateway": inspect.getsource(gateway_pages),
        "worker": inspect.getsource(worker_role),
        "autoscale": '""',
    }
    for probe in role.probes:
        assert probe.port == port[role.command[0]]
        assert f'"{probe.path}"' in served[role.command[0]]
    if role.command[0] == "gateway" and "systemd" not in role.place:
        assert "/health/ready" in [probe.path for probe in role.probes]
        assert not loaded.gateway.listen.startswith("127."), "nobody outside reaches it"


def test_every_role_is_in_every_place() -> None:
    started: dict[str, set[str]] = {}
    for role in ROLES:
        started.setdefault(role.place.partition("/")[0], set()).add(role.command[0])
    apart = {"gateway", "worker", "clerk", "autoscale", "deploy", "monitor", "retrain"}
    assert started == {
        "base": apart, "keda": apart, "nomad": apart, "systemd": apart | {"up"},
        "compose": apart - {"autoscale"},  # nobody there could start a worker
        "image": {"up"},
    }  # fmt: skip


# -- Kubernetes ------------------------------------------------------------------------------------


def is_builtin(found: Tree) -> bool:
    return "keda.sh" not in found["apiVersion"]


@pytest.mark.parametrize(("overlay", "version"), [("base", OLDEST), ("keda", NEWEST)])
def test_objects_are_as_the_api_has_them(overlay: str, version: str) -> None:
    objects = kustomized(OVERLAYS[overlay]) + documents(BASE / "secret.example.yaml")
    for found in filter(is_builtin, objects):
        kubernetes_validate.validate(found, version, strict=True)
    assert len({named(found) for found in objects}) == len(objects)


def test_a_wrong_key_is_found() -> None:
    wrong = copy.deepcopy(of_kind(kustomized(BASE), "Deployment")["headrace-gateway"])
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 60
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


@pytest.mark.parametrize("folder", OVERLAYS.values(), ids=list(OVERLAYS))
def test_every_file_is_a_resource(folder: Path) -> None:
    [kustomization] = documents(folder / "kustomization.yaml")
    files = {path.name for path in folder.glob("*.yaml")}
    apart = {name for name in files if name.startswith(("kustomization", "secret.example"))}
    assert files - apart == {name for name in kustomization["resources"] if name.endswith("yaml")}


def test_a_patch_that_leads_nowhere_is_found() -> None:
    with pytest.raises(KeyError):
        apply({"op": "replace", "path": "/spec/gone", "value": 1}, {"spec": {}})
    with pytest.raises(IndexError):
        apply({"op": "remove", "path": "/rules/2"}, {"rules": [1, 2]})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_their_pods(overlay: str) -> None:
    objects = kustomized(OVERLAYS[overlay])
    deployments = of_kind(objects, "Deployment")
    pods = {name: d["spec"]["template"]["metadata"]["labels"] for name, d in deployments.items()}

    def found(selector: Tree) -> list[str]:
        return [name for name, labels in pods.items() if selector.items() <= labels.items()]

    for name, deployment in deployments.items():
        spec = deployment["spec"]["template"]["spec"]
        assert found(deployment["spec"]["selector"]["matchLabels"]) == [name]
        assert ("topologySpreadConstraints" in spec) is (name not in ALONE)
        for spread in spec.get("topologySpreadConstraints", []):
            assert found(spread["labelSelector"]["matchLabels"]) == [name]
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container_of(deployment)["volumeMounts"]} == volumes
        assert spec["serviceAccountName"] in of_kind(objects, "ServiceAccount")
    for budget in of_kind(objects, "PodDisruptionBudget").values():
        assert found(budget["spec"]["selector"]["matchLabels"]) == [budget["metadata"]["name"]]
    for service in of_kind(objects, "Service").values():
        [name] = found(service["spec"]["selector"])
        ports = {port["name"] for port in container_of(deployments[name]).get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for policy in of_kind(objects, "NetworkPolicy").values():
        assert found(policy["spec"]["podSelector"]["matchLabels"]) == ["headrace-autoscale"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_may_do_little(overlay: str) -> None:
    for name, deployment in of_kind(kustomized(OVERLAYS[overlay]), "Deployment").items():
        spec, container = deployment["spec"]["template"]["spec"], container_of(deployment)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001, "as in the Containerfile"
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        speaks = name in ("headrace-autoscale", "headrace-deploy")
        assert spec["automountServiceAccountToken"] is speaks
        assert spec["serviceAccountName"] == (name if speaks else "headrace")
        assert spec["enableServiceLinks"] is False


def workers(objects: list[Tree]) -> dict[str, str]:
    """Deployment -> the model that its workers serve."""
    return {
        name: args[args.index("--model") + 1]
        for name, deployment in of_kind(objects, "Deployment").items()
        if (args := container_of(deployment)["args"])[0] == "worker"
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_who_asks_for_workers_may_do_what_it_does_and_no_more(overlay: str) -> None:
    """Names of versions are not known beforehand: the rules are of the namespace."""
    objects = kustomized(OVERLAYS[overlay])
    rights = {
        name: [(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in role["rules"]]
        for name, role in of_kind(objects, "Role").items()
    }
    scales = [
        (["apps"], ["deployments/scale"], ["patch"]),
        (["autoscaling"], ["horizontalpodautoscalers"], ["list"]),
    ]
    reads = (["apps"], ["deployments"], ["get"])
    assert rights == {
        "headrace-autoscale": [reads, *scales] if overlay == "base" else [reads],
        "headrace-deploy": [(["apps"], ["deployments"], ["get", "create", "delete"]), *scales],
    }
    for name, binding in of_kind(objects, "RoleBinding").items():
        assert binding["roleRef"]["name"] == name
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": name, "namespace": "headrace"}
        ]
    assert of_kind(objects, "RoleBinding").keys() == rights.keys()


def test_versions_are_found_by_the_budget_of_their_model() -> None:
    objects = kustomized(BASE)
    budgets = of_kind(objects, "PodDisruptionBudget")
    for name, model in workers(objects).items():
        made = copied(of_kind(objects, "Deployment")[name], f"{name}-3", f"{model}@3", 1)
        kubernetes_validate.validate(made, NEWEST, strict=True)
        selector = budgets[name]["spec"]["selector"]["matchLabels"]
        assert selector.items() <= made["spec"]["template"]["metadata"]["labels"].items()


def test_those_of_whom_there_is_one_are_never_two() -> None:
    deployments = of_kind(kustomized(BASE), "Deployment")
    for name in ALONE:
        spec = deployments[name]["spec"]
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    [claim] = of_kind(kustomized(BASE), "PersistentVolumeClaim")
    state = deployments["headrace-retrain"]["spec"]["template"]["spec"]["volumes"][0]
    assert state == {"name": "state", "persistentVolumeClaim": {"claimName": claim}}
    groups = labelled(job()["group"])
    assert [groups[name]["count"] for name in ("monitor", "retrain")] == [1, 1]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_deployments_are_found_by_the_orchestrators_url(overlay: str) -> None:
    objects = kustomized(OVERLAYS[overlay])
    asking = [f"{OVERLAYS[overlay].name}/headrace-{name}" for name in ("autoscale", "deploy")]
    urls = [settled(r).orchestrator.url for r in ROLES if r.place in asking]
    [prefix] = {found for url in urls for found in re.findall(r"prefix=([\w-]+)$", url)}
    assert {prefix + model: model for model in with_scale()} == workers(objects)
    for name in workers(objects):
        assert "replicas" not in of_kind(objects, "Deployment")[name]["spec"], "would be set back"


def test_keda_asks_for_each_model_within_its_bounds() -> None:
    objects = kustomized(KEDA)
    scaled = of_kind(objects, "ScaledObject")
    assert {
        found["spec"]["scaleTargetRef"]["name"]: found["spec"]["triggers"][0]["metadata"]["model"]
        for found in scaled.values()
    } == workers(objects)
    [service] = [s for n, s in of_kind(objects, "Service").items() if n == "headrace-keda"]
    port = service["spec"]["ports"][0]["port"]
    for found in scaled.values():
        jsonschema.validate(found["spec"], SCALED_OBJECT)
        [trigger] = found["spec"]["triggers"]
        policy = with_scale()[trigger["metadata"]["model"]]
        bounds = found["spec"]["minReplicaCount"], found["spec"]["maxReplicaCount"]
        assert bounds == (policy.least, policy.most)
        assert trigger["metadata"]["scalerAddress"] == f"headrace-keda.headrace:{port}"
        kubernetes_validate.validate({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "made-by-keda"},
            "spec": {
                "scaleTargetRef": found["spec"]["scaleTargetRef"],
                "maxReplicas": bounds[1],
                **found["spec"]["advanced"]["horizontalPodAutoscalerConfig"],
            },
        }, NEWEST, strict=True)  # fmt: skip
    one = of_kind(objects, "Deployment")["headrace-autoscale"]["spec"]
    assert (one["replicas"], one["strategy"]) == (1, {"type": "Recreate"})
    assert of_kind(objects, "Deployment")["headrace-deploy"]["spec"]["replicas"] == 0


def closed(required: str, **properties: Any) -> Tree:
    """A schema of exactly these keys."""
    return {"type": "object", "properties": properties, "required": required.split(),
            "additionalProperties": False}  # fmt: skip


#: What of KEDA's definition is used. No `fallback`: the count stays where no figure is known.
SCALED_OBJECT = closed(
    "scaleTargetRef minReplicaCount maxReplicaCount triggers",
    scaleTargetRef=closed("name", apiVersion={}, kind={"const": "Deployment"}, name={}),
    pollingInterval={"type": "integer", "minimum": 1},
    minReplicaCount={"type": "integer", "minimum": 0},
    maxReplicaCount={"type": "integer", "minimum": 1},
    advanced=closed(
        "horizontalPodAutoscalerConfig",
        horizontalPodAutoscalerConfig=closed("behavior", behavior={"type": "object"}),
    ),
    triggers={
        "type": "array",
        "items": closed(
            "type metadata",
            type={"const": "external-push"},
            metricType={"const": "AverageValue"},  # the value over the count: what ours is made for
            metadata=closed("scalerAddress model", scalerAddress={}, model={}),
        ),
    },
)


# -- Nomad -----------------------------------------------------------------------------------------

#: Keys and blocks by the block that they stand in, of Nomad's job specification.
NOMAD = {
    "job": "namespace datacenters type update group",
    "update": "max_parallel health_check min_healthy_time healthy_deadline progress_deadline "
    "auto_revert",
    "group": "count shutdown_delay constraint spread scaling network service update ephemeral_disk "
    "task",
    "ephemeral_disk": "sticky migrate size",
    "constraint": "operator value attribute",
    "spread": "attribute",
    "scaling": "enabled min max",
    "network": "port",
    "port": "static",
    "service": "name port provider check",
    "check": "type path interval timeout",
    "task": "driver kill_signal kill_timeout config env template resources identity",
    "identity": "file env",
    "config": "image network_mode init args",
    "template": "destination env data",
    "resources": "cpu memory",
}
LABELLED = ("group", "task", "port")


def unknown_keys(kind: str, body: Tree) -> list[str]:
    found = [f"{kind}.{key}" for key in body.keys() - set(NOMAD[kind].split())]
    for key, value in body.items():
        if key in NOMAD and isinstance(value, list):
            bodies = labelled(value).values() if key in LABELLED else value
            found += [name for one in bodies for name in unknown_keys(key, one)]
    return found


def test_the_job_has_only_keys_that_nomad_knows() -> None:
    assert unknown_keys("job", job()) == []
    assert unknown_keys("job", {"group": [{"a": {"cuont": 1}}]}) == ["group.cuont"]


def test_the_jobs_variables_are_declared_and_used() -> None:
    text = (DEPLOY / "nomad" / "headrace.nomad.hcl").read_text()
    assert set(re.findall(r"\bvar\.(\w+)", text)) == set(variables())


def test_each_model_is_a_group_within_its_bounds() -> None:
    groups = labelled(job()["group"])
    scaled = {name: group["scaling"][0] for name, group in groups.items() if "scaling" in group}
    models = settings.load(SETTINGS, environment={}).models
    assert {name: (s["min"], s["max"]) for name, s in scaled.items()} == {
        # Version 0 goes when another one serves.
        name: (0 if models[name].deploy else policy.least, policy.most)
        for name, policy in with_scale().items()
    }
    for role in ROLES:
        if role.place.startswith("nomad/") and role.command[0] == "worker":
            assert role.place == f"nomad/{role.option('--model')}"
    assert groups["gateway"]["count"] >= 2


def test_tasks_are_told_to_stop_and_left_their_time() -> None:
    for group in labelled(job()["group"]).values():
        [task] = labelled(group["task"]).values()
        assert task["kill_signal"] == "SIGTERM"
        checks = group.get("update", job()["update"])[0]["health_check"] == "checks"
        assert checks == ("service" in group), "else its deployment never ends well"


@pytest.mark.parametrize(
    ("name", "file", "more"),
    [("autoscale", "scale.policy.hcl", []), ("deploy", "deploy.policy.hcl", ["submit-job"])],
)
def test_who_asks_for_workers_asks_as_itself(name: str, file: str, more: list[str]) -> None:
    [role] = [r for r in ROLES if r.place == f"nomad/{name}"]
    loaded = settled(role)
    url = urlsplit(loaded.orchestrator.url)
    assert (url.path, url.query) == ("/headrace", "namespace=headrace")
    assert loaded.orchestrator.token_file == "/secrets/nomad_token"
    [task] = labelled(labelled(job()["group"])[name]["task"]).values()
    assert task["identity"] == [{"file": True}]
    policy = labelled(hcl(DEPLOY / "nomad" / file)["namespace"])
    scales = ["read-job", "read-job-scaling", "scale-job"]
    assert policy == {"headrace": {"capabilities": [*scales, *more]}}


def test_versions_see_the_secrets() -> None:
    """A task reads variables under the name of its own job, and those of all jobs."""
    text = (DEPLOY / "nomad" / "headrace.nomad.hcl").read_text()
    assert set(re.findall(r'nomadVar "([\w/]+)"', text)) == {"nomad/jobs"}
    assert variables()["namespace"] == "headrace"


def test_a_group_can_be_copied_for_a_version() -> None:
    for name, group in labelled(job()["group"]).items():
        if "scaling" in group:
            [task] = labelled(group["task"]).values()
            assert copies.served(task["config"][0]["args"]) == [name]


# -- systemd: what systemd itself says is in tests/conformance/test_systemd.py ---------------------


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_hardened_and_drain(path: Path) -> None:
    sections = unit(path)
    assert set(sections) == {"Unit", "Service", "Install"}
    service = sections["Service"]
    expected = {
        "Type": ["exec"], "KillMode": ["mixed"], "KillSignal": ["SIGTERM"], "Restart": ["always"],
        "NoNewPrivileges": ["yes"], "ProtectSystem": ["strict"], "StateDirectory": ["headrace"],
    }  # fmt: skip
    assert {key: service[key] for key in expected} == expected
    assert (INSTANCE in path.name) is False
    assert ("%i" in path.read_text()) == ("@" in path.name)


# -- compose ---------------------------------------------------------------------------------------

_TEXTS = {"type": "array", "items": {"type": "string"}}
_HEALTH = closed(
    "test interval timeout",
    test=_TEXTS, interval={"type": "string"}, timeout={"type": "string"},
    start_period={"type": "string"},
)  # fmt: skip
#: What of the compose specification is used.
COMPOSED = closed(
    "name services volumes",
    **{"x-headrace": {}},
    name={"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
    services={
        "additionalProperties": closed(
            "image restart",
            image={"type": "string"},
            build=closed("context dockerfile", context={}, dockerfile={}),
            command=_TEXTS,
            init={"type": "boolean"},
            restart={"enum": ["no", "always", "on-failure", "unless-stopped"]},
            read_only={"type": "boolean"},
            cap_drop=_TEXTS,
            security_opt=_TEXTS,
            environment={"additionalProperties": {"type": "string"}},
            volumes=_TEXTS,
            tmpfs=_TEXTS,
            ports=_TEXTS,
            stop_grace_period={"type": "string", "pattern": r"^\d+s$"},
            healthcheck=_HEALTH,
            deploy=closed("replicas", replicas={"type": "integer", "minimum": 1}),
            depends_on={
                "additionalProperties": closed(
                    "condition", condition={"enum": ["service_healthy", "service_started"]}
                )
            },
        )
    },
    volumes={
        "additionalProperties": {
            "anyOf": [{"type": "null"}, closed("driver", driver={}, driver_opts={})]
        }
    },
)


def test_the_compose_file_is_one() -> None:
    found = compose()
    jsonschema.validate(found, COMPOSED)
    for service in found["services"].values():
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in found["volumes"]
        for needed, how in service.get("depends_on", {}).items():
            assert (
                how["condition"] != "service_healthy" or "healthcheck" in found["services"][needed]
            )
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "there is no TLS and no key at the gateway"
        if build := service.get("build"):
            context = (COMPOSE.parent / build["context"]).resolve()
            assert context == ROOT
            assert context / build["dockerfile"] == CONTAINERFILE


def test_what_the_roles_are_told_of_each_other_is_there() -> None:
    found = compose()
    services = found["services"]
    loaded = settled(next(r for r in ROLES if r.place == "compose/gateway"))
    for url in (loaded.broker.url, loaded.database.url, loaded.cache.url):
        assert urlsplit(url).hostname in services
    postgres = services["postgres"]["environment"]
    told = urlsplit(loaded.database.url)
    assert (told.username, told.password, told.path) == (
        postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"], f"/{postgres['POSTGRES_DB']}",
    )  # fmt: skip
    shared = {
        urlsplit(url).path
        for url in (loaded.objects.url, loaded.objects.transit, loaded.registry.url)
    }
    for name, service in services.items():
        if service["image"] == "headrace":
            stays = {loaded.house.state} if name == "retrain" else set()
            mounted = {volume.partition(":")[2] for volume in service["volumes"]}
            assert mounted == shared | stays
            memory = {path.partition(":")[0] for path in service["tmpfs"]}
            assert memory == {"/tmp", loaded.house.state} - stays


# -- the image -------------------------------------------------------------------------------------


def test_what_is_copied_is_there_and_let_in() -> None:
    given = {f"${{{name}}}": value for name, value in
             (rest.split("=") for word, rest in instructions() if word == "ARG")}  # fmt: skip
    let_in = [
        line[1:]
        for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = [rest.split() for word, rest in instructions() if word == "COPY"]
    for sources in (words[:-1] for words in copied if not words[0].startswith("--from")):
        for source in sources:
            path = given.get(source, source)
            assert (ROOT / path).exists(), path
            assert path.split("/")[0] in let_in, path
    target = settings.load(SETTINGS, environment={}).models[INSTANCE].target
    assert (ROOT / given["${APP}"] / f"{target.partition(':')[0]}.py").exists()
    assert ["${SETTINGS}", IN_IMAGE] in copied


def test_its_extras_are_ours_and_their_versions_locked() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    [extras] = re.findall(r'"\.\[([\w,-]+)\]"', CONTAINERFILE.read_text())
    # As the RUN line makes it of the lock.
    lines = (ROOT / "requirements" / "dev.lock").read_text().splitlines()
    versions = [re.sub(r" *\\$", "", line) for line in lines if not re.match(r" +--hash", line)]
    locked = {line.partition("==")[0] for line in versions if "==" in line}
    assert not [line for line in versions if re.match(r"\S", line) and "==" not in line]
    for extra in extras.split(","):
        for needed in project["optional-dependencies"][extra]:
            assert re.match(r"[\w-]+", needed)[0].lower() in locked, needed  # type: ignore[index]


def test_the_image_runs_as_the_manifests_think() -> None:
    words = dict(instructions())
    assert words["USER"] == "10001:10001"
    assert words["STOPSIGNAL"] == "SIGTERM"
    loaded = settings.load(SETTINGS, environment=image()[1])
    assert loaded.gateway.listen.rpartition(":")[2] in words["EXPOSE"].split()
    made = next(rest for word, rest in instructions() if word == "RUN" and "useradd" in rest)
    assert {"/objects", "/transit", "/registry", loaded.house.state} <= set(made.split())


def test_times_are_read() -> None:
    assert (seconds("90s"), seconds("2m"), seconds(30)) == (90, 120, 30)
