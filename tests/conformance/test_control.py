"""The control API as it is: a real socket and TCP, SQLite behind it, both clients in front."""

import asyncio
import json
import os
import pwd
import random
import socket
import stat
import threading
import time
from itertools import product
from pathlib import Path

import httpx
import msgspec
import pytest
import uvloop
from structlog.testing import capture_logs

from headrace.client import (
    AsyncControl,
    CallFailed,
    CallRefused,
    Control,
    promotion,
    rollout,
    scale,
)
from headrace.client.control import SOCKET, reachable
from headrace.control import registry as control_registry
from headrace.control import role as control_role
from headrace.control.people import user_name
from headrace.control.tokens import digest, new_token
from headrace.deployments import WHOLE, Deploy, Deployment, Rollout, Route, Share
from headrace.house import free_port
from headrace.policy import Policy
from headrace.records import new_id
from headrace.registry.choose import desk
from headrace.registry.file import FileRegistry
from headrace.registry.hooks import mlflow_secret
from headrace.registry.promote import register
from headrace.settings import (
    AutoscaleSettings,
    ControlSettings,
    ModelSettings,
    Person,
    RegistrySettings,
    Settings,
)
from headrace.signatures import ID, SIGNATURE, TIMESTAMP, new_secret, sign
from headrace.store.deploying import Change, Deploying, Event
from headrace.store.door import StoreDoor
from headrace.store.engine import Database
from headrace.store.migrate import migrate
from headrace.store.scaling import Made, Minute, Scaling
from headrace.testing.registry_exam import write

TOKENS = {role: new_token() for role in ("viewer", "operator", "admin")}
ME = pwd.getpwuid(os.getuid()).pw_name
UNKNOWN = "0" * 32
BODY = {"kind": "floor", "count": 5, "reason": "the sale"}
SECRET = new_secret()
PROMOTE = {"version": 1, "reason": "better at night"}
ORDER = {"order": "start", "version": 1, "reason": "better at night"}


class Heard:
    def __init__(self):
        self.notices = []

    def tell(self, notice):
        self.notices.append(notice)

    def texts(self):
        return [(one.state, one.text) for one in self.notices]


def settings_in(folder, **control):
    (folder / "hooks.txt").write_text(f"{SECRET}\n")
    people = {f"a-{r}": Person(token_sha256=digest(t.encode()), role=r) for r, t in TOKENS.items()}
    return Settings(
        folder=str(folder),
        models={
            "ocr": ModelSettings(target="m:M", scale=Policy(least=1, most=10)),
            "face": ModelSettings(target="m:M", scale=Policy(least=0, most=4)),
            "plain": ModelSettings(target="m:M"),
            "iris": ModelSettings(target="m:M", deploy=Deploy(strategy="rolling")),
            "wine": ModelSettings(target="m:M", deploy=Deploy()),
        },
        registry=RegistrySettings(webhook_secrets="hooks.txt"),
        autoscale=AutoscaleSettings(mode="act"),
        control=ControlSettings(
            **{"listen": f"127.0.0.1:{free_port()}", "people": people} | control
        ),
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A database with its tables, to be copied: Alembic takes its time."""
    path = tmp_path_factory.mktemp("tables") / "house.db"

    async def make():
        database = Database(f"sqlite:///{path}")
        await migrate(database)
        await database.close()

    asyncio.run(make())
    return path.read_bytes()


def with_tables(settings, tables):
    settings.state().mkdir(mode=0o700, exist_ok=True)
    (settings.state() / "house.db").write_bytes(tables)


class House:
    """`await house("GET", "/scale", who="viewer")` -> status, body; `who` None: the socket."""

    def __init__(self, settings):
        self.settings, self.heard = settings, Heard()
        self.door = StoreDoor(settings)
        self.looks = 0
        self.control = control_role.Control(
            settings, self.door, self.heard, self._look, retry_s=0.02
        )
        self.path = settings.state() / SOCKET

    async def __aenter__(self):
        await self.control.open()
        unix = httpx.AsyncHTTPTransport(uds=str(self.path), verify=False)
        self._unix = httpx.AsyncClient(transport=unix, timeout=60)
        self._tcp = httpx.AsyncClient(verify=False, trust_env=False, timeout=60)
        return self

    async def __aexit__(self, *_):
        await self._unix.aclose()
        await self._tcp.aclose()
        await self.control.drain()
        await self.door.close()

    def _look(self):
        self.looks += 1

    @property
    def url(self):
        return f"http://127.0.0.1:{self.control.port}"

    async def raw(self, method, path, *, who=None, body=None, headers=None, content=None):
        http, given = self._tcp, dict(headers or {})
        if who is None:
            http = self._unix
        elif who:
            given.setdefault("Authorization", f"Bearer {TOKENS[who]}")
        kind = {"json": body} if body is not None else {"content": content}
        base = "http://x" if who is None else self.url
        return await http.request(method, base + path, headers=given, **kind)

    async def __call__(self, method, path, body=None, *, who=None, **more):
        reply = await self.raw(method, path, who=who, body=body, **more)
        return reply.status_code, reply.json()

    async def books(self):
        return Scaling((await self.door.open()).database)

    async def deploying(self):
        return Deploying((await self.door.open()).database)

    async def register(self, model, count=1):
        """Versions 1 to `count`."""
        at = desk(self.settings)
        await at.registry.open()
        for number in range(1, count + 1):
            folder = self.settings.state() / f"{model}-{number}"
            write(folder, model, f"version {number}")
            await register(at.registry, folder, at.rules)
        await at.registry.close()


@pytest.fixture
async def house(tmp_path, tables):
    settings = settings_in(tmp_path)
    with_tables(settings, tables)
    async with House(settings) as house:
        yield house


# -- who may ---------------------------------------------------------------------------------------

READS = ["/whoami", "/alarms", "/scale", "/scale/ocr", "/scale/ocr/decisions",
         "/scale/ocr/minutes", "/scale/ocr/overrides", "/registry", "/registry/iris",
         "/promotions", "/registry/iris/promotions", "/rollouts", "/rollouts/iris",
         "/rollouts/iris/history", f"/rollouts/iris/{UNKNOWN}"]  # fmt: skip
CHANGES = {("POST", "/scale/ocr/overrides"): BODY, ("DELETE", "/scale/ocr/overrides"): None,
           ("DELETE", f"/scale/ocr/overrides/{UNKNOWN}"): None,
           ("POST", "/registry/iris/promote"): PROMOTE,
           ("POST", "/rollouts/iris/orders"): ORDER}  # fmt: skip


async def test_each_role_may_what_it_may(house):
    """Every route by every verb: by nobody, by each role, on both doors."""
    await house.register("iris")
    table = {}
    paths = {*READS, *(path for _, path in CHANGES)}
    for path in paths:
        for verb in ("GET", "POST", "DELETE", "PUT"):
            known = verb == "GET" or (verb, path) in CHANGES
            for who in ("", "viewer", "operator", "admin", None) if known else ("", None):
                status, _ = await house(verb, path, CHANGES.get((verb, path)), who=who)
                table[verb, path, who] = status
    for (verb, path, who), status in table.items():
        if who == "":
            wanted = 401
        elif verb == "GET" and path in READS:
            wanted = 404 if path.endswith(UNKNOWN) else 200
        elif (verb, path) not in CHANGES:
            wanted = 405
        elif who == "viewer":
            wanted = 403
        else:
            wanted = 404 if path.endswith(UNKNOWN) else 200
        assert status == wanted, (verb, path, who)
    assert len(paths) == 18 and len(table) == 18 * 4 * 2 + (18 + len(CHANGES)) * 3


async def test_whoami(house):
    assert await house("GET", "/whoami") == (
        200, {"name": ME, "role": "admin", "through": "socket"},
    )  # fmt: skip
    assert await house("GET", "/whoami", who="viewer") == (
        200, {"name": "a-viewer", "role": "viewer", "through": "tcp"},
    )  # fmt: skip


NOBODY = [
    (None, "no-token"),
    ("", "no-token"),
    ("Basic YTpi", "no-token"),
    (TOKENS["admin"], "no-token"),
    ("Bearer", "no-token"),
    ("Bearer x", "token-unknown"),
    (f"Bearer {TOKENS['admin'][:-1]}", "token-unknown"),
    (f"Bearer {TOKENS['admin']}x", "token-unknown"),
    (f"Bearer {digest(TOKENS['admin'].encode())}", "token-unknown"),
    (f"Bearer {'x' * 600}", "no-token"),
    (f"Bearer {TOKENS['viewer']}, Bearer {TOKENS['admin']}", "token-unknown"),
]


async def test_who_is_nobody(house):
    for authorization, code in NOBODY:
        headers = {} if authorization is None else {"Authorization": authorization}
        for path in ("/scale", "/nowhere", "/scale/ocr/overrides"):
            reply = await house.raw("GET", path, who="", headers=headers)
            assert (reply.status_code, reply.json()["code"]) == (401, code)
            assert reply.headers["www-authenticate"].startswith("Bearer")
            assert reply.headers["content-type"] == "application/problem+json"


async def test_a_scheme_is_written_as_one_likes(house):
    headers = {"Authorization": f"bEARER  {TOKENS['viewer']}"}
    assert (await house("GET", "/whoami", who="", headers=headers))[0] == 200


async def test_a_token_in_the_url_is_refused_and_in_no_log(house):
    names = ["token", "access_token", "TOKEN", "api_key"]
    with capture_logs() as logged:
        for name, who in product(names, ("viewer", "", None)):
            path = f"/scale?x=1&{name}={TOKENS['admin']}"
            status, problem = await house("GET", path, who=who)
            assert (status, problem["code"]) == (400, "token-in-url")
            assert TOKENS["admin"] not in str(problem)
        await house("GET", "/scale", who="", headers={"Authorization": "Bearer wrong-one"})
        await house("POST", "/scale/ocr/overrides", BODY, who="operator")
    assert not any(token in str(logged) for token in [*TOKENS.values(), "wrong-one"])


# -- a person's hand -------------------------------------------------------------------------------


async def test_a_hand_is_set_seen_told_and_taken_back(house):
    before = time.time()
    status, done = await house("POST", "/scale/ocr/overrides", BODY, who="operator")
    one = done["override"]
    assert status == 200 and done["warnings"] == []
    assert (one["author"], one["kind"], one["count"], one["reason"]) == (
        "a-operator", "floor", 5, "the sale",
    )  # fmt: skip
    assert 4 * 3600 - 1 < one["expires"] - before < 4 * 3600 + 5
    assert (await house("GET", "/scale/ocr"))[1]["overrides"] == [one]
    assert (await house("GET", "/scale/face"))[1]["overrides"] == []
    status, problem = await house("DELETE", f"/scale/face/overrides/{one['id']}")
    assert (status, problem["code"]) == (404, "override-not-found")  # of another model
    status, cleared = await house("DELETE", f"/scale/ocr/overrides/{one['id']}", who="admin")
    assert status == 200 and cleared["cleared"][0]["cleared_by"] == "a-admin"
    status, problem = await house("DELETE", f"/scale/ocr/overrides/{one['id']}")
    assert (status, problem["code"]) == (404, "override-not-found")
    [kept] = (await house("GET", "/scale/ocr/overrides"))[1]["overrides"]
    assert (kept["author"], kept["cleared_by"], kept["cleared_at"] >= before) == (
        "a-operator", "a-admin", True,
    )  # fmt: skip
    assert [state for state, _ in house.heard.texts()] == ["set", "cleared"]
    assert "a-operator wants at least 5 until" in house.heard.texts()[0][1]
    assert 'a-admin took back floor 5 (a-operator: "the sale")' in house.heard.texts()[1][1]


async def test_one_of_a_kind_holds_and_all_go_at_once(house):
    for count, kind in ((3, "floor"), (4, "floor"), (6, "cap")):
        await house("POST", "/scale/ocr/overrides", BODY | {"kind": kind, "count": count})
    found = (await house("GET", "/scale/ocr"))[1]["overrides"]
    assert [(one["kind"], one["count"], one["author"]) for one in found] == [
        ("floor", 4, ME), ("cap", 6, ME),
    ]  # fmt: skip
    status, done = await house("DELETE", "/scale/ocr/overrides")
    assert (status, len(done["cleared"])) == (200, 2)
    assert await house("DELETE", "/scale/ocr/overrides") == (200, {"cleared": []})
    assert len((await house("GET", "/scale/ocr/overrides"))[1]["overrides"]) == 3


async def test_a_hand_above_the_policy_holds_and_says_so(house):
    body = BODY | {"kind": "set", "count": 40, "for_s": 60}
    status, done = await house("POST", "/scale/ocr/overrides", body)
    assert status == 200 and done["override"]["count"] == 40
    assert done["warnings"] == ["above the policy's most, 10: the override holds"]


NO_OVERRIDES = [
    ({"kind": "double"}, "/kind"), ({"kind": None}, "/kind"),
    ({"count": -1}, "/count"), ({"count": 100_001}, "/count"), ({"count": 1.5}, "/count"),
    ({"count": "5"}, "/count"), ({"count": True}, "/count"), ({"count": 10**30}, "/count"),
    ({"reason": ""}, "/reason"), ({"reason": " "}, "/reason"), ({"reason": "a\nb"}, "/reason"),
    ({"reason": "\u001b[31mred"}, "/reason"), ({"reason": "x" * 501}, "/reason"),
    ({"reason": None}, "/reason"), ({"for_s": 0}, "/for_s"), ({"for_s": -1}, "/for_s"),
    ({"for_s": 31 * 86_400}, "/for_s"), ({"for_s": "2h"}, "/for_s"),
    ({"until": 1.0}, "/until"), ({"until": 9e12}, "/until"), ({"until": -1e300}, "/until"),
    ({"until": "tomorrow"}, "/until"), ({"until": 1e10, "for_s": 60}, "/until"),
    ({"author": "root"}, ""), ({"model": "face"}, ""), ({"expires": 1e10}, ""),
]  # fmt: skip


async def test_what_is_no_override(house):
    for body, pointer in NO_OVERRIDES:
        status, problem = await house("POST", "/scale/ocr/overrides", BODY | body)
        assert (status, problem["code"]) == (422, "validation-failed")
        assert problem["errors"][0]["pointer"] == pointer
        assert (await house("GET", "/scale/ocr/overrides"))[1]["overrides"] == []


UNREADABLE = [
    (b"", {}, "empty-body"), (b"{", {}, "malformed-json"), (b"\xff", {}, "malformed-json"),
    (b'{"count": 1, "count": 2}', {}, "malformed-json"), (b"[" * 40_000, {}, "validation-failed"),
    (b"x" * 70_000, {}, "payload-too-large"),
    (b"{}", {"Content-Type": "text/plain"}, "unsupported-media-type"),
    (b"{}", {"Content-Encoding": "br"}, "unsupported-media-type"),
]  # fmt: skip


async def test_what_cannot_be_read(house):
    for content, headers, code in UNREADABLE:
        given = {"Content-Type": "application/json"} | headers
        status, problem = await house(
            "POST", "/scale/ocr/overrides", content=content, headers=given
        )
        assert 400 <= status < 500 and problem["code"] == code


async def test_what_is_not_scaled(house):
    for path in ["/scale/none", "/scale/plain", "/scale/none/overrides"]:
        status, problem = await house("GET", path)
        assert (status, problem["code"]) == (404, "model-not-scaled")
        assert "scaled are ocr, face" in problem["detail"]


OTHER_PATHS = ["/", "/scale/", "/scale/OCR", "/scale/ocr/", "/scale/ocr/overrides/x",
 "/scale/ocr%2foverrides", "/whoami/", "/models", "/metrics", "/scale/" + "a" * 64]  # fmt: skip


async def test_other_paths(house):
    for path in OTHER_PATHS:
        assert (await house("GET", path))[1]["code"] == "not-found"


# -- what is read ----------------------------------------------------------------------------------


def made(minute, **more):
    fields = {"model": "ocr", "minute": minute, "at": minute * 60.0, "mode": "act", "count": 3,
              "asked": 2, "reason": f"because {minute}", "applied": "yes"}  # fmt: skip
    return Made(**fields | more)


async def test_decisions_come_in_pages_and_from_a_time_on(house):
    books = await house.books()
    for minute in range(100, 110):
        await books.put_decision(made(minute, inputs={"rate": 1.5}, clamps=["x"], foretold=60.0))
    seen, query = [], "limit=4"
    while query:
        _, page = await house("GET", f"/scale/ocr/decisions?{query}", who="viewer")
        seen += [one["minute"] for one in page["decisions"]]
        query = page["next"] and f"limit=4&cursor={page['next']}"
    assert seen == list(range(109, 99, -1))
    _, page = await house("GET", f"/scale/ocr/decisions?limit=1&at={104 * 60 + 59.5}")
    assert page["decisions"][0]["minute"] == 104
    assert page["decisions"][0]["inputs"] == {"rate": 1.5}
    _, page = await house("GET", "/scale/ocr/decisions?limit=1")
    status, problem = await house("GET", f"/scale/face/decisions?cursor={page['next']}")
    assert (status, problem["code"]) == (400, "invalid-cursor")


UNASKABLE = ["decisions?limit=0", "decisions?limit=1&limit=2", "decisions?x=1", "decisions?at=now",
 "decisions?at=nan", "decisions?at=-1", "minutes?since=0", "minutes?since=9e99", "?x=1",
 "minutes?since=inf", "minutes?since=5&until=4", "minutes?until=x", "overrides?at=1"]  # fmt: skip


async def test_what_cannot_be_asked(house):
    for query in UNASKABLE:
        path = "/scale/ocr" + ("" if query.startswith("?") else "/") + query
        status, problem = await house("GET", path)
        assert (status, problem["code"]) == (422, "validation-failed")


async def test_how_it_stands(house):
    books, minute = await house.books(), int(time.time() // 60)
    await books.put_minutes([
        Minute(model="ocr", minute=minute - 1, calls=120.0, ready=2.0),
        Minute(model="ocr", minute=minute, calls=None),
        Minute(model="ocr", minute=minute - 3000, calls=9.0),
    ])  # fmt: skip
    await books.put_decision(made(minute, applied="no: advise"))
    await books.begin_alarm("ocr", "reply-side", 5.0, "answers wait")
    await books.begin_alarm("face", "outage", 6.0, "")
    await books.end_alarm("face", "outage", 7.0)
    status, one = await house("GET", "/scale/ocr", who="viewer")
    assert (status, one["count"], one["ready"], one["least"], one["most"], one["mode"]) == (
        200, 2, 2.0, 1, 10, "act",
    )  # fmt: skip
    assert one["decision"]["reason"] == f"because {minute}"
    assert [alarm["name"] for alarm in one["alarms"]] == ["reply-side"]
    status, every = await house("GET", "/scale")
    assert [model["model"] for model in every["models"]] == ["ocr", "face"]
    assert every["models"][1]["count"] is None and every["models"][1]["decision"] is None
    _, page = await house("GET", "/scale/ocr/minutes")
    assert page["minutes"]["minute"] == [minute - 1, minute]
    assert page["minutes"]["calls"] == [120.0, None]
    since = (minute - 3000) * 60
    _, page = await house("GET", f"/scale/ocr/minutes?since={since}&until={since + 60}")
    assert page["minutes"]["calls"] == [9.0]
    assert [a["model"] for a in (await house("GET", "/alarms"))[1]["alarms"]] == ["face", "ocr"]
    _, found = await house("GET", "/alarms?open=1&model=ocr")
    assert [alarm["detail"] for alarm in found["alarms"]] == ["answers wait"]
    assert (await house("GET", "/alarms?open=yes"))[0] == 422


async def test_without_tables_it_is_not_now(tmp_path, monkeypatch):
    monkeypatch.setattr("headrace.store.door.MIGRATED_WITHIN_S", 0.05)
    settings = settings_in(tmp_path)
    async with House(settings) as house:
        status, problem = await house("GET", "/scale")
        assert (status, problem["code"]) == (503, "storage-unavailable")
        assert (await house("GET", "/whoami"))[0] == 200
        database = Database(settings.database_url())
        await migrate(database)
        await database.close()
        assert (await house("GET", "/scale"))[0] == 200


# -- promotions ------------------------------------------------------------------------------------


async def test_a_promotion_moves_the_alias_and_says_who(house):
    await house.register("iris", 2)
    status, done = await house("POST", "/registry/iris/promote", PROMOTE, who="operator")
    one = done["promotion"]
    assert (status, one["author"], one["to"], one["alias"], one["outcome"]) == (
        200, "a-operator", 1, "production", "done",
    )  # fmt: skip
    assert one["digest"].startswith("sha256:") and "before" not in one
    assert house.looks == 1
    body = PROMOTE | {"version": 2, "instead_of": 1, "reason": "again"}
    assert (await house("POST", "/registry/iris/promote", body))[0] == 200
    status, problem = await house("POST", "/registry/iris/promote", body)
    assert (status, problem["code"]) == (409, "conflict")  # production is 2 by now
    assert (await house("GET", "/registry"))[1] == {"models": {"iris": {"production": 2}}}
    _, iris = await house("GET", "/registry/iris", who="viewer")
    assert [(v["number"], v["aliases"]) for v in iris["versions"]] == [(2, ["production"]), (1, [])]
    assert iris["versions"][0]["metrics"] == {"accuracy": 0.97}
    status, done = await house("POST", "/registry/iris/promote", PROMOTE | {"version": None})
    assert done["promotion"]["to"] is None and (await house("GET", "/registry"))[1] == {
        "models": {"iris": {}}
    }
    _, told = await house("GET", "/registry/iris/promotions?limit=3", who="viewer")
    assert [(p["outcome"], p["author"], p["to"]) for p in told["promotions"]] == [
        ("done", ME, None), ("asked", ME, None), ("done", ME, 2),
    ]  # fmt: skip
    assert told["promotions"] == (await house("GET", "/promotions?limit=3"))[1]["promotions"]
    assert house.heard.texts()[0] == (
        "moved", "a-operator moved production from none to 1: better at night",
    )  # fmt: skip
    assert not (house.settings.state() / "audit").exists()


NO_PROMOTIONS = [
    ({"version": "1"}, 422, "validation-failed"), ({"version": 0}, 422, "validation-failed"),
    ({"version": 9}, 404, "model-not-found"), ({"reason": " "}, 422, "validation-failed"),
    ({"reason": "a\nb"}, 422, "validation-failed"), ({"alias": "v3"}, 422, "validation-failed"),
    ({"author": "root"}, 422, "validation-failed"), ({"instead_of": 4}, 409, "conflict"),
]  # fmt: skip


async def test_what_is_no_promotion(house):
    await house.register("iris")
    for change, status, code in NO_PROMOTIONS:
        got, problem = await house("POST", "/registry/iris/promote", PROMOTE | change)
        assert (got, problem["code"]) == (status, code), change
    assert (await house("POST", "/registry/none/promote", PROMOTE))[0] == 404
    assert (await house("GET", "/registry/none"))[1]["code"] == "model-not-found"
    status, problem = await house("POST", "/registry/iris/promote", {"reason": "x"})
    assert status == 422 and "version" in problem["detail"]
    assert (await house("GET", "/registry"))[1] == {"models": {"iris": {}}} and house.looks == 0


async def test_a_registry_that_hangs_holds_nobody_up(house, monkeypatch):
    """And asked by many it is asked by few at once."""
    await house.register("iris")
    assert (await house("GET", "/registry"))[0] == 200
    answer, threads = threading.Event(), []

    def hang(self, *given):
        threads.append(given)
        answer.wait(60)
        return was(self, *given)

    was = FileRegistry._state
    monkeypatch.setattr(FileRegistry, "_state", hang)
    monkeypatch.setattr(control_registry, "ANSWER_S", 0.2)
    asked = [house("GET", "/registry") for _ in range(10)]
    asked.append(house("POST", "/registry/iris/promote", PROMOTE))
    every = asyncio.gather(*asked)
    assert (await house("GET", "/whoami"))[0] == 200
    for status, problem in await every:
        assert (status, problem["code"]) == (503, "registry-unavailable")
    assert 0 < len(threads) <= control_registry.AT_ONCE
    monkeypatch.setattr(control_registry, "ANSWER_S", 60)
    answer.set()
    assert (await house("GET", "/registry"))[0] == 200


async def test_a_registry_that_is_away(tmp_path, tables):
    settings = settings_in(tmp_path)
    registry = RegistrySettings(url=f"mlflow://127.0.0.1:{free_port()}", timeout_s=1)
    settings = msgspec.structs.replace(settings, registry=registry)
    with_tables(settings, tables)
    async with House(settings) as house:
        for verb, path, body in (
            ("GET", "/registry", None), ("POST", "/registry/iris/promote", PROMOTE),
            ("POST", "/rollouts/iris/orders", ORDER),
        ):  # fmt: skip
            status, problem = await house(verb, path, body)
            assert (status, problem["code"]) == (503, "registry-unavailable")
        assert (await house("GET", "/rollouts/iris"))[1]["orders"] == []
        assert (await house("POST", "/hooks/registry", {}))[0] == 404  # no secrets


# -- rollouts --------------------------------------------------------------------------------------


def opened(**more):
    fields = {"id": new_id(), "model": "iris", "from_version": 1, "to_version": 2, "author": "ann",
              "strategy": "canary", "reason": "better", "started": 5.0, "updated": 6.0,
              "since": 6.0, "why": "0.4 % of calls fail"}  # fmt: skip
    return Rollout(**fields | more)


async def test_how_rollouts_stand(house):
    books, one = await house.deploying(), opened(state="stepping", figures={"errors": {"new": 0.1}})
    shares = (Share(1, WHOLE * 3 // 4), Share(2, WHOLE // 4))
    run = [
        Deployment(model="iris", version=0, state="retired", since=1.0),
        Deployment(model="iris", version=1, state="serving", share=7500, since=2.0, count=4),
        Deployment(model="iris", version=2, state="serving", share=2500, since=3.0, count=1),
    ]
    events = [
        Event(
            rollout=one.id, model="iris", at=t, kind="stepping", author="headrace", text=f"step {t}"
        )
        for t in (5.0, 6.0)
    ]
    route = Route("iris", 7, shares, watched=True)
    assert await books.commit(
        Change(model="iris", rollout=one, route=route, deployments=run, events=events)
    )
    _, iris = await house("GET", "/rollouts/iris", who="viewer")
    assert iris["route"] == {
        "revision": 7, "shadow": 0, "shadow_share": 0,
        "shares": [{"version": 1, "of_whole": 7500}, {"version": 2, "of_whole": 2500}],
    }  # fmt: skip
    assert (iris["stable"], iris["strategy"], iris["alias"]) == (1, "rolling", "production")
    assert [each["version"] for each in iris["deployments"]] == [1, 2]
    assert (
        iris["rollout"]["why"] == "0.4 % of calls fail" and iris["rollout"]["state"] == "stepping"
    )
    assert iris["rollout"]["figures"] == {"errors": {"new": 0.1}}
    _, told = await house("GET", f"/rollouts/iris/{one.id}")
    assert [event["text"] for event in told["events"]] == ["step 5.0", "step 6.0"]
    assert (await house("GET", f"/rollouts/wine/{one.id}"))[1]["code"] == "rollout-not-found"
    _, every = await house("GET", "/rollouts")
    assert [(m["model"], m["stable"]) for m in every["models"]] == [("iris", 1), ("wine", None)]
    _, page = await house("GET", "/rollouts/iris/history?limit=1")
    assert [each["id"] for each in page["rollouts"]] == [one.id] and page["next"] is None
    async with AsyncControl(house.path) as control:
        [read, wine] = await control.ask(rollout.deployed())
        assert read == await control.ask(rollout.deployed_one("iris")) and wine.route is None
        assert read.rollout and read.rollout.id == one.id and read.route.shares[1].of_whole == 2500
        assert [each.count for each in read.deployments] == [4, 1]
        assert (await control.ask(rollout.rollouts("iris"))).rollouts == [read.rollout]
        assert (await control.ask(rollout.rollout("iris", one.id))).events[1].text == "step 6.0"
    for path in ("/rollouts/ocr", "/rollouts/none/history"):
        status, problem = await house("GET", path)
        assert (status, problem["code"]) == (404, "model-not-deployed")
        assert "deployed are iris, wine" in problem["detail"]


async def test_a_start_is_ordered_and_moves_the_alias(house):
    await house.register("iris", 2)
    body = ORDER | {"strategy": "blue-green"}
    status, done = await house("POST", "/rollouts/iris/orders", body, who="operator")
    assert (status, done["order"]["kind"], done["order"]["strategy"]) == (
        200,
        "start",
        "blue-green",
    )
    assert done["promotion"]["to"] == 1 and done["promotion"]["author"] == "a-operator"
    body = ORDER | {"version": 2, "strategy": "shadow"}
    assert (await house("POST", "/rollouts/iris/orders", body))[1]["promotion"] is None
    assert (await house("GET", "/registry"))[1]["models"]["iris"] == {"production": 1}
    status, problem = await house("POST", "/rollouts/iris/orders", ORDER | {"version": 9})
    assert (status, problem["code"]) == (404, "model-not-found")
    books = await house.deploying()
    assert [(o.version, o.strategy) for o in await books.orders_open("iris")] == [
        (1, "blue-green"), (2, "shadow"),
    ]  # fmt: skip
    assert house.looks == 3  # of the alias, and of each order
    async with AsyncControl(house.url, token=TOKENS["operator"]) as control:
        done = await control.ask(promotion.promote("iris", 2, "again", instead_of=1))
        [last, _, _] = await control.ask(promotion.promotions("iris", 3))
        assert last == done and (done.before, done.to, done.author) == (1, 2, "a-operator")
        assert (await control.ask(promotion.registered()))["iris"] == {"production": 2}
        assert (await control.ask(promotion.registered_one("iris"))).versions[0].number == 2
        ordered = await control.ask(rollout.order("iris", "start", "x", version=1))
        assert ordered.promotion.to == 1 and ordered.order.kind == "start"
    assert ("asked", "a-operator asked to start the rollout of 1: better at night") in (
        house.heard.texts()
    )


async def test_what_is_asked_of_an_open_rollout(house):
    books, first = await house.deploying(), opened(id=new_id())
    await books.commit(Change(model="iris", rollout=first))
    for kind, status in (("resume", 409), ("pause", 200), ("promote", 200), ("rollback", 200)):
        body = {"order": kind, "reason": "a closer look"}
        assert (await house("POST", "/rollouts/iris/orders", body))[0] == status, kind
    status, problem = await house("POST", "/rollouts/wine/orders", body)
    assert (status, problem["code"]) == (409, "rollout-state")
    for change in ({"version": 2}, {"strategy": "canary"}, {"order": "stop"}, {"reason": ""}):
        status, problem = await house("POST", "/rollouts/iris/orders", body | change)
        assert (status, problem["code"]) == (422, "validation-failed"), change
    assert (await house("POST", "/rollouts/iris/orders", {"order": "start", "reason": "x"}))[
        0
    ] == 422


async def test_the_way_back_from_one_that_is_done(house):
    await house.register("iris", 2)
    books = await house.deploying()
    await books.commit(Change(model="iris", rollout=opened(state="done", ended=9.0)))
    await books.commit(Change(model="iris", rollout=opened(id=new_id(), state="stopped", ended=9.5,
                                                           to_version=3)))  # fmt: skip
    await house("POST", "/registry/iris/promote", PROMOTE | {"version": 2})
    body = {"order": "rollback", "reason": "complaints"}
    status, done = await house("POST", "/rollouts/iris/orders", body)
    assert (status, done["order"]["kind"], done["order"]["version"]) == (200, "start", 1)
    assert done["order"]["strategy"] == "blue-green"
    assert (done["promotion"]["before"], done["promotion"]["to"]) == (2, 1)


async def test_a_shadow_that_is_promoted_takes_the_alias(house):
    await house.register("iris", 2)
    books = await house.deploying()
    await books.commit(Change(model="iris", rollout=opened(strategy="shadow")))
    body = {"order": "promote", "reason": "it says the same"}
    _, done = await house("POST", "/rollouts/iris/orders", body)
    assert done["promotion"]["to"] == 2


# -- webhooks of the registry (F19) ----------------------------------------------------------------


def hook(id, at=None, secret=SECRET, model="iris"):
    said = json.dumps({"type": "alias", "data": {"name": model}}).encode()
    return sign([secret], id, int(time.time() if at is None else at), said), said


async def test_webhooks_of_the_registry_shuffled_replayed_forged_stale(house):
    """Each one is a hint once, whatever comes in whatever order, on both doors and by nobody's
    token; and nothing but a hint: the registry alone says what is so."""
    given = [hook(f"evt-{n}") for n in range(3)]
    sent = [(headers, said, 200) for headers, said in given for _ in range(100)]
    sent += [(*hook(f"evt-{n}", secret=new_secret()), 401) for n in range(20)]
    sent += [(headers, said + b" ", 401) for headers, said in given]
    sent += [(*hook(f"old-{n}", at=time.time() - 600), 400) for n in range(20)]
    sent += [({}, b"{}", 401)] * 10
    random.Random(5).shuffle(sent)
    for n, (headers, said, status) in enumerate(sent):
        reply = await house.raw(
            "POST", "/hooks/registry", who="" if n % 2 else None, headers=headers, content=said
        )
        assert reply.status_code == status
        if status != 200:
            code = {400: "stale", 401: "signature-wrong"}[status]
            assert reply.json()["code"] == code
            assert reply.headers["content-type"] == "application/problem+json"
    assert house.looks == len(given)
    said = given[0][1]
    signed = sign([mlflow_secret(SECRET)], "of-mlflow", int(time.time()), said)
    names = ("X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature")
    headers = dict(zip(names, (signed[name] for name in (ID, TIMESTAMP, SIGNATURE)), strict=True))
    status, told = await house("POST", "/hooks/registry", who="", headers=headers, content=said)
    assert (status, told, house.looks) == (200, {"new": True}, len(given) + 1)
    assert (await house("GET", "/hooks/registry"))[0] == 405
    status, problem = await house("POST", "/hooks/registry", content=b"x" * 70_000)
    assert (status, problem["code"]) == (413, "payload-too-large")


async def test_without_a_secret_no_webhook_is_taken(tmp_path):
    settings = msgspec.structs.replace(settings_in(tmp_path), registry=RegistrySettings())
    headers, said = hook("evt-1")
    async with House(settings) as house:
        assert (await house("POST", "/hooks/registry", headers=headers, content=said))[0] == 404
        assert house.looks == 0
    settings = settings_in(tmp_path)
    (tmp_path / "hooks.txt").write_text("short\n")
    with capture_logs() as logged:
        async with House(settings) as house:
            assert (await house("GET", "/whoami"))[0] == 200
            assert (await house("POST", "/hooks/registry", headers=headers, content=said))[0] == 404
    assert any("are not taken" in one["event"] for one in logged)


# -- the doors -------------------------------------------------------------------------------------


async def test_nobody_else_can_open_the_socket(house):
    found = house.path.stat()
    assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE(house.path.parent.stat().st_mode) == 0o700
    assert sorted(p.name for p in house.path.parent.iterdir() if "control" in p.name) == [
        "control.lock", "control.sock",
    ]  # fmt: skip


async def test_a_long_path_is_reached(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    settings = settings_in(folder, listen="")
    async with House(settings) as house:
        assert house.control.port == 0
        async with AsyncControl(house.path) as control:
            assert (await control.ask(scale.whoami())).name == ME
        open_files = len(list(Path("/proc/self/fd").iterdir()))
        with reachable(house.path) as name, Control(house.path):
            assert len(name) < 108
        assert len(list(Path("/proc/self/fd").iterdir())) == open_files


async def test_what_a_dead_one_left_is_replaced(tmp_path):
    settings = settings_in(tmp_path)
    settings.state().mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(settings.state() / SOCKET))
    async with House(settings) as house:
        assert house.control.serving
        assert (await house("GET", "/whoami"))[0] == 200
    assert not house.path.exists()


async def test_a_living_one_is_left_alone_and_followed(tmp_path):
    settings = settings_in(tmp_path)
    first, second = House(settings), House(settings)
    async with first:
        async with second:
            assert first.control.serving and not second.control.serving
            assert (await first("GET", "/whoami", who="viewer"))[0] == 200
            await first.control.drain()
            end = time.monotonic() + 10
            while not second.control.serving:
                assert time.monotonic() < end
                await asyncio.sleep(0.01)
            assert (await second("GET", "/whoami"))[0] == 200
            assert (await second("GET", "/whoami", who="viewer"))[0] == 200
        assert not second.path.exists()


async def test_a_port_that_is_taken_says_so_and_lets_go_of_the_socket(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = settings_in(tmp_path, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        house = House(settings)
        with pytest.raises(OSError, match="address"):
            await house.control.open()
        assert not house.path.exists()
    async with House(settings_in(tmp_path)) as other:
        assert other.control.serving


async def test_without_people_nobody_comes_in_by_tcp(tmp_path):
    with capture_logs() as logged:
        async with House(settings_in(tmp_path, people={})) as house:
            assert (await house("GET", "/whoami", who="admin"))[0] == 401
            assert (await house("GET", "/whoami"))[0] == 200
    assert any("nobody is let in" in one["event"] for one in logged)


def test_the_kernel_says_who_it_is_also_to_uvloop(tmp_path):
    async def ask():
        async with House(settings_in(tmp_path)) as house:
            return await house("GET", "/whoami"), await house("GET", "/whoami", who="")

    on_socket, on_tcp = uvloop.run(ask())
    assert on_socket == (200, {"name": ME, "role": "admin", "through": "socket"})
    assert on_tcp[0] == 401


def test_a_user_without_a_name_has_a_number():
    assert user_name(os.getuid()) == ME and user_name(3_999_999_999) == "user 3999999999"


# -- the clients -----------------------------------------------------------------------------------


def exercise(control):
    """What the sync client does, on either door."""
    done = control.ask(scale.override("ocr", "cap", 4, "GPUs are lent", for_s=60))
    assert done.override.kind == "cap" and done.warnings == []
    [one] = control.ask(scale.scaled_one("ocr")).overrides
    assert one.id == done.override.id
    assert [one.model for one in control.ask(scale.scaled())] == ["ocr", "face"]
    assert control.ask(scale.decisions("ocr", 5)).decisions == []
    assert control.ask(scale.minutes("ocr", time.time() - 60))["calls"] == []
    assert control.ask(scale.alarms()) == []
    assert [one.count for one in control.ask(scale.clear("ocr", done.override.id))] == [4]
    [one] = control.ask(scale.overrides("ocr", 1))
    assert one.cleared_by == control.ask(scale.whoami()).name
    with pytest.raises(CallRefused, match="scaled are ocr, face"):
        control.ask(scale.scaled_one("none"))


async def test_both_clients_on_both_doors(house):
    await house("GET", "/scale")  # the store is open
    for where, token in ((house.path, ""), (house.url, TOKENS["operator"])):

        def sync(where=where, token=token):
            with Control(where, token=token) as control:
                exercise(control)

        await asyncio.to_thread(sync)
        async with AsyncControl(where, token=token) as control:
            until = time.time() + 60
            done = await control.ask(scale.override("face", "set", 2, "why not", until=until))
            assert (await control.ask(scale.scaled_one("face"))).overrides == [done.override]
            assert (await control.ask(scale.overrides("face")))[0] == done.override
            assert len(await control.ask(scale.clear("face"))) == 1
            assert await control.ask(scale.alarms(open_only=False)) == []


async def test_nobody_is_there(tmp_path):
    path = tmp_path / SOCKET
    with Control(path) as control, pytest.raises(CallFailed, match=str(path)):
        control.ask(scale.whoami())
    async with AsyncControl(path) as control:
        with pytest.raises(CallFailed, match=str(path)):
            await control.ask(scale.scaled())
