"""`headrace rollout`, and `headrace promote` through a house: what is asked and printed."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import httpx
import msgspec
import pytest
import typer
from typer.testing import CliRunner

import headrace.client
from headrace.cli import rollout_wait
from headrace.cli.face import app
from headrace.cli.rollout_tables import figure, verdicts, version
from headrace.cli.rollout_wait import Standing, standing
from headrace.cli.told import told_plainly
from headrace.client import Control
from headrace.client.rollout import DeployedModel, Rollout, RolloutOrder

NOW = 1_700_000_000.0
ID, OLD = "0" * 31 + "2", "0" * 31 + "1"
VERDICT = {
    "gate": "errors", "verdict": "bad", "new": 0.12, "stable": 0.004, "limit": 0.024,
    "new_calls": 120, "stable_calls": 2280, "text": "12 % of [red]its[/] calls fail",
}  # fmt: skip
OPEN = {
    "id": ID, "model": "iris", "from_version": 3, "to_version": 4, "strategy": "canary",
    "state": "stepping", "step": 1, "paused": False, "author": "ann [ops]", "started": NOW,
    "updated": NOW, "since": NOW, "ended": None, "reason": "better [b]at night[/b]",
    "why": "step 2 is held for 30 s",
    "figures": {"errors": VERDICT, "answers": {"text": "no verdict"}},
}  # fmt: skip
DONE = OPEN | {"id": OLD, "from_version": 0, "to_version": 3, "state": "done", "ended": NOW,
               "why": "version 3 has all calls"}  # fmt: skip
ORDER = {"id": "a" * 32, "kind": "start", "version": 4, "strategy": "", "author": "ann",
         "reason": "x", "at": NOW, "done": None, "outcome": ""}  # fmt: skip
IRIS = {
    "model": "iris", "alias": "production", "strategy": "canary", "steps": [5.0, 25.0, 50.0],
    "stable": 3, "rollout": OPEN, "last": [OPEN, DONE], "orders": [],
    "route": {"revision": 9, "shadow": 0, "shadow_share": 0, "shares": [
        {"version": 3, "of_whole": 7500}, {"version": 4, "of_whole": 2500}]},
    "deployments": [
        {"version": 3, "state": "serving", "share": 7500, "since": NOW, "count": 4},
        {"version": 4, "state": "serving", "share": 2500, "since": NOW, "count": 1}],
}  # fmt: skip
QUIET = {"model": "wine", "alias": "production", "strategy": "rolling", "steps": [], "stable": 0,
         "rollout": None, "last": [], "orders": [], "route": None, "deployments": []}  # fmt: skip
PROMOTION = {"id": "f" * 16, "at": NOW, "outcome": "done", "model": "iris", "alias": "production",
             "to": 4, "before": 3, "author": "ann", "reason": "x"}  # fmt: skip


@pytest.fixture
def run(monkeypatch, tmp_path):
    """run({"POST /rollouts/...": body}, "rollout", "start", ...); what was asked: run.asked. A list
    of replies is given one after the other, the last one for ever."""
    for name in ("HEADRACE_CONTROL", "HEADRACE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rollout_wait, "POLL_S", 0.0)
    (tmp_path / "headrace.toml").write_text("")
    asked = []

    def invoke(replies, *arguments):
        def answer(request):
            asked.append(request)
            found = replies[f"{request.method} {request.url.path}"]
            if isinstance(found, list):
                found = found.pop(0) if len(found) > 1 else found[0]
            return found if isinstance(found, httpx.Response) else httpx.Response(200, json=found)

        def control(where, **more):
            return Control("http://control", transport=httpx.MockTransport(answer), **more)

        def inside():
            with told_plainly():
                app(list(arguments), prog_name="headrace")

        monkeypatch.setattr(headrace.client, "Control", control)
        wrapped = typer.Typer(pretty_exceptions_enable=False)
        wrapped.command()(inside)
        return CliRunner().invoke(wrapped, [])

    invoke.asked = asked
    return invoke


def body_of(request):
    return json.loads(request.content)


# -- orders ----------------------------------------------------------------------------------------


def test_a_start_is_asked_for(run):
    replies = {"POST /rollouts/iris/orders": {"order": ORDER, "promotion": PROMOTION}}
    result = run(replies, "rollout", "start", "iris", "4", "--strategy", "canary", "--reason", "x")
    assert result.exit_code == 0, result.output
    assert body_of(run.asked[0]) == {
        "order": "start", "version": 4, "strategy": "canary", "reason": "x",
    }  # fmt: skip
    assert "production of iris: 3 -> 4" in result.output
    assert "iris: start of 4 is ordered" in result.output
    assert "headrace rollout show iris --watch" in result.stderr


@pytest.mark.parametrize("kind", ["pause", "resume", "promote", "rollback"])
def test_a_hand_on_the_open_rollout(run, kind):
    replies = {
        "POST /rollouts/iris/orders": {
            "order": ORDER | {"kind": kind, "version": None}, "promotion": None,
        }
    }  # fmt: skip
    result = run(replies, "rollout", kind, "iris", "--reason", "a closer look")
    assert result.exit_code == 0 and f"iris: {kind} is ordered" in result.output
    asked = body_of(run.asked[0])
    assert (asked["order"], asked["reason"], asked["version"]) == (kind, "a closer look", None)
    told = run(replies, "rollout", kind, "iris", "--reason", "x", "--json")
    assert json.loads(told.output)["order"]["kind"] == kind


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["start", "iris", "4"], "--reason"),
        (["start", "iris", "0", "--reason", "x"], "VERSION"),
        (["start", "iris", "four", "--reason", "x"], "VERSION"),
        (["start", "iris", "4", "--reason", "x", "--strategy", "big-bang"], "canary, rolling"),
        (["start", "iris", "4", "--reason", "x", "--wait", "--json"], "rollout show --json"),
        (["show", "--watch"], "one MODEL"),
    ],
)
def test_what_is_wrong_is_named_and_nobody_is_asked(run, arguments, said):
    result = run({}, "rollout", *arguments)
    assert result.exit_code == 2 and said in result.output + result.stderr
    assert run.asked == []


def test_what_makes_no_sense_now_is_told(run):
    problem = {"status": 409, "code": "rollout-state", "detail": "no rollout is open"}
    replies = {"POST /rollouts/iris/orders": httpx.Response(409, json=problem)}
    result = run(replies, "rollout", "pause", "iris", "--reason", "x")
    assert result.exit_code == 1 and "409 rollout-state: no rollout is open" in result.stderr


# -- waiting ---------------------------------------------------------------------------------------


def views(*last, orders=(ORDER,)):
    quiet = IRIS | {"rollout": None, "last": [DONE]}
    return [quiet, quiet, IRIS, *({**quiet, "last": [one, DONE], "orders": orders} for one in last)]


def test_waiting_until_it_is_done(run):
    ended = OPEN | {"state": "done", "ended": NOW, "why": "version 4 has all calls"}
    replies = {
        "POST /rollouts/iris/orders": {"order": ORDER, "promotion": None},
        "GET /rollouts/iris": views(ended),
    }
    result = run(replies, "rollout", "start", "iris", "4", "--reason", "x", "--wait")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[1] == "  0%  ordered"
    assert lines[2] == " 25%  canary to 4: stepping, step 2 of 3, step 2 is held for 30 s"
    assert lines[3] == "100%  canary to 4: done, version 4 has all calls"


@pytest.mark.parametrize("state", ["rolled-back", "stopped"])
def test_waiting_for_what_is_rolled_back_ends_with_1(run, state):
    ended = OPEN | {"state": state, "ended": NOW, "why": "errors: 12 % of its calls fail"}
    replies = {
        "POST /rollouts/iris/orders": {"order": ORDER, "promotion": None},
        "GET /rollouts/iris": views(ended),
    }
    result = run(replies, "rollout", "start", "iris", "4", "--reason", "x", "--wait")
    assert result.exit_code == 1
    assert f"error: canary to 4: {state}, errors: 12 % of its calls fail" in result.stderr


def test_a_clerk_that_gives_way_is_waited_for(run):
    away = httpx.Response(503, json={"status": 503, "code": "leaving", "detail": "x"})
    found = views(OPEN | {"state": "done", "ended": NOW})
    replies = {
        "POST /rollouts/iris/orders": {"order": ORDER, "promotion": None},
        "GET /rollouts/iris": [found[0], away, away, *found[1:]],
    }
    result = run(replies, "rollout", "start", "iris", "4", "--reason", "x", "--wait")
    assert result.exit_code == 0, result.output


def view(**more):
    return msgspec.convert(IRIS | more, DeployedModel)


def order(**more):
    return msgspec.convert(ORDER | more, RolloutOrder)


def test_what_was_ordered_is_told_from_what_was_there_before():
    before = frozenset([OLD])
    assert standing(view(), order(), before) == Standing(
        0.25, "canary to 4: stepping, step 2 of 3, step 2 is held for 30 s"
    )
    assert standing(view(rollout=None, last=[DONE]), order(), before) == Standing(0.0, "ordered")
    # One to another version is not ours.
    assert standing(view(), order(version=5), before).text == "ordered"
    no = ORDER | {"done": NOW, "outcome": "no: another rollout is under way"}
    assert standing(view(orders=[no]), order(), before).ended == "no: another rollout is under way"


def test_the_first_version_is_placed_without_a_rollout():
    served = [{"version": 4, "state": "serving", "share": 10_000, "since": NOW, "count": 1}]
    first = view(rollout=None, last=[], stable=4, deployments=served)
    assert standing(first, order(), frozenset()) == Standing(1.0, "4 serves", "done")
    starting = view(rollout=None, last=[], stable=4, deployments=[])
    assert standing(starting, order(), frozenset()).ended == ""


def test_a_way_back_is_done_when_it_is_rolled_back():
    back = OPEN | {"state": "rolled-back", "ended": NOW, "why": "complaints"}
    seen = view(rollout=None, last=[back, DONE])
    assert standing(seen, order(kind="rollback", version=None), frozenset([ID])).ended == "done"
    assert standing(seen, order(kind="promote", version=None), frozenset([ID])).ended == (
        "rolled-back"
    )


# -- what is shown ---------------------------------------------------------------------------------


def test_show(run):
    replies = {"GET /rollouts": {"models": [IRIS, QUIET]}, "GET /rollouts/iris": IRIS,
               "GET /rollouts/wine": QUIET}  # fmt: skip
    out = run(replies, "rollout", "show").output
    assert re.search(r"iris\s+3\s+canary\s+to 4, stepping\s+step 2 is held", out)
    assert re.search(r"wine\s+own files\s+rolling\s+-\s+-", out)
    out = run(replies, "rollout", "show", "iris").output
    assert "iris: 3 -> 4, canary, stepping step 2 of 3" in out
    assert re.search(r"3\s+█{22}░{8}\s+75 %\s+serving\s+4", out)
    assert re.search(r"4\s+█{8}░{22}\s+25 %\s+serving\s+1", out)
    assert re.search(r"errors\s+12\.00%\s+0\.40%\s+2\.40%\s+120 : 2280\s+bad 12 % of \[red\]", out)
    assert "better [b]at night[/b]" in out and "ann [ops]" in out
    assert "before" in out and "version 3 has all calls" in out
    assert "no verdict" not in out
    assert (
        "wine: own files serves; rolling, follows production"
        in run(replies, "rollout", "show", "wine").output
    )
    told = json.loads(run(replies, "rollout", "show", "iris", "--json").output)
    assert told["rollout"]["figures"]["errors"] == VERDICT
    assert (
        "[models.NAME.deploy]" in run({"GET /rollouts": {"models": []}}, "rollout", "show").output
    )


def test_a_shadow_and_an_order_are_shown(run):
    shadow = IRIS | {
        "route": {"revision": 9, "shadow": 4, "shadow_share": 1000,
                  "shares": [{"version": 3, "of_whole": 10_000}]},
        "orders": [ORDER | {"kind": "promote", "reason": "seen [b]enough[/b]"}],
    }  # fmt: skip
    out = run({"GET /rollouts/iris": shadow}, "rollout", "show", "iris").output
    assert "is shown 10 %" in out and "promote by ann: seen [b]enough[/b]" in out


def test_history(run):
    events = [
        {"id": 1, "at": NOW, "kind": "step", "author": "headrace", "text": "5 % of [the] calls"}
    ]
    replies = {
        "GET /rollouts/iris/history": {"rollouts": [OPEN, DONE], "next": None},
        f"GET /rollouts/iris/{ID}": {"rollout": OPEN, "events": events},
        "GET /rollouts/wine/history": {"rollouts": [], "next": None},
    }
    out = run(replies, "rollout", "history", "iris").output
    assert "own files" in out and "version 3 has all calls" in out
    assert run.asked[0].url.params["limit"] == "20"
    out = run(replies, "rollout", "history", "iris", ID).output
    assert "iris 3 -> 4, canary, stepping: better [b]at night[/b]" in out
    assert "5 % of [the] calls" in out and "bad" in out
    assert json.loads(run(replies, "rollout", "history", "iris", ID, "--json").output)["events"]
    assert [r["id"] for r in json.loads(
        run(replies, "rollout", "history", "iris", "--json").output)] == [ID, OLD]  # fmt: skip
    assert "wine has had no rollout" in run(replies, "rollout", "history", "wine").output
    for wrong in ("0", "9"):  # of both, of none
        result = run(replies, "rollout", "history", "iris", wrong)
        assert result.exit_code == 2 and "expected the id of one" in result.output + result.stderr


def test_figures_are_read_as_what_they_are():
    assert figure("errors", 0.0123) == "1.23%" and figure("latency", 52.5) == "52.5 ms"
    assert figure("predictions", 0.31) == "0.31" and figure("errors", None) == "-"
    assert version(0) == "own files" and version(None) == "-"
    [one] = verdicts(msgspec.convert(OPEN, Rollout))
    assert (one.gate, one.verdict, one.new_calls) == ("errors", "bad", 120)


# -- promote, and who did -------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path):
    """Somebody answers at the socket."""
    folder = tmp_path / ".headrace"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "control.sock"))
        listening.listen()
        yield folder


def test_a_promotion_goes_through_the_house(run, house: Path):
    replies = {"POST /registry/iris/promote": {"promotion": PROMOTION}}
    result = run(replies, "promote", "iris", "4", "--reason", "x", "--instead-of", "3")
    assert result.exit_code == 0 and result.output == "production of iris: 3 -> 4\n"
    assert body_of(run.asked[0]) == {
        "version": 4, "alias": "production", "reason": "x", "instead_of": 3,
    }  # fmt: skip
    result = run(replies, "promote", "iris", "none", "--reason", "x", "--to", "canary", "--json")
    assert json.loads(result.output)["author"] == "ann"
    assert body_of(run.asked[1])["version"] is None and body_of(run.asked[1])["alias"] == "canary"
    result = run(replies, "promote", "iris", "4", "--reason", "x", "--author", "bob")
    assert result.exit_code == 2 and "--author" in result.output + result.stderr
    assert len(run.asked) == 2


def test_without_a_house_the_registry_is_asked_and_it_says_so(run, house: Path):
    (house / "control.sock").unlink()
    with socket.socket(socket.AF_UNIX) as left:  # of a house that died
        left.bind(str(house / "control.sock"))
    result = run({}, "promote", "iris", "4", "--reason", "x")
    assert result.exit_code == 1 and "no version 4 of iris" in result.stderr
    assert "no house runs here: the registry itself is asked" in result.stderr and run.asked == []


def test_the_log_has_both(run, house: Path):
    mine = {"id": "b" * 16, "at": NOW + 5, "outcome": "done", "model": "iris", "alias": "canary",
            "to": 5, "author": "bob", "reason": "[by] hand"}  # fmt: skip
    (house / "audit").mkdir()
    (house / "audit" / "promotions.jsonl").write_text(json.dumps(mine) + "\n")
    asked = PROMOTION | {"outcome": "asked", "at": NOW - 1}
    replies = {"GET /registry/iris/promotions": {"promotions": [PROMOTION, asked]}}
    told = json.loads(run(replies, "registry", "log", "iris", "--json").output)
    assert [(one["author"], one["to"], one["outcome"]) for one in told] == [
        ("bob", 5, "done"), ("ann", 4, "done"),
    ]  # fmt: skip
    out = run({"GET /promotions": {"promotions": []}}, "registry", "log").output
    assert "[by] hand" in out and "bob" in out
