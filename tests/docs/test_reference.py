"""The reference pages name all that the code has, and nothing else."""

from __future__ import annotations

import ast
import inspect
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pages import ROOT, plain, rows

from headrace import errors, failpoints, schemes, settings
from headrace.telemetry.metrics import GatewayMetrics, Metric, WorkerMetrics

SETTINGS, METRICS = ROOT / "docs" / "settings.md", ROOT / "docs" / "metrics.md"
PROBLEMS = ROOT / "docs" / "problems.md"
SOURCE = ROOT / "src" / "headrace"


# -- settings --------------------------------------------------------------------------------------


def default_of(field: Any) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return json.dumps(field.default_factory())
    if field.default is msgspec.NODEFAULT:
        return "required"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return "unset" if value is None else json.dumps(value)


def settings_in_code() -> dict[str, tuple[str, str]]:
    """key -> (default, environment name)."""
    found = {}
    for section in msgspec.structs.fields(settings.Settings):
        if section.name == "folder":  # set by `load`
            continue
        per_model = section.name == "models"
        kind = settings.ModelSettings if per_model else section.type
        for field in msgspec.structs.fields(kind):
            path = [section.name, "NAME", field.encode_name][:: 1 if per_model else 2]
            name = settings.PREFIX + "__".join(part.upper() for part in path)
            found[".".join(path)] = (default_of(field), name)
    return found


def test_settings_are_documented() -> None:
    documented = {
        plain(row["key"]): (plain(row["default"]), plain(row["environment"]))
        for row in rows(SETTINGS, "key")
    }
    assert documented == settings_in_code()


def test_the_environment_names_are_read() -> None:
    """The names on the page reach the keys beside them."""
    environment = {"HEADRACE_MODELS__IRIS__CLASS": "models:Iris"}
    for default, name in settings_in_code().values():
        if default not in ("required", "unset") and default[0] not in "[{":
            given = json.loads(default) if default[0] == '"' else default
            environment[name.replace("MODELS__NAME__", "MODELS__IRIS__")] = given
    loaded = settings.load(environment=environment)
    assert msgspec.structs.replace(loaded, folder=".", models={}) == settings.Settings()
    assert list(loaded.models) == ["iris"]


@pytest.mark.parametrize(
    ("setting", "table"),
    [
        ("broker.url", schemes.BROKERS),
        ("objects.url", schemes.OBJECTS),
        ("orchestrator.url", schemes.ORCHESTRATORS),
        ("registry.url", schemes.REGISTRIES),
    ],
)
def test_schemes_are_documented(setting: str, table: dict[str, schemes.Adapter]) -> None:
    documented = [
        plain(row["scheme"])
        for row in rows(SETTINGS, "setting")
        if plain(row["setting"]) == setting
    ]
    assert documented == [f"{scheme}://" for scheme in table]


def test_failpoints_are_documented() -> None:
    assert [plain(row["failpoint"]) for row in rows(SETTINGS, "failpoint")] == list(
        failpoints.NAMES
    )


# -- metrics ---------------------------------------------------------------------------------------


def scraped(metric: Metric) -> tuple[str, tuple[str, ...]]:
    """prometheus_client adds the suffix to what only grows."""
    suffix = "_total" if metric.kind == "counter" else ""
    return metric.name + suffix, (metric.kind, *metric.labels)


def test_metrics_are_documented() -> None:
    documented = {
        plain(row["metric"]): (row["kind"], *(plain(c) for c in row["labels"].split(", ") if c))
        for row in rows(METRICS, "metric")
    }
    assert documented == dict(map(scraped, [*GatewayMetrics().all(), *WorkerMetrics("m").all()]))


# -- problems --------------------------------------------------------------------------------------

STATUS = {
    name: kind.status
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.Refusal)
}
UNTOLD = 0  # a status that the source does not tell where the code stands
Codes = dict[str, set[int]]


def constants(node: ast.expr) -> list[str]:
    """The texts that an expression may be: "a", or "a" if x else "b"."""
    if isinstance(node, ast.IfExp):
        return constants(node.body) + constants(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def name_of(node: ast.expr) -> str:
    return getattr(node, "id", getattr(node, "attr", ""))


def takes_code_at(tree: ast.AST) -> dict[str, int]:
    """Functions of a module with a positional parameter `code`: where it stands in a call."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names = [a.arg for a in node.args.args if a.arg != "self"]
            if "code" in names and node.name != "__init__":
                found[node.name] = names.index("code")
    return found


def codes_in(tree: ast.AST) -> Codes:
    """code -> the statuses it is raised with, where these can be told from the source."""
    found: Codes = defaultdict(set)
    helpers = takes_code_at(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            status = {STATUS.get(name_of(node.func), UNTOLD)}
            given = [k.value for k in node.keywords if k.arg == "code"]
            at = helpers.get(name_of(node.func))
            given += node.args[at : at + 1] if at is not None else []
            for code in (text for value in given for text in constants(value)):
                found[code] |= status
        elif isinstance(node, ast.Assign) and name_of(node.targets[0]) == "code":
            for code in constants(node.value):
                found[code].add(UNTOLD)
    return found


def problems_in_code() -> Codes:
    found: Codes = defaultdict(set)
    for name, status in STATUS.items():
        found[getattr(errors, name).default_code].add(status)
    for path in sorted(SOURCE.rglob("*.py")):
        if "client" in path.relative_to(SOURCE).parts or path.name.endswith("_pb2.py"):
            continue  # the client reads codes, it makes none
        for code, statuses in codes_in(ast.parse(path.read_text())).items():
            found[code] |= statuses
    return found


def test_problem_codes_are_documented() -> None:
    documented = {
        plain(row["code"]): {int(word) for word in row["status"].split(", ")}
        for row in rows(PROBLEMS, "code")
    }
    in_code = problems_in_code()
    assert documented.keys() == in_code.keys()
    for code, statuses in in_code.items():
        told = statuses - {UNTOLD}
        assert told <= documented[code], code
        assert told == documented[code] or UNTOLD in statuses, code


def test_every_problem_says_what_to_do() -> None:
    for row in rows(PROBLEMS, "code"):
        assert row["retry"].split(" ")[0] in ("yes", "no"), row
        assert row["what to do"]
        if row["status"] == "503":
            assert row["retry"].startswith("yes"), row


def test_the_scan_sees_every_way_of_giving_a_code() -> None:
    tree = ast.parse(
        "raise Invalid('x', code='one')\n"
        "def _bad(code, detail): ...\n"
        "_bad('two', 'x')\n"
        "code = 'three' if x else 'four'\n"
        "Unavailable('x', code='five' if x else 'six')"
    )
    assert codes_in(tree) == {
        "one": {422}, "two": {UNTOLD}, "three": {UNTOLD}, "four": {UNTOLD}, "five": {503},
        "six": {503},
    }  # fmt: skip


def test_pages_are_where_the_tests_look() -> None:
    assert all(isinstance(page, Path) and page.exists() for page in (SETTINGS, METRICS, PROBLEMS))
