"""What a version's workload is made of: a model's deployment, or its group of a Nomad job."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from headrace.errors import Invalid
from headrace.orchestrator import copies, kubernetes_copy, nomad_copy
from headrace.testing import fake_nomad

BASE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base"
MODEL = "wine-cultivar"


@pytest.mark.parametrize(
    ("words", "become"),
    [
        (["worker", "--model", "m", "-f", "x"], ["worker", "--model", "m@3", "-f", "x"]),
        (["worker", "--model=m"], ["worker", "--model=m@3"]),
    ],
)
def test_one_name_is_replaced(words: list[str], become: list[str]) -> None:
    other = ["m", "of", "something", "else"]
    commands = [list(words), list(other)]
    copies.rename(commands, "m@3")
    assert commands == [become, other]
    assert copies.served(words) == ["m"] and copies.served(become) == ["m@3"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["worker"],
        ["worker", "--model", "n"],
        ["worker", "--model", "m", "--model", "n"],
        ["sh", "-c", "headrace worker --model m"],
        ["worker", "--model"],
    ],
)
def test_what_names_it_otherwise_is_not_copied(words: list[str]) -> None:
    with pytest.raises(Invalid, match="expected --model m, and no other") as caught:
        copies.rename([words], "m@3")
    assert caught.value.code == "workload-not-copied"


# -- Kubernetes ------------------------------------------------------------------------------------


def deployment() -> Any:
    found = next(yaml.safe_load_all((BASE / f"worker-{MODEL}.yaml").read_text()))
    found["metadata"] |= {"uid": "1", "resourceVersion": "7", "namespace": "headrace"}
    return found | {"status": {"replicas": 3}}


def test_our_own_manifest_is_one_that_can_be_copied() -> None:
    found = deployment()
    before = copy.deepcopy(found)
    made = kubernetes_copy.copied(found, f"headrace-worker-{MODEL}-3", f"{MODEL}@3", 2)
    assert found == before
    kubernetes_validate.validate(made, "1.37", strict=True)
    component = f"worker-{MODEL}-3"
    labels = {"app.kubernetes.io/name": "headrace", "app.kubernetes.io/component": component}
    assert made["metadata"] == {
        "name": f"headrace-worker-{MODEL}-3",
        "labels": labels | {"app.kubernetes.io/managed-by": "headrace"},
        "annotations": {"headrace.dev/workload": f"{MODEL}@3"},
    }
    spec, pod = made["spec"], made["spec"]["template"]["spec"]
    assert spec["replicas"] == 2
    assert spec["selector"]["matchLabels"] == labels
    assert labels.items() <= spec["template"]["metadata"]["labels"].items()
    theirs = found["spec"]["selector"]["matchLabels"]
    assert not theirs.items() <= spec["template"]["metadata"]["labels"].items()
    for spread in pod["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"] == labels
    [container] = pod["containers"]
    assert f"{MODEL}@3" in container["args"] and MODEL not in container["args"]
    # All else is as it was.
    container["args"] = before["spec"]["template"]["spec"]["containers"][0]["args"]
    for path in ("strategy", "revisionHistoryLimit"):
        assert spec[path] == before["spec"][path]
    assert pod["containers"] == before["spec"]["template"]["spec"]["containers"]


@pytest.mark.parametrize(
    ("labels", "become"),
    [
        ({"app": "face-match"}, {"app": "face-match-3"}),
        ({"app": "x", "model": "face_match"}, {"app": "x", "model": "face_match-3"}),
        ({"app": "x", "tier": "y"}, {"app": "x", "tier": "y-3"}),
        ({"app": "m" * 63}, {"app": "m" * 52 + "-fd7f6008-3"}),
    ],
)
def test_one_label_is_its_own(labels: dict[str, str], become: dict[str, str]) -> None:
    found = deployment()
    found["spec"]["selector"]["matchLabels"] = dict(labels)
    template = found["spec"]["template"]
    template["metadata"] = {
        "labels": labels | {"team": "a"},
        "annotations": {"kubectl.kubernetes.io/restartedAt": "now", "scrape": "yes"},
    }
    template["spec"]["containers"][0]["args"] = ["--model", "face_match"]
    made = kubernetes_copy.copied(found, "x", "face_match@3", 0)["spec"]
    assert made["selector"]["matchLabels"] == become
    meta = made["template"]["metadata"]
    assert meta == {"labels": become | {"team": "a"}, "annotations": {"scrape": "yes"}}
    assert all(len(value) <= 63 for value in become.values())


def test_a_selector_of_expressions_is_not_copied() -> None:
    found = deployment()
    found["spec"]["selector"] = {"matchExpressions": [{"key": "a", "operator": "Exists"}]}
    with pytest.raises(Invalid, match="has no selector"):
        kubernetes_copy.copied(found, "x", f"{MODEL}@3", 1)


# -- Nomad -----------------------------------------------------------------------------------------


def test_a_group_becomes_a_job() -> None:
    job = fake_nomad.submitted("house", ("other", "m"))
    job |= {"Stop": False, "Version": 4, "JobModifyIndex": 17, "Priority": 60, "VersionTag": None}
    before = copy.deepcopy(job)
    group = job["TaskGroups"][1]
    group["Scaling"]["Min"] = 2
    before["TaskGroups"][1]["Scaling"]["Min"] = 2
    made = nomad_copy.copied(job, group, "house-m-3", "m@3", 1)
    assert job == before
    [own] = made.pop("TaskGroups")
    assert made == {
        "ID": "house-m-3", "Name": "house-m-3", "Namespace": "default", "Priority": 60,
        "Meta": {"team": "wines", "headrace_copy_of": "house"},
    }  # fmt: skip
    assert (own["Name"], own["Count"]) == ("m", 1)
    assert own["Scaling"] == {"Min": 0, "Max": 10, "Enabled": True}
    assert own["Tasks"][0]["Config"]["args"] == ["worker", "--model", "m@3"]
