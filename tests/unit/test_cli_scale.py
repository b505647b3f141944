"""`headrace scale`, `headrace autoscale explain`, `headrace control`: what is asked and printed."""

import json
import re
import time
import tomllib
from datetime import datetime

import httpx
import pytest
import typer
from typer.testing import CliRunner

import headrace.client
from headrace.cli import autoscale as explain_command
from headrace.cli.face import app
from headrace.cli.scale import moment, span
from headrace.cli.told import told_plainly
from headrace.client import Control
from headrace.control.tokens import digest
from headrace.settings import load

NOW = 1_700_000_000.0
ID = "0" * 31 + "1"
HAND = {
    "id": ID, "model": "ocr", "kind": "floor", "count": 12, "author": "ann [ops]",
    "reason": "the [red]sale[/]", "created": NOW, "expires": 4e9, "cleared_at": None,
    "cleared_by": "",
}  # fmt: skip
DECISION = {
    "model": "ocr", "minute": 28_333_333, "at": NOW, "mode": "act", "count": 14, "asked": 5,
    "reason": "raised from 5 to 14: 40.0 calls/s are forecast", "inputs": {
        "asked": 5.0, "rate": 12.345, "margin": 1.25, "new": 7.5},
    "clamps": ["the policy's most is 14"], "zones": {"a": 7, "b": 7}, "foretold": 2400.0,
    "from_minute": 28_333_338, "to_minute": 28_333_343, "came": 2640.0, "applied": "yes",
}  # fmt: skip
MODEL = {
    "model": "ocr", "mode": "act", "least": 1, "most": 14, "count": 14, "ready": 12.0,
    "overrides": [HAND], "decision": DECISION,
    "alarms": [{"id": ID, "model": "ocr", "name": "reply-side", "began": NOW, "ended": None,
                "detail": "answers wait"}],
}  # fmt: skip
IDLE = {"model": "face", "mode": "act", "least": 0, "most": 4, "count": None, "ready": None,
        "overrides": [], "decision": None, "alarms": []}  # fmt: skip


@pytest.fixture
def run(monkeypatch, tmp_path):
    """run({"POST /scale/...": body}, "scale", "set", ...); what was asked is in run.asked."""
    for name in ("HEADRACE_CONTROL", "HEADRACE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text("")
    asked, reached = [], []

    def invoke(replies, *arguments):
        def answer(request):
            asked.append(request)
            found = replies[f"{request.method} {request.url.path}"]
            reply = found(request) if callable(found) else found
            if isinstance(reply, httpx.Response):
                return reply
            return httpx.Response(200, json=reply)

        def control(where, **more):
            reached.append((where, more.get("token")))
            if replies is None:
                return Control(where, **more)
            return Control("http://control", transport=httpx.MockTransport(answer), **more)

        def inside():
            with told_plainly():
                app(list(arguments), prog_name="headrace")

        monkeypatch.setattr(headrace.client, "Control", control)
        wrapped = typer.Typer(pretty_exceptions_enable=False)
        wrapped.command()(inside)
        return CliRunner().invoke(wrapped, [])

    invoke.asked, invoke.reached = asked, reached
    return invoke


def body_of(request):
    return json.loads(request.content)


# -- scale -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["set", "floor", "cap"])
def test_a_hand_is_asked_for(run, kind):
    reply = {"override": HAND | {"kind": kind}, "warnings": ["above the policy's most"]}
    result = run(
        {"POST /scale/ocr/overrides": reply},
        "scale", kind, "ocr", "12", "--for", "2h", "--reason", "the sale",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert body_of(run.asked[0]) == {
        "kind": kind, "count": 12, "reason": "the sale", "for_s": 7200.0, "until": None,
    }  # fmt: skip
    words = {"set": "exactly 12", "floor": "at least 12", "cap": "at most 12"}[kind]
    assert f"ocr: {words} until" in result.output
    assert "by ann [ops]: the [red]sale[/]" in result.output and ID in result.output
    assert "hint: above the policy's most" in result.stderr


def test_until_is_a_time_of_this_machine(run):
    replies = {"POST /scale/ocr/overrides": {"override": HAND, "warnings": []}}
    result = run(replies, "scale", "set", "ocr", "0", "--until", "2033-05-18 06:00", "--reason",
                 "x", "--json")  # fmt: skip
    body = body_of(run.asked[0])
    assert body["until"] == datetime(2033, 5, 18, 6).timestamp() and body["for_s"] is None
    assert json.loads(result.output) == {"override": HAND, "warnings": []}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "ocr", "5"], "--reason"),
        (["set", "ocr", "-1", "--reason", "x"], "-1"),
        (["set", "ocr", "many", "--reason", "x"], "COUNT"),
        (["cap", "ocr", "100001", "--reason", "x"], "100000"),
        (["floor", "ocr", "5", "--reason", "x", "--for", "31d"], "'31d'"),
        (["floor", "ocr", "5", "--reason", "x", "--for", "soon"], "'soon'"),
        (["floor", "ocr", "5", "--reason", "x", "--until", "25:00"], "'25:00'"),
        (["floor", "ocr", "5", "--reason", "x", "--for", "1h", "--until", "12:00"], "not both"),
    ],
)
def test_what_is_wrong_is_named_and_nobody_is_asked(run, arguments, said):
    result = run({}, "scale", *arguments)
    assert result.exit_code == 2 and said in result.output + result.stderr
    assert run.asked == []


def test_what_the_house_refuses_is_told(run):
    problem = {"status": 403, "code": "forbidden", "detail": "vic is viewer: this takes operator"}
    result = run(
        {"POST /scale/ocr/overrides": lambda _: httpx.Response(403, json=problem)},
        "scale", "set", "ocr", "5", "--reason", "x",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "403 forbidden: vic is viewer: this takes operator" in result.stderr
    assert len(run.asked) == 1


def test_clear(run):
    replies = {
        "DELETE /scale/ocr/overrides": {"cleared": [HAND]},
        f"DELETE /scale/ocr/overrides/{ID}": {"cleared": []},
    }
    result = run(replies, "scale", "clear", "ocr")
    assert result.exit_code == 0 and "taken back: ocr: at least 12" in result.output
    assert "ocr has no override" in run(replies, "scale", "clear", "ocr", ID).output
    assert json.loads(run(replies, "scale", "clear", "ocr", "--json").output) == [HAND]


def test_show(run):
    replies = {
        "GET /scale": {"mode": "act", "models": [MODEL, IDLE]},
        "GET /scale/ocr": MODEL,
        "GET /scale/ocr/overrides": {
            "overrides": [HAND, HAND | {"id": "2" * 32, "cleared_at": NOW, "cleared_by": "bob"}]
        },
    }
    out = run(replies, "scale", "show").output
    assert "ocr" in out and "face" in out and "floor 12, ann [ops]" in out and "reply-side" in out
    assert re.search(r"face\s+act\s+-\s+-\s+0\s+4", out)
    out = run(replies, "scale", "show", "ocr").output
    assert "count 14, 12 ready" in out and "reply-side since" in out and "answers wait" in out
    assert "the [red]sale[/]" in out and "taken back by bob" in out
    assert "raised from 5 to 14" in out
    assert json.loads(run(replies, "scale", "show", "ocr", "--json").output) == MODEL
    assert len(json.loads(run(replies, "scale", "show", "--json").output)) == 2
    empty = {"GET /scale": {"mode": "off", "models": []}}
    assert "no model is scaled" in run(empty, "scale", "show").output


def test_times():
    now = datetime.now()
    soon, ago = moment("23:59"), moment("00:00", past=True)
    assert 0 < soon - now.timestamp() <= 86_400 + 3600
    assert 0 <= now.timestamp() - ago <= 86_400 + 3600
    assert moment("2026-11-27T18:00+00:00") == 1_795_802_400.0
    assert [span(s) for s in (30, 89, 90, 7200, 86_400 * 3)] == [
        "30 seconds", "89 seconds", "2 minutes", "2 hours", "3 days",
    ]  # fmt: skip


# -- explain ---------------------------------------------------------------------------------------


def page(*decisions, after=None):
    return {"decisions": list(decisions), "next": after}


def test_explain_says_why(run):
    shadow = DECISION | {
        "at": NOW + 60, "foretold": 60.0, "came": None, "applied": "no: shadow", "zones": {},
        "clamps": [], "reason": "kept at 14: [b]x[/b]",
    }  # fmt: skip
    replies = {"GET /scale/ocr/decisions": page(shadow, DECISION)}
    result = run(replies, "autoscale", "explain", "ocr")
    assert result.exit_code == 0, result.output
    out = result.output
    assert out.index("raised from 5 to 14") < out.index("kept at 14: [b]x[/b]")
    for text in (
        "asked for before 5, 12.35 calls/s came, margin 1.25, new 7.5",
        "clamped   the policy's most is 14", "zones     a 7, b 7",
        "40.00 calls/s at the most for ", "44.00 came, 10% above", "not over yet",
        "done      no: shadow",
    ):  # fmt: skip
        assert text in out
    assert json.loads(run(replies, "autoscale", "explain", "ocr", "--json").output)[0] == DECISION
    nothing = {"GET /scale/ocr/decisions": page()}
    assert "no decision yet" in run(nothing, "autoscale", "explain", "ocr").output


def test_explain_looks_for_moves_and_from_a_time_on(run):
    def answer(request):
        if request.url.params.get("cursor"):
            return page(DECISION | {"minute": 1, "reason": "older"}, DECISION)
        return page(*[DECISION | {"count": 5}] * 3, after="c1")

    replies = {"GET /scale/ocr/decisions": answer}
    when = "2026-11-22 09:05"
    result = run(replies, "autoscale", "explain", "ocr", "--moves", "--last", "1", "--at", when)
    assert "older" in result.output
    first, second = run.asked
    assert float(first.url.params["at"]) == datetime(2026, 11, 22, 9, 5).timestamp()
    assert "at" not in second.url.params and second.url.params["cursor"] == "c1"


def test_explain_draws(run, tmp_path):
    minutes = {"minute": [28_333_330, 28_333_331], "calls": [60.0, None], "ready": [2.0, None]}
    replies = {
        "GET /scale/ocr/decisions": page(DECISION | {"foretold": None}, DECISION),
        "GET /scale/ocr/minutes": {"model": "ocr", "minutes": minutes},
    }
    at = datetime.fromtimestamp(NOW + 600).isoformat()
    result = run(replies, "autoscale", "explain", "ocr", "--plot", "ocr.png", "--at", at)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "ocr.png").read_bytes().startswith(b"\x89PNG")
    empty = replies | {
        "GET /scale/ocr/decisions": page(),
        "GET /scale/ocr/minutes": {"minutes": {"minute": [], "calls": [], "ready": []}},
    }
    assert run(empty, "autoscale", "explain", "ocr", "--plot", "none.png").exit_code == 0


def test_without_matplotlib_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "headrace.cli.decision_plot", None)
    replies = {"GET /scale/ocr/decisions": page(DECISION)}
    result = run(replies, "autoscale", "explain", "ocr", "--plot", "x.png")
    assert result.exit_code == 2 and "pip install 'headrace[plots]'" in result.stderr


def test_a_forecast_of_nothing_has_no_percent():
    from headrace.client.scale import Decision

    one = Decision(model="m", minute=1, at=1.0, count=1, asked=1, reason="", foretold=0.0, came=6.0)
    assert explain_command.forecast(one) == "0.00 calls/s at the most; 0.10 came"


# -- how the house is reached ----------------------------------------------------------------------


def test_a_token_and_the_lines_for_the_settings(run, tmp_path):
    for name in ("ann", "ann.b@example.com"):
        result = run({}, "control", "token", name, "--role", "operator")
        assert result.exit_code == 0
        [token] = re.findall(r"hrc_\S+", result.output)
        toml = result.output[result.output.index("[control.people") :]
        assert tomllib.loads(toml)["control"]["people"][name] == {
            "token_sha256": digest(token.encode()), "role": "operator",
        }  # fmt: skip
        (tmp_path / "made.toml").write_text(toml)
        assert list(load(tmp_path / "made.toml", environment={}).control.people) == [name]
        assert token not in toml
    for arguments in (["a b"], [""], ["ann", "--role", "root"]):
        assert run({}, "control", "token", *arguments).exit_code == 2


def test_whoami_by_url_and_token(run, tmp_path):
    (tmp_path / "token").write_text("hrc_x\n")
    replies = {"GET /whoami": {"name": "ann", "role": "viewer", "through": "tcp"}}
    result = run(
        replies, "control", "whoami", "--control", "https://control.example", "--token-file",
        "token",
    )  # fmt: skip
    assert result.output == "ann, viewer\n"
    assert run.reached == [("https://control.example", "hrc_x")]
    assert run.asked[0].headers["authorization"] == "Bearer hrc_x"
    assert "hrc_x" not in str(run.asked[0].url)
    run(replies, "control", "whoami")
    assert str(run.reached[1][0]).endswith("/.headrace/control.sock")


def test_where_nobody_is(run, tmp_path):
    result = run(None, "scale", "show")
    assert result.exit_code == 1 and "cannot connect to" in result.stderr
    assert ".headrace/control.sock" in result.stderr and "headrace up" in result.stderr
    (tmp_path / "empty").write_text("\n")
    for arguments, said in (
        (["--token-file", "none"], "none"),
        (["--token-file", "empty"], "expected one line"),
        (["-f", "gone.toml"], "gone.toml: no such file"),
        (["--control", "ftp://x"], "ftp://x"),
    ):
        result = run(None, "scale", "show", *arguments)
        assert result.exit_code == 2 and said in result.output + result.stderr, arguments
    began = time.monotonic()
    result = run(None, "scale", "show", "--control", "http://127.0.0.1:9")
    assert result.exit_code == 1 and "127.0.0.1:9" in result.stderr
    assert time.monotonic() - began < 10
