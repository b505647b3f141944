"""`headrace jobs`, `dead` and `clerk`: help that teaches, what is asked, what is printed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

import headrace.client
from headrace.cli import app
from headrace.cli.job_tables import span
from headrace.cli.told import told_plainly
from headrace.client import Client

ID = "01a2040df71fd3fbce42115a703e8fe3"
PROBLEM = {"status": 500, "code": "model-failed", "detail": "the model raised [x]"}
DEAD = {
    "id": ID, "model": "ocr", "state": "dead", "priority": "bulk", "attempt": 6, "tries": 5,
    "max_attempts": 5, "request_id": "r1", "created": 1e9, "deadline": 2e9, "started": 1e9 + 1,
    "finished": 1e9 + 90, "version": "3", "executed_ms": 12.5, "problem": PROBLEM,
    "losses": [{"attempt": 1, "worker": "w-1", "at": 1e9 + 2, "reason": "lease over"}],
}  # fmt: skip
DONE = DEAD | {"state": "succeeded", "problem": None, "losses": [], "result": {"same": True}}

Run = Callable[..., Result]


class House:
    """Answers by method and path; keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.replies: dict[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        key = f"{request.method} {request.url.path}"
        reply = self.replies.get(key)
        if reply is None:
            body = {"status": 404, "code": "job-not-found", "detail": "no such job"}
            return httpx.Response(404, json=body)
        return reply if isinstance(reply, httpx.Response) else httpx.Response(200, json=reply)

    def sent(self) -> list[str]:
        return [f"{r.method} {r.url.raw_path.decode()}" for r in self.asked]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    found = House()

    def client(url: str, deadline_s: float) -> Client:
        transport = httpx.MockTransport(found)
        return Client(url, deadline_s=deadline_s, retries=0, transport=transport)

    monkeypatch.setattr(headrace.client, "Client", client)
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "140")
    return found


def invoke(*arguments: str, **more: Any) -> Result:
    """As `main` does: what the caller can mend is told in one line."""

    def inside() -> None:
        with told_plainly():
            app(list(arguments), prog_name="headrace", standalone_mode=True)

    wrapped = typer.Typer(pretty_exceptions_enable=False)
    wrapped.command()(inside)
    return CliRunner().invoke(wrapped, [], **more)


# -- help ------------------------------------------------------------------------------------------

COMMANDS = [
    *(f"jobs {verb}" for verb in ("list", "show", "submit", "wait", "cancel")),
    *(f"dead {verb}" for verb in ("list", "show", "replay", "discard")),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"    headrace {command}" in result.output
    assert max(map(len, result.output.splitlines())) <= 100


@pytest.mark.parametrize("noun", ["jobs", "dead"])
def test_a_noun_alone_shows_its_verbs(noun: str) -> None:
    output = invoke(noun, "--help").output
    verbs = [command.split()[1] for command in COMMANDS if command.startswith(noun)]
    assert all(f"\n  {verb} " in output for verb in verbs)
    assert "..." not in output.partition("Commands:")[2]  # no summary is cut


# -- list, show ------------------------------------------------------------------------------------


def test_a_list(house: House) -> None:
    house.replies["GET /jobs"] = {"jobs": [DEAD, DONE], "next": None}
    result = invoke("jobs", "list", "--state", "dead, succeeded", "--model", "ocr")
    assert result.exit_code == 0, result.output
    head, first, second = result.output.splitlines()
    assert head.split() == ["job", "model", "state", "tries", "age", "took", "why"]
    assert first.split()[:4] == [ID, "ocr", "dead", "5/5"]
    assert first.split()[-3:] == ["90", "s", "model-failed"]
    assert "succeeded" in second
    assert house.sent() == ["GET /jobs?limit=51&state=dead%2Csucceeded&model=ocr"]


def test_a_list_that_goes_on(house: House) -> None:
    house.replies["GET /jobs"] = {"jobs": [DEAD] * 3, "next": "c"}
    result = invoke("jobs", "list", "--limit", "2")
    assert result.output.count(ID) == 2 and "there are more: --limit" in result.output


def test_an_empty_list(house: House) -> None:
    house.replies["GET /jobs"] = {"jobs": [], "next": None}
    assert invoke("jobs", "list").output == "no jobs\n"
    assert invoke("dead", "list").output == "no dead jobs\n"
    assert json.loads(invoke("dead", "list", "--json").stdout) == []
    assert house.sent()[1] == "GET /jobs?limit=51&state=dead"


def test_one(house: House) -> None:
    house.replies[f"GET /jobs/{ID}"] = DEAD
    for noun in ("jobs", "dead"):
        output = invoke(noun, "show", ID).output
        assert "500 model-failed the model raised [x]" in output
        assert "5 of 5, 6 runs" in output and "90 s after submission" in output
        assert "run 1 on w-1 came to nothing: lease over" in output


def test_one_with_its_result(house: House) -> None:
    house.replies[f"GET /jobs/{ID}"] = DONE
    assert '"same": true' in invoke("jobs", "show", ID).output
    printed = json.loads(invoke("jobs", "show", ID, "--json").stdout)
    assert printed["result"] == {"same": True} and printed["state"] == "succeeded"


def test_one_that_is_not_there(house: House) -> None:
    result = invoke("jobs", "show", ID)
    assert result.exit_code == 1
    assert "error: 404 job-not-found: no such job" in result.output


# -- submit, wait, cancel --------------------------------------------------------------------------

WAITING = {"id": ID, "model": "ocr", "state": "waiting", "request_id": "r1", "links": {}}


def test_a_submit(house: House) -> None:
    house.replies["POST /models/ocr/jobs"] = httpx.Response(202, json=WAITING)
    result = invoke("jobs", "submit", "ocr", "-F", "n=3", "--key", "k", "--bulk", "--ttl", "7d")
    assert result.exit_code == 0 and result.output == f"{ID}\n"
    [request] = house.asked
    assert request.content == b'{"n":3}' and request.headers["idempotency-key"] == "k"
    assert request.headers["headrace-priority"] == "bulk"
    assert request.headers["headrace-deadline-ms"] == "604800000"


def test_a_submit_as_json(house: House) -> None:
    house.replies["POST /models/ocr/jobs"] = httpx.Response(202, json=WAITING)
    printed = json.loads(invoke("jobs", "submit", "ocr", "1", "--json").stdout)
    assert (printed["id"], printed["state"]) == (ID, "waiting")


def test_a_submit_that_waits(house: House) -> None:
    house.replies["POST /models/ocr/jobs"] = httpx.Response(202, json=WAITING)
    house.replies[f"GET /jobs/{ID}"] = DONE
    result = invoke("jobs", "submit", "ocr", "1", "--wait", "5s")
    assert result.exit_code == 0 and '"same": true' in result.output
    assert house.asked[1].headers["prefer"].startswith("wait=")


def test_a_wait_for_a_job_that_dies(house: House) -> None:
    house.replies[f"GET /jobs/{ID}"] = DEAD
    result = invoke("jobs", "wait", ID)
    assert result.exit_code == 1 and "500 model-failed" in result.output


def test_a_wait_that_is_over(house: House) -> None:
    house.replies[f"GET /jobs/{ID}"] = WAITING
    result = invoke("jobs", "wait", ID, "--timeout", "1ms")
    assert result.exit_code == 1
    assert f"error: job {ID} has not ended in 0 s: it was waiting" in result.output


def test_a_cancel_of_several_goes_on_after_a_refusal(house: House) -> None:
    house.replies[f"DELETE /jobs/{ID}"] = DEAD | {"state": "cancelled"}
    result = invoke("jobs", "cancel", "nope", ID)
    assert result.exit_code == 1
    assert f"{ID} cancelled" in result.output
    assert "error: nope: job-not-found: no such job" in result.output
    printed = json.loads(invoke("jobs", "cancel", "nope", ID, "--json").stdout)
    assert printed == {"cancelled": [ID], "refused": {"nope": "job-not-found"}}


# -- the desk of the dead --------------------------------------------------------------------------


def test_a_replay(house: House) -> None:
    house.replies[f"POST /jobs/{ID}/replay"] = httpx.Response(202, json=WAITING)
    result = invoke("dead", "replay", ID)
    assert result.exit_code == 0 and result.output == f"{ID} replayed\n"


def test_all_of_a_model(house: House) -> None:
    many = [DEAD | {"id": f"{n:032x}"} for n in range(25)]
    house.replies["GET /jobs"] = {"jobs": many, "next": None}
    for job in many:
        path = f"POST /jobs/{job['id']}/discard"
        house.replies[path] = httpx.Response(202, json={"id": job["id"]})
    result = invoke("dead", "discard", "--all", "--model", "ocr", "--yes")
    assert result.exit_code == 0 and result.output == "25 discarded\n"
    assert house.sent()[0] == "GET /jobs?limit=200&state=dead&model=ocr"
    assert len(house.asked) == 26


def test_all_is_asked_for(house: House) -> None:
    house.replies["GET /jobs"] = {"jobs": [DEAD], "next": None}
    result = invoke("dead", "replay", "--all", "--model", "ocr", input="y\n")
    assert result.exit_code == 2  # nobody is at the terminal
    assert "Replay 1 dead job of ocr?" in result.output and "--yes" in result.output
    assert len(house.asked) == 1


def test_whoever_says_no_keeps_them(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.replies["GET /jobs"] = {"jobs": [DEAD], "next": None}
    asked: list[str] = []

    def no(question: str, **more: Any) -> None:
        asked.append(question)
        raise typer.Abort

    monkeypatch.setattr("headrace.cli.told.typer.confirm", no)
    monkeypatch.setattr("headrace.cli.told.at_a_terminal", lambda: True)
    result = invoke("dead", "discard", "--all", "--model", "ocr")
    assert result.exit_code == 1 and asked == ["Discard 1 dead job of ocr, for good?"]
    assert len(house.asked) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["jobs", "list", "--state", "done"], "'done': expected waiting, running"),
        (["jobs", "list", "--limit", "0"], "--limit"),
        (["jobs", "submit", "m"], "missing: give JSON"),
        (["jobs", "submit", "m", "1", "--ttl", "soon"], "expected a time such as 30s, 12h or 7d"),
        (["jobs", "wait"], "Missing argument"),
        (["dead", "replay"], "give ID..., or --all with --model"),
        (["dead", "replay", "--all"], "--all needs it: of which model?"),
        (["dead", "discard", ID, "--all", "--model", "m"], "give ID..., or --all"),
        (["dead", "discard", ID, "--model", "m"], "goes with --all"),
        (["clerk", "-f", "/no/such.toml"], "error: /no/such.toml: no such file"),
    ],
)
def test_what_is_misused(arguments: list[str], words: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.output.replace("\n", " ") and "Traceback" not in result.output


def test_the_clerks_settings(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[clerk]\nevery = 3\n")
    result = invoke("clerk", "-f", str(tmp_path / "headrace.toml"))
    assert result.exit_code == 2 and "every" in result.output


def test_spans() -> None:
    spans = [span(s) for s in (-1, 0.034, 5.4, 119, 120, 7199, 7200, 172_800, 9e5)]
    assert spans == ["0.00 s", "0.03 s", "5 s", "119 s", "2 min", "120 min", "2 h", "2 d", "10 d"]
