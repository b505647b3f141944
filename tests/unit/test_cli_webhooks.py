"""`headrace webhooks`: what is asked, what is printed, what is never printed twice."""

import json

import httpx
import pytest
import typer
from typer.testing import CliRunner

import headrace.client
from headrace.cli import webhooks as command
from headrace.cli.told import told_plainly
from headrace.client import Client

ID = "0" * 31 + "1"
HOOK = {
    "id": ID, "url": "https://a.example/", "events": ["job.dead"], "enabled": True,
    "created": 1_700_000_000.0, "failing_since": None, "note": "[ops]", "old_secret_until": None,
}  # fmt: skip
SENT = {
    "id": "evt_1", "event": "webhook.test", "job_id": "", "state": "delivered", "tries": 1,
    "created": 1_700_000_000.0, "due": None, "last_status": 204, "last_error": "",
}  # fmt: skip
SECRET = "whsec_C2FVsBQIhrscChlQ"


@pytest.fixture
def run(monkeypatch):
    """run({"POST /webhooks": reply}, "add", ...); what was asked is in run.asked."""
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(command, "TEST_S", 0.2)
    asked = []

    def invoke(replies, *arguments):
        def answer(request):
            asked.append(request)
            reply = replies[f"{request.method} {request.url.path}"]
            return httpx.Response(reply[0], json=reply[1])

        def client(url, **more):
            return Client(url, transport=httpx.MockTransport(answer), **more)

        def inside():
            with told_plainly():
                command.webhooks(list(arguments), prog_name="headrace webhooks")

        monkeypatch.setattr(headrace.client, "Client", client)
        wrapped = typer.Typer(pretty_exceptions_enable=False)
        wrapped.command()(inside)
        return CliRunner().invoke(wrapped, [])

    invoke.asked = asked
    return invoke


def test_add_shows_the_secret(run):
    replies = {"POST /webhooks": (200, HOOK | {"secret": SECRET})}
    result = run(replies, "add", "https://a.example/", "--event", "job.dead", "--note", "[ops]")
    assert result.exit_code == 0
    assert SECRET in result.output and "not shown again" in result.output
    assert "[ops]" in result.output and "https://a.example/" in result.output
    assert json.loads(run.asked[0].content) == {
        "url": "https://a.example/", "events": ["job.dead"], "note": "[ops]",
    }  # fmt: skip
    assert json.loads(run(replies, "add", "https://a.example/", "--json").output) == HOOK | {
        "secret": SECRET
    }
    assert json.loads(run.asked[1].content)["events"] == ["*"]


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({}, "on"),
        ({"enabled": False}, "off"),
        ({"failing_since": 1_700_000_000.0}, "failing since"),
    ],
)
def test_list_and_show(run, more, state):
    replies = {
        "GET /webhooks": (200, {"webhooks": [HOOK | more]}),
        f"GET /webhooks/{ID}": (200, HOOK | more),
    }
    for arguments in (["list"], ["show", ID]):
        result = run(replies, *arguments)
        assert result.exit_code == 0
        assert all(word in result.output for word in (ID, state, "[ops]", "job.dead"))
        assert "secret" not in result.output
    assert json.loads(run(replies, "list", "--json").output) == [HOOK | more]
    assert json.loads(run(replies, "show", ID, "--json").output) == HOOK | more


@pytest.mark.parametrize(
    ("given", "overlap_s"), [([], 86_400), (["--overlap", "0"], 0), (["--overlap", "30m"], 1800)]
)
def test_rotate(run, given, overlap_s):
    replies = {f"POST /webhooks/{ID}/rotate": (200, HOOK | {"secret": SECRET})}
    result = run(replies, "rotate", ID, *given)
    assert result.exit_code == 0 and SECRET in result.output
    assert json.loads(run.asked[0].content) == {"overlap_s": overlap_s}


@pytest.mark.parametrize("overlap", ["x", "-1h", "8d", "169h", "nan", ""])
def test_an_overlap_that_is_none(run, overlap):
    result = run({}, "rotate", ID, f"--overlap={overlap}")
    assert result.exit_code == 2 and "expected 0 to 168h" in result.output


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (SENT, 0, "taken, answered with 204"),
        (SENT | {"state": "waiting", "last_status": 500, "last_error": "answered with 500",
                 "due": 1_700_000_005.0}, 1, "not taken: answered with 500; tried again at"),
        (SENT | {"state": "dropped", "last_status": 410, "last_error": "answered with 410"}, 1,
         "not taken: answered with 410"),
        (SENT | {"state": "waiting", "tries": 0}, 1, "is a clerk running?"),
    ],
)  # fmt: skip
def test_test(run, sent, status, words):
    replies = {
        f"POST /webhooks/{ID}/test": (202, {"id": "evt_1", "links": {}}),
        f"GET /webhooks/{ID}/deliveries": (200, {"deliveries": [sent], "next": None}),
    }
    result = run(replies, "test", ID)
    assert result.exit_code == status and words in result.output
    result = run(replies, "test", ID, "--json")
    assert result.exit_code == status and json.loads(result.output) == sent


def test_deliveries(run):
    replies = {f"GET /webhooks/{ID}/deliveries": (200, {"deliveries": [SENT], "next": "x"})}
    result = run(replies, "deliveries", ID, "--limit", "5")
    assert all(word in result.output for word in ("evt_1", "webhook.test", "delivered", "204"))
    assert run.asked[0].url.query == b"limit=5"
    assert json.loads(run(replies, "deliveries", ID, "--json").output)["deliveries"] == [SENT]


def test_remove(run):
    result = run({f"DELETE /webhooks/{ID}": (200, {"id": ID, "removed": True})}, "remove", ID)
    assert (result.exit_code, result.output.strip()) == (0, "removed")


def test_a_refusal_is_told(run):
    problem = {"status": 404, "code": "webhook-not-found", "detail": "no such webhook"}
    result = run({f"GET /webhooks/{ID}": (404, problem)}, "show", ID)
    assert result.exit_code == 1
    assert "error: 404 webhook-not-found: no such webhook" in result.output


@pytest.mark.parametrize(
    "name", [[], ["add"], ["list"], ["show"], ["rotate"], ["test"], ["remove"], ["deliveries"]]
)
def test_help(run, name):
    result = run({}, *name, "--help")
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 140
    if name in ([], ["add"], ["rotate"]):
        assert "headrace webhooks add" in result.output or "headrace webhooks" in result.output
