"""Webhooks over HTTP: what is taken, what is refused, what is shown and what never is."""

import asyncio
import json
from types import SimpleNamespace

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from headrace.errors import Conflict, MethodNotAllowed, Refusal
from headrace.gateway import openapi_webhooks
from headrace.gateway.openapi import openapi
from headrace.gateway.openapi_house import MEANINGS, _refusal
from headrace.gateway.webhooks import WebhooksApi
from headrace.httpapi.answer import answer_refusal
from headrace.httpserver import Request
from headrace.settings import WebhooksSettings
from headrace.store.engine import Database, now
from headrace.store.tables import deliveries, metadata
from headrace.store.webhooks import MOST

HOOK = {"url": "http://127.0.0.1:9/hook"}
UNKNOWN = "/webhooks/" + "0" * 32


class Api:
    """await api("POST", "/webhooks", {...}) -> status, body"""

    def __init__(self, database, **settings):
        store = SimpleNamespace(database=database)

        async def opened():
            return store

        self._tasks, self.heads = [], []
        settings = WebhooksSettings(**{"allow_private": True} | settings)
        self._api = WebhooksApi(SimpleNamespace(run=self._run, store=opened), settings)

    def _run(self, request, verbs):
        """As Errands do."""
        if request.method not in verbs:
            raise MethodNotAllowed(", ".join(sorted(verb.decode() for verb in verbs)))
        work = verbs[request.method](request, request.headers.get(b"tenant", b"acme").decode())
        self._tasks.append(asyncio.ensure_future(work))

    async def __call__(self, method, path, body=None, *, tenant="acme", raw=None, headers=None):
        answers = []
        outside = SimpleNamespace(
            answer=lambda request, status, body, head: answers.append((status, body, head))
        )
        request = Request(outside, 0.0)
        path, _, query = path.partition("?")
        request.method, request.path = method.encode(), path.encode()
        request.query, request.id = query.encode(), "r1"
        request.headers = {b"tenant": tenant.encode(), b"content-type": b"application/json"}
        request.headers |= headers or {}
        request.body = (
            raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        )
        try:
            self._api.handle(request)
            await asyncio.gather(*self._tasks)
        except Refusal as refusal:
            answer_refusal(request, refusal)
        self._tasks.clear()
        [(status, answer, head)] = answers
        self.heads.append(head)
        return status, json.loads(answer)


@pytest.fixture
async def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/house.db")
    await database.write(metadata.create_all)
    yield database
    await database.close()


@pytest.fixture
def api(database):
    return Api(database)


async def added(api, **more):
    status, hook = await api("POST", "/webhooks", HOOK | more)
    assert status == 200, hook
    return hook


async def test_the_secret_is_shown_once(api):
    hook = await added(api, events=["job.dead", "job.dead"], note="ops")
    assert hook["secret"].startswith("whsec_") and b"no-store" in api.heads[-1]
    assert (hook["events"], hook["note"], hook["enabled"]) == (["job.dead"], "ops", True)
    del hook["secret"]
    assert await api("GET", "/webhooks") == (200, {"webhooks": [hook]})
    assert await api("GET", f"/webhooks/{hook['id']}") == (200, hook)


async def test_a_rotation_shows_the_new_one(api):
    hook = await added(api)
    status, rotated = await api("POST", f"/webhooks/{hook['id']}/rotate")
    assert status == 200 and rotated["secret"] != hook["secret"]
    assert 86_000 < rotated["old_secret_until"] - hook["created"] < 87_000
    status, again = await api("POST", f"/webhooks/{hook['id']}/rotate", {"overlap_s": 0})
    assert again["old_secret_until"] <= again["created"] + 60
    for overlap_s in (-1, 1e9, "1"):
        body = {"overlap_s": overlap_s}
        status, problem = await api("POST", f"/webhooks/{hook['id']}/rotate", body)
        assert (status, problem["errors"][0]["pointer"]) == (422, "/overlap_s")


async def test_what_is_removed_is_gone(api):
    hook = await added(api)
    path = f"/webhooks/{hook['id']}"
    assert await api("DELETE", path) == (200, {"id": hook["id"], "removed": True})
    assert (await api("DELETE", path))[0] == 404
    assert await api("GET", "/webhooks") == (200, {"webhooks": []})


async def test_a_test_event_is_a_delivery(api, database):
    hook = await added(api, events=["job.dead"])
    status, event = await api("POST", f"/webhooks/{hook['id']}/test")
    assert status == 202
    status, page = await api("GET", event["links"]["deliveries"])
    [delivery] = page["deliveries"]
    assert (delivery["id"], delivery["event"], delivery["state"], page["next"]) == (
        event["id"], "webhook.test", "waiting", None,
    )  # fmt: skip


async def test_deliveries_come_in_pages(api):
    hook = await added(api)
    path = f"/webhooks/{hook['id']}"
    sent = [(await api("POST", f"{path}/test"))[1]["id"] for _ in range(5)]
    seen, query = [], "limit=2"
    while query:
        _, page = await api("GET", f"{path}/deliveries?{query}")
        seen += [delivery["id"] for delivery in page["deliveries"]]
        query = page["next"] and f"limit=2&cursor={page['next']}"
    assert sorted(seen) == sorted(sent) and seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=9e999", "limit=x", "limit=1&limit=2", "x=1", "limit="]
)
async def test_what_is_no_page(query):
    status, problem = await Api(None)("GET", f"{UNKNOWN}/deliveries?{query}")
    assert (status, problem["code"]) == (422, "validation-failed")


async def test_a_forged_cursor():
    for cursor in ("x", "AAAAAAAAAAAA", "%00"):
        path = f"{UNKNOWN}/deliveries?cursor={cursor}"
        assert (await Api(None)("GET", path))[1]["code"] == "invalid-cursor"


@pytest.mark.parametrize(
    ("method", "suffix"),
    [("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/test"), ("GET", "/deliveries")],
)
async def test_another_tenants_is_as_if_it_never_was(api, method, suffix):
    hook = await added(api)
    theirs = await api(method, f"/webhooks/{hook['id']}{suffix}", tenant="other")
    nobodys = await api(method, UNKNOWN + suffix, tenant="other")
    assert theirs == nobodys and theirs[0] == 404
    assert theirs[1]["code"] == "webhook-not-found"
    assert (await api("GET", f"/webhooks/{hook['id']}"))[1]["old_secret_until"] is None


@pytest.mark.parametrize("path", ["/webhooks/", "/webhooks/x", UNKNOWN + "/", UNKNOWN + "/else",
                                  "/webhooksx", "/webhooks/" + "A" * 32])  # fmt: skip
async def test_other_paths(path):
    assert (await Api(None)("GET", path))[0] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/webhooks"), ("DELETE", "/webhooks"), ("POST", UNKNOWN), ("GET", UNKNOWN + "/test")],
)
async def test_other_methods(method, path):
    assert (await Api(None)(method, path))[1]["code"] == "method-not-allowed"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""), ({"url": 1}, "/url"), ([], ""), ("x", ""), (HOOK | {"secret": "whsec_mine"}, ""),
        (HOOK | {"tenant": "other"}, ""), (HOOK | {"enabled": False}, ""),
        (HOOK | {"events": []}, "/events"), (HOOK | {"events": "job.dead"}, "/events"),
        (HOOK | {"events": ["job.dead"] * 99}, "/events"),
        (HOOK | {"events": ["job.dead", "job.waiting"]}, "/events/1"),
        (HOOK | {"events": ["job.dead,*"]}, "/events/0"), (HOOK | {"events": [None]}, "/events/0"),
        (HOOK | {"note": "x" * 201}, "/note"), (HOOK | {"note": "a\nb"}, "/note"),
        (HOOK | {"note": "\u001b[31m"}, "/note"),
        (HOOK | {"note": None}, "/note"),
    ],
)  # fmt: skip
async def test_what_is_no_registration(body, pointer):
    """Refused before the store is asked."""
    status, problem = await Api(None)("POST", "/webhooks", body)
    assert (status, problem["code"]) == (422, "validation-failed")
    assert problem["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("raw", "headers", "code"),
    [
        (b"", {}, "empty-body"), (b"{", {}, "malformed-json"), (b"\xff", {}, "malformed-json"),
        (b'{"url": "x", "url": "y"}', {}, "malformed-json"),
        (b'{"url": "\\u0000"}', {}, "json-limits"),
        (b"[" * 70_000, {}, "payload-too-large"),
        (b"{}", {b"content-type": b"text/plain"}, "unsupported-media-type"),
        (b"{}", {b"content-encoding": b"br"}, "unsupported-media-type"),
    ],
)  # fmt: skip
async def test_what_cannot_be_read(raw, headers, code):
    status, problem = await Api(None)("POST", "/webhooks", raw=raw, headers=headers)
    assert 400 <= status < 500 and problem["code"] == code


@pytest.mark.parametrize(
    "url",
    [
        "http://good.example/", "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/",
        "https://2130706433/", "https://user@8.8.8.8/", "https://8.8.8.8:22/", "ftp://8.8.8.8/",
        "https://localhost/", "file:///etc/passwd", "", "https://[::ffff:10.0.0.1]/",
    ],
)  # fmt: skip
async def test_an_address_that_nobody_may_give(url):
    """B41; the corpus is in test_egress."""
    status, problem = await Api(None, allow_private=False)("POST", "/webhooks", {"url": url})
    assert (status, problem["code"]) == (422, "url-not-allowed")


async def test_a_public_address_is_taken(database):
    api = Api(database, allow_private=False)
    status, hook = await api("POST", "/webhooks", {"url": "https://8.8.8.8/hook?a=b"})
    assert (status, hook["url"]) == (200, "https://8.8.8.8/hook?a=b")


async def test_there_is_a_limit(api):
    for _ in range(MOST):
        await added(api)
    status, problem = await api("POST", "/webhooks", HOOK)
    assert (status, problem["code"]) == (409, "too-many-webhooks")
    status, _ = await api("POST", "/webhooks", HOOK, tenant="other")
    assert status == 200


# -- the OpenAPI document --------------------------------------------------------------------------


@pytest.fixture
def document():
    whole = openapi([])
    whole["paths"] |= openapi_webhooks.paths()
    whole["components"]["schemas"] |= openapi_webhooks.SCHEMAS
    if Conflict not in MEANINGS:
        whole["components"]["responses"]["Conflict"] = _refusal(Conflict, "Not in that state.")
    return whole


def test_the_document_is_valid(document):
    OpenAPIV31SpecValidator(document).validate()


async def test_what_is_answered_is_what_it_says(api, document, database):
    def fits(answer, path, method, status="200"):
        response = document["paths"][path][method]["responses"][status]
        schema = response["content"]["application/json"]["schema"]
        validator = jsonschema.Draft202012Validator(schema | {"components": document["components"]})
        validator.validate(answer)

    hook = await added(api, events=["*"])
    fits(hook, "/webhooks", "post")
    path = f"/webhooks/{hook['id']}"
    fits((await api("GET", "/webhooks"))[1], "/webhooks", "get")
    fits((await api("GET", path))[1], "/webhooks/{id}", "get")
    fits((await api("POST", f"{path}/rotate"))[1], "/webhooks/{id}/rotate", "post")
    fits((await api("POST", f"{path}/test"))[1], "/webhooks/{id}/test", "post", "202")
    ended = deliveries.update().values(due=None, state="delivered", last_status=200, until=now())
    await database.write(lambda connection: connection.execute(ended))
    fits((await api("GET", f"{path}/deliveries"))[1], "/webhooks/{id}/deliveries", "get")
    payload = await database.read(
        lambda connection: connection.execute(deliveries.select()).one().payload
    )
    event = document["components"]["schemas"]["WebhookEvent"]
    jsonschema.Draft202012Validator(event).validate(json.loads(payload))
    fits((await api("DELETE", path))[1], "/webhooks/{id}", "delete")
