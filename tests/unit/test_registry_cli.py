"""`headrace registry` and `headrace promote`: what is printed, what is refused, in which words."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli.promote import promote
from headrace.cli.registry import registry
from headrace.cli.told import told_plainly
from headrace.registry import serve
from headrace.testing.registry_exam import write


@pytest.fixture
def run(tmp_path: Path, monkeypatch):
    """run("promote", ...) or run("list", ...): in a folder of its own, without a settings file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def invoke(name: str, *arguments: str):
        app = registry
        if name == "promote":
            app = typer.Typer(rich_markup_mode=None)
            app.command()(promote)
        else:
            arguments = (name, *arguments)

        def inside():
            with told_plainly():
                app(list(arguments), prog_name="headrace")

        wrapped = typer.Typer(pretty_exceptions_enable=False)
        wrapped.command()(inside)
        return CliRunner().invoke(wrapped, [])

    return invoke


@pytest.fixture
def two(run, tmp_path):
    for text in ("one", "two"):
        write(tmp_path / text, "iris", text)
        assert run("register", text).exit_code == 0
    return run


def test_nothing_is_there_at_first(run):
    assert "no models yet" in run("list").stdout
    assert json.loads(run("list", "--json").stdout) == {}
    assert "no versions of iris" in run("list", "iris").stdout
    assert "nothing was promoted" in run("log").stdout


def test_a_folder_becomes_a_version(run, tmp_path):
    write(tmp_path / "one", "iris", "one")
    result = run("register", "one")
    assert "iris 1" in result.stdout and "headrace promote iris 1" in result.stdout
    assert json.loads(run("register", "one", "--json").stdout)["number"] == 1


def test_an_archive_is_unpacked_first(run, tmp_path):
    write(tmp_path / "one", "iris", "one")
    with tarfile.open(tmp_path / "one.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "one", "one")
    by_archive = json.loads(run("register", "one.tar.gz", "--json").stdout)
    assert by_archive["digest"] == json.loads(run("register", "one", "--json").stdout)["digest"]


def test_what_is_unsafe_is_refused_in_one_line(run, tmp_path):
    write(tmp_path / "one", "iris", "one")
    (tmp_path / "one" / "model.pkl").write_bytes(b"\x80\x04K\x01.")
    result = run("register", "one")
    assert result.exit_code == 1 and "model.pkl: a pickle runs code" in result.output
    assert run("register", "nowhere").exit_code == 2


def test_versions_are_listed_and_shown(two):
    two("promote", "iris", "1", "--reason", "first")
    listed = two("list", "iris").stdout
    assert "production" in listed and "accuracy 0.97" in listed and "safetensors" in listed
    shown = two("show", "iris").stdout
    assert "iris 1  production" in shown and "notes.txt" in shown and "sha256:" in shown
    plain = json.loads(two("show", "iris", "2", "--json").stdout)
    assert plain["aliases"] == [] and plain["files"][0]["path"] == "manifest.json"
    assert [one["number"] for one in json.loads(two("list", "iris", "--json").stdout)] == [2, 1]


def test_a_promotion_says_from_what_to_what(two):
    first = two("promote", "iris", "1", "--reason", "first")
    assert first.stdout == "production of iris: none -> 1\n"
    assert two("promote", "iris", "2", "--reason", "x").stdout == "production of iris: 1 -> 2\n"
    assert "was 2 already" in two("promote", "iris", "2", "--reason", "x").stdout
    back = two("promote", "iris", "1", "--reason", "2 is slow", "--instead-of", "2", "--json")
    assert json.loads(back.stdout)["before"] == 2
    late = two("promote", "iris", "2", "--reason", "x", "--instead-of", "2")
    assert late.exit_code == 1 and "is 1 by now, not 2" in late.output
    two("promote", "iris", "2", "--to", "canary", "--reason", "a [red]look[/]", "--author", "ann")
    assert two("promote", "iris", "none", "--to", "canary", "--reason", "x").exit_code == 0
    assert "iris" in two("list").stdout
    log = two("log", "iris").stdout
    assert "ann" in log and "a [red]look[/]" in log and "interrupted" not in log
    assert len(json.loads(two("log", "--json").stdout)) == 6


@pytest.mark.parametrize(("arguments", "status", "said"), [
    (("iris", "9", "--reason", "x"), 1, "no version 9"),
    (("iris", "three", "--reason", "x"), 2, "expected a number"),
    (("iris", "0", "--reason", "x"), 2, "expected a number"),
    (("iris", "1"), 2, "--reason"),
    (("iris", "1", "--reason", " "), 1, "reason"),
    (("iris", "1", "--reason", "x", "--to", "latest"), 1, "alias 'latest'"),
    (("iris", "1", "--reason", "x", "--registry", "ftp://host"), 2, "mlflow://"),
    (("iris", "1", "--reason", "x", "--registry", "mlflow://127.0.0.1:1"), 1, "mlflow://127.0.0.1:1"),
])  # fmt: skip
def test_what_cannot_be_is_said(arguments, status, said, two):
    result = two("promote", *arguments)
    assert result.exit_code == status and said in result.output, result.output


def test_an_alias_that_names_nothing_is_said(two):
    result = two("show", "iris")
    assert result.exit_code == 1 and "no alias names a version" in result.output


def test_serve_becomes_mlflow(run, tmp_path, monkeypatch):
    became = []
    monkeypatch.setattr(serve, "check", lambda python: None)
    monkeypatch.setattr(os, "execve", lambda *call: became.append(call))
    result = run("serve", "--listen", "127.0.0.1:0", "--python", "/opt/python")
    assert 'registry.url = "mlflow://127.0.0.1:0"' in result.stdout
    [(python, command, environment)] = became
    assert python == "/opt/python" and command[:4] == [python, "-m", "uvicorn", serve.APP]
    assert environment["_MLFLOW_SERVER_FILE_STORE"].endswith(".headrace/mlflow/mlflow.db")
    assert "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS" not in environment
    key = environment["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"]
    again = serve.environment(tmp_path / ".headrace", private_webhooks=True)
    assert again["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"] == key and len(key) == 44
    assert again["MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS"] == "true"


def test_without_mlflow_serve_says_what_to_install(run):
    result = run("serve", "--python", "/bin/false")
    assert result.exit_code == 2 and f"mlflow=={serve.PINNED}" in result.output


HOOKED = '[registry]\nwebhook_secrets = "hooks.txt"\n'
LISTENS = '[control]\nlisten = "127.0.0.1:9"\n'


@pytest.mark.parametrize(
    ("settings", "secret", "code", "words"),
    [
        ("", "", 2, "control.listen is not set"),
        (LISTENS, "", 2, "registry.webhook_secrets names no file"),
        (LISTENS + HOOKED, "short", 2, "its first line"),
        (LISTENS + HOOKED, "a secret of 22 letters", 1, "a folder sends no webhooks"),
    ],
)
def test_why_nobody_sends_webhooks(run, tmp_path, settings, secret, code, words):
    (tmp_path / "headrace.toml").write_text(settings)
    (tmp_path / "hooks.txt").write_text(secret + "\n")
    result = run("hook")
    assert result.exit_code == code and words in " ".join(result.output.split()), result.output


@pytest.mark.parametrize("past", [(), ("--registry", "file:///elsewhere")])
def test_where_people_have_roles_nobody_promotes_past_the_house(two, tmp_path, past):
    person = '[control.people.ann]\ntoken_sha256 = "' + "0" * 64 + '"\nrole = "operator"\n'
    (tmp_path / "headrace.toml").write_text(person)
    result = two("promote", "iris", "1", "--reason", "quietly", *past)
    assert result.exit_code == 2 and "control.people says who may promote" in result.output
    assert json.loads(two("list", "--json").stdout)["iris"] == {}
