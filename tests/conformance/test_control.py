"""The control API as it is: a real socket and TCP, SQLite behind it, both clients in front."""

import asyncio
import os
import pwd
import socket
import stat
import time
from itertools import product
from pathlib import Path

import httpx
import pytest
import uvloop
from structlog.testing import capture_logs

from headrace.client import AsyncControl, CallFailed, CallRefused, Control
from headrace.client.control import SOCKET, reachable
from headrace.control import role as control_role
from headrace.control.people import user_name
from headrace.control.tokens import digest, new_token
from headrace.house import free_port
from headrace.policy import Policy
from headrace.settings import (
    AutoscaleSettings,
    ControlSettings,
    ModelSettings,
    Person,
    Settings,
)
from headrace.store.door import StoreDoor
from headrace.store.engine import Database
from headrace.store.migrate import migrate
from headrace.store.scaling import Made, Minute, Scaling

TOKENS = {role: new_token() for role in ("viewer", "operator", "admin")}
ME = pwd.getpwuid(os.getuid()).pw_name
UNKNOWN = "0" * 32
BODY = {"kind": "floor", "count": 5, "reason": "the sale"}


class Heard:
    def __init__(self):
        self.notices = []

    def tell(self, notice):
        self.notices.append(notice)

    def texts(self):
        return [(one.state, one.text) for one in self.notices]


def settings_in(folder, **control):
    people = {f"a-{r}": Person(token_sha256=digest(t.encode()), role=r) for r, t in TOKENS.items()}
    return Settings(
        folder=str(folder),
        models={
            "ocr": ModelSettings(target="m:M", scale=Policy(least=1, most=10)),
            "face": ModelSettings(target="m:M", scale=Policy(least=0, most=4)),
            "plain": ModelSettings(target="m:M"),
        },
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
        self.control = control_role.Control(settings, self.door, self.heard, retry_s=0.02)
        self.path = settings.state() / SOCKET

    async def __aenter__(self):
        await self.control.open()
        unix = httpx.AsyncHTTPTransport(uds=str(self.path), verify=False)
        self._unix = httpx.AsyncClient(transport=unix)
        self._tcp = httpx.AsyncClient(verify=False, trust_env=False)
        return self

    async def __aexit__(self, *_):
        await self._unix.aclose()
        await self._tcp.aclose()
        await self.control.drain()
        await self.door.close()

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


@pytest.fixture
async def house(tmp_path, tables):
    settings = settings_in(tmp_path)
    with_tables(settings, tables)
    async with House(settings) as house:
        yield house


# -- who may ---------------------------------------------------------------------------------------

READS = ["/whoami", "/alarms", "/scale", "/scale/ocr", "/scale/ocr/decisions",
         "/scale/ocr/minutes", "/scale/ocr/overrides"]  # fmt: skip
CHANGES = [("POST", "/scale/ocr/overrides", BODY), ("DELETE", "/scale/ocr/overrides", None),
           ("DELETE", f"/scale/ocr/overrides/{UNKNOWN}", None)]  # fmt: skip


async def test_each_role_may_what_it_may(house):
    """Every route by every verb: by nobody, by each role, on both doors."""
    table = {}
    for path in [*READS, f"/scale/ocr/overrides/{UNKNOWN}"]:
        for verb in ("GET", "POST", "DELETE", "PUT", "PATCH"):
            for who in ("", "viewer", "operator", "admin", None):
                status, _ = await house(verb, path, BODY if verb == "POST" else None, who=who)
                table[verb, path, who] = status
    changes = {(verb, path) for verb, path, _ in CHANGES}
    for (verb, path, who), status in table.items():
        if who == "":
            wanted = 401
        elif verb == "GET" and path in READS:
            wanted = 200
        elif (verb, path) not in changes:
            wanted = 405
        elif who == "viewer":
            wanted = 403
        else:
            wanted = 404 if path.endswith(UNKNOWN) else 200
        assert status == wanted, (verb, path, who)
    assert len(table) == 8 * 5 * 5


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
            assert (await control.whoami()).name == ME
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
    done = control.override("ocr", "cap", 4, "GPUs are lent", for_s=60)
    assert done.override.kind == "cap" and done.warnings == []
    assert [one.id for one in control.scaled_one("ocr").overrides] == [done.override.id]
    assert [one.model for one in control.scaled()] == ["ocr", "face"]
    assert control.decisions("ocr", 5).decisions == []
    assert control.minutes("ocr", time.time() - 60)["calls"] == []
    assert control.alarms() == []
    assert [one.count for one in control.clear("ocr", done.override.id)] == [4]
    assert control.overrides("ocr")[0].cleared_by == control.whoami().name
    with pytest.raises(CallRefused, match="scaled are ocr, face"):
        control.scaled_one("none")


async def test_both_clients_on_both_doors(house):
    await house("GET", "/scale")  # the store is open
    for where, token in ((house.path, ""), (house.url, TOKENS["operator"])):

        def sync(where=where, token=token):
            with Control(where, token=token) as control:
                exercise(control)

        await asyncio.to_thread(sync)
        async with AsyncControl(where, token=token) as control:
            done = await control.override("face", "set", 2, "why not", until=time.time() + 60)
            assert (await control.scaled_one("face")).overrides == [done.override]
            assert (await control.scaled())[1].overrides == [done.override]
            assert (await control.overrides("face"))[0] == done.override
            assert len(await control.clear("face")) == 1
            assert (await control.decisions("face")).next is None
            assert (await control.minutes("face", time.time() - 60))["minute"] == []
            assert await control.alarms(open_only=False) == []


async def test_nobody_is_there(tmp_path):
    path = tmp_path / SOCKET
    with Control(path) as control, pytest.raises(CallFailed, match=str(path)):
        control.whoami()
    async with AsyncControl(path) as control:
        with pytest.raises(CallFailed, match=str(path)):
            await control.scaled()
