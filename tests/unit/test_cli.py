"""The command line: help that teaches, plain errors, and what is printed."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from PIL import Image as Pillow
from typer.testing import CliRunner, Result

import headrace.client
from headrace.cli import app
from headrace.cli.call import bar, read_fields
from headrace.cli.models import example
from headrace.cli.status import pace
from headrace.cli.told import seconds, told_plainly
from headrace.cli.up import log_level, url_of, waiting_for
from headrace.client import Client, Readiness
from headrace.client.answers import ModelReadiness
from headrace.errors import Unavailable

COMMANDS = ["up", "gateway", "worker", "clerk", "call", "jobs", "dead", "models", "status",
            "check", "scale", "autoscale", "control", "rollout", "build", "monitor", "retrain",
            "deploy", "promote", "registry", "train", "runs", "plan", "profile"]  # fmt: skip
TIMINGS = {"read_ms": 0.1, "queued_ms": 0.4, "executed_ms": 2.0, "total_ms": 2.5}
ANSWER = {"result": {"same": True}, "model": "m", "version": "7", "request_id": "r1",
          "timings": TIMINGS}  # fmt: skip
IMAGE = {"type": "string", "contentEncoding": "base64", "x-headrace-image": True}
MODEL = {
    "name": "face-match", "version": "3", "description": "Compares [two] photos.\nMore.",
    "ready": True, "reason": "", "max_size": 8,
    "input": {"$ref": "#/$defs/Pair", "$defs": {"Pair": {
        "title": "Pair", "type": "object", "required": ["left", "least"],
        "properties": {"left": IMAGE, "least": {"type": "number", "minimum": 0.25}}}}},
    "output": {"type": "number"},
}  # fmt: skip
WORKER = {"worker": "w-1", "ready": False, "reason": "loading", "slots": 2, "slots_ready": 1,
          "busy": 1, "in_hand": 3, "waiting": 5}  # fmt: skip
STATUS = {
    "gateway": "abcdef0123456789", "ready": True, "draining": False,
    "models": [MODEL | {"outstanding": 2, "elsewhere": 1, "per_second": 1234.5,
                        "workers": [WORKER, WORKER | {"worker": "w-2", "ready": True}]}],
}  # fmt: skip

Run = Callable[..., Result]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Run:
    """house(reply, "call", "m", "1"): a command, and what it asks the house is in `.asked`."""
    asked: list[httpx.Request] = []
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def run(reply: httpx.Response | Exception, *arguments: str, **more: Any) -> Result:
        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            if isinstance(reply, Exception):
                raise reply
            return reply

        def client(url: str, deadline_s: float) -> Client:
            transport = httpx.MockTransport(answer)
            return Client(url, deadline_s=deadline_s, retries=0, transport=transport)

        monkeypatch.setattr(headrace.client, "Client", client)
        return invoke(*arguments, **more)

    run.asked = asked  # type: ignore[attr-defined]
    return run


def invoke(*arguments: str, **more: Any) -> Result:
    """As `main` does: what the caller can mend is told in one line."""

    def inside() -> None:
        with told_plainly():
            app(list(arguments), prog_name="headrace", standalone_mode=True)

    wrapped = typer.Typer(pretty_exceptions_enable=False)
    wrapped.command()(inside)
    return CliRunner().invoke(wrapped, [], **more)


def test_a_port_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text(
        '[gateway]\nlisten = "127.0.0.1:99999"\n[models.m]\nclass = "m:M"\n'
    )
    result = invoke("up", "-f", str(tmp_path / "headrace.toml"))
    assert result.exit_code == 2 and "error: " in result.output


def test_models_do_not_share_a_port_for_metrics(tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text('[models.a]\nclass = "m:M"\n[models.b]\nclass = "m:M"\n')
    result = invoke("worker", "-f", str(file), "--metrics", "127.0.0.1:9100")
    assert result.exit_code == 2 and "2 models cannot share" in result.output


def test_an_error_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), told_plainly():
        raise ZeroDivisionError


def test_no_broker_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, told_plainly():
        raise Unavailable("no broker answers")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: no broker answers\n"


# -- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"    headrace {command}" in result.output
    assert max(map(len, result.output.splitlines())) <= 100


def test_the_first_page_names_every_command() -> None:
    output = invoke("--help").output
    assert all(f"\n  {command} " in output for command in COMMANDS)
    assert "..." not in output.partition("Commands:")[2]  # no summary is cut


def test_version() -> None:
    assert invoke("--version").output == f"headrace {headrace.__version__}\n"


def test_an_unknown_command() -> None:
    assert invoke("serve").exit_code == 2


# -- call ------------------------------------------------------------------------------------------


def test_call(house: Run) -> None:
    result = house(httpx.Response(200, json=ANSWER), "call", "m", "[1, 2]")
    assert result.exit_code == 0, result.output
    assert '"same": true' in result.output
    assert "executed" in result.output and "2.00 ms" in result.output and "█" in result.output
    assert "gathered" not in result.output  # took nothing
    assert "request id r1" in result.output
    [request] = house.asked  # type: ignore[attr-defined]
    assert request.content == b"[1,2]"
    assert str(request.url) == "http://127.0.0.1:8100/models/m/predict"


def test_call_as_json(house: Run) -> None:
    result = house(httpx.Response(200, json=ANSWER), "call", "m", "1", "--json")
    printed = json.loads(result.stdout)
    assert printed["result"] == {"same": True} and printed["timings"]["executed_ms"] == 2.0


def test_call_with_files(house: Run, tmp_path: Path) -> None:
    out = io.BytesIO()
    Pillow.new("RGB", (8, 8)).save(out, "JPEG")
    (tmp_path / "a.jpg").write_bytes(out.getvalue())
    (tmp_path / "row.json").write_text("[1]")
    reply = httpx.Response(200, json=ANSWER)
    for arguments, content_type in (
        ([f"@{tmp_path}/a.jpg"], "image/jpeg"),
        ([f"@{tmp_path}/row.json"], "application/json"),
        (["-F", f"left=@{tmp_path}/a.jpg", "-F", "n=3"], "multipart/form-data"),
        (["-F", "n=3"], "application/json"),
    ):
        result = house(reply, "call", "m", *arguments)
        assert result.exit_code == 0, result.output
        sent = house.asked[-1].headers["content-type"]  # type: ignore[attr-defined]
        assert sent.startswith(content_type)


def test_call_from_stdin(house: Run) -> None:
    result = house(httpx.Response(200, json=ANSWER), "call", "m", "-", input="[7]")
    assert result.exit_code == 0
    assert house.asked[0].content == b"[7]"  # type: ignore[attr-defined]


def test_the_deadline_is_sent(house: Run) -> None:
    house(httpx.Response(200, json=ANSWER), "call", "m", "1", "--deadline", "500ms")
    sent_ms = int(house.asked[0].headers["headrace-deadline-ms"])  # type: ignore[attr-defined]
    assert 400 < sent_ms <= 500


def test_a_refusal_is_told(house: Run) -> None:
    errors = [{"pointer": "/rows/0", "code": "c", "detail": "Expected int"}]
    body = {"status": 422, "code": "validation-failed", "detail": "no", "errors": errors}
    reply = httpx.Response(422, json=body, headers={"X-Request-Id": "r9"})
    result = house(reply, "call", "m", '["x"]')
    assert result.exit_code == 1
    assert "error: 422 validation-failed: no\n  at /rows/0: Expected int\n" in result.output
    assert "request id r9" in result.output and "Traceback" not in result.output


def test_retry_after_is_told(house: Run) -> None:
    reply = httpx.Response(503, json={"code": "busy", "detail": "full", "retry_after_s": 4})
    assert "try again in 4 s" in house(reply, "call", "m", "1").output


def test_no_house(house: Run) -> None:
    result = house(httpx.ConnectError("refused"), "call", "m", "1")
    assert result.exit_code == 1
    assert "cannot connect to http://127.0.0.1:8100: refused" in result.output
    assert "`headrace up` starts one" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["call", "m"], "missing: give JSON"),
        (["call", "m", "hello"], "a text goes in quotes: '\"hello\"'"),
        (["call", "m", "@/no/such/file"], "/no/such/file: No such file or directory"),
        (["call", "m", "-F", "novalue"], "expected NAME=VALUE"),
        (["call", "m", "1", "-F", "a=1"], "not both"),
        (["call", "m", "1", "--deadline", "soon"], "expected a time such as 2s"),
        (["status", "--url", "127.0.0.1:8100"], "expected http://host:port"),
        (["up", "-f", "/no/such.toml"], "error: /no/such.toml: no such file"),
        (["gateway", "-f", "/no/such.toml"], "error: /no/such.toml: no such file"),
        (["worker", "-f", "/no/such.toml"], "error: /no/such.toml: no such file"),
    ],
)
def test_what_is_misused(arguments: list[str], words: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.output.replace("\n", " ") and "Traceback" not in result.output


@pytest.mark.parametrize("command", ["up", "gateway", "worker"])
def test_settings_that_are_wrong(command: str, tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[gateway]\nlissten = 3\n")
    result = invoke(command, "-f", str(tmp_path / "headrace.toml"))
    assert result.exit_code == 2
    assert "error: " in result.output and "lissten" in result.output
    assert "Traceback" not in result.output


def test_fields() -> None:
    assert read_fields(["a=1", "b=text", "c=[1]", 'd="1"', "e=", "f=x=y"]) == {
        "a": 1, "b": "text", "c": [1], "d": "1", "e": "", "f": "x=y",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [("2s", 2.0), ("500ms", 0.5), ("1m", 60.0), ("1.5", 1.5), (" 3s ", 3.0), ("24h", 86_400.0)],
)
def test_times(text: str, expected_s: float) -> None:
    assert seconds(text) == expected_s


@pytest.mark.parametrize("text", ["", "s", "0", "-1s", "nan", "inf", "25h", "1e9"])
def test_no_times(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a time"):
        seconds(text)


def test_bars() -> None:
    assert bar(0, 10) == "" and bar(10, 10) == "█" * 30 and bar(0.001, 10) == "▏"
    assert bar(99, 10) == "█" * 30


# -- models, status --------------------------------------------------------------------------------


def test_models(house: Run) -> None:
    loading = MODEL | {"name": "ocr", "ready": False, "reason": "loading [x]", "input": None}
    result = house(httpx.Response(200, json={"models": [MODEL, loading]}), "models")
    head, first, second = result.output.splitlines()
    assert head.split() == ["model", "version", "ready", "input", "output", "description"]
    assert first.split()[:5] == ["face-match", "3", "ready", "Pair", "number"]
    assert "Compares [two] photos." in first and "More" not in first
    assert "loading [x]" in second


def test_one_model(house: Run) -> None:
    result = house(httpx.Response(200, json=MODEL), "models", "face-match")
    assert "left   image" in result.output and ">= 0.25" in result.output
    assert "headrace call face-match -F left=@left.jpg -F least=0.5" in result.output
    as_json = house(httpx.Response(200, json=MODEL), "models", "face-match", "--json")
    assert json.loads(as_json.stdout)["input"] == MODEL["input"]


def test_examples_that_can_be_pasted() -> None:
    assert example("m", IMAGE) == "headrace call m @photo.jpg"
    assert example("m", {"type": "string"}) == "headrace call m '\"text\"'"
    assert example("m", {"type": "string", "pattern": "x"}) == "headrace call m @input.json"


def test_status(house: Run) -> None:
    result = house(httpx.Response(200, json=STATUS), "status")
    assert result.exit_code == 0
    line = next(row for row in result.output.splitlines() if row.startswith("face-match"))
    assert line.split() == ["face-match", "ready", "2", "2/4", "2", "6", "5", "3", "1,234"]
    assert "w-1: loading" in result.output and "gateway abcdef01 at" in result.output


def test_status_with_stored_jobs(house: Run) -> None:
    [model] = STATUS["models"]  # type: ignore[misc]
    stored = STATUS | {"models": [model | {"jobs_waiting": 1234}]}
    output = house(httpx.Response(200, json=stored), "status").output
    assert "stored jobs" in output
    line = next(row for row in output.splitlines() if row.startswith("face-match"))
    assert line.split()[-1] == "1,234"


def test_status_of_a_house_that_is_not_ready(house: Run) -> None:
    result = house(httpx.Response(200, json=STATUS | {"ready": False}), "status", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["models"][0]["workers"][0]["reason"] == "loading"


def test_the_url_of_the_environment(house: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_URL", "http://other.test:1")
    house(httpx.Response(200, json=STATUS), "status")
    assert house.asked[0].url.host == "other.test"  # type: ignore[attr-defined]


def test_pace() -> None:
    assert [pace(n) for n in (0, 0.5, 7.25, 12.4, 1234567)] == ["-", "0.5", "7.2", "12",
                                                                "1,234,567"]  # fmt: skip


# -- up --------------------------------------------------------------------------------------------


def test_where_to_ask_a_gateway() -> None:
    assert url_of("0.0.0.0:80") == "http://127.0.0.1:80"
    assert url_of("10.1.2.3:8100") == "http://10.1.2.3:8100"


def test_what_is_waited_for() -> None:
    models = {"a": ModelReadiness(True), "b": ModelReadiness(False, "loading"),
              "c": ModelReadiness(False)}  # fmt: skip
    assert waiting_for(Readiness(False, models)) == "b: loading; c: not ready"
    assert waiting_for(Readiness(False)) == "the gateway is about to leave"


@pytest.mark.parametrize(
    ("configured", "verbose", "terminal", "level"),
    [
        ("info", False, True, "warning"),
        ("info", True, True, "info"),
        ("info", False, False, "info"),
        ("debug", False, True, "debug"),
        ("debug", True, True, "debug"),
        ("error", False, True, "error"),
    ],
)
def test_how_much_is_logged(
    monkeypatch: pytest.MonkeyPatch, configured: str, verbose: bool, terminal: bool, level: str
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    assert log_level(configured, verbose) == level
