"""MLflow's adapter against servers that are not as they should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from headrace.errors import NotFound, Unavailable
from headrace.registry.fetch import fetch
from headrace.registry.inspect import inspect
from headrace.registry.mlflow import LISTING_TAG, MANIFEST_TAG, MAX_ANSWER, MlflowRegistry
from headrace.registry.refusals import Rejected
from headrace.registry.rules import Rules
from headrace.registry.version import listing_of
from headrace.testing.registry_exam import write

Answer = Callable[[httpx.Request], httpx.Response]


def registry(answer: Answer, **options) -> MlflowRegistry:
    return MlflowRegistry("mlflow://host:5000", transport=httpx.MockTransport(answer), **options)


def saying(status: int, body: object = b"", **more) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda request: httpx.Response(status, content=content, **more)


def raising(error: Exception) -> Answer:
    def answer(request):
        raise error

    return answer


BAD = {
    "refused": raising(httpx.ConnectError("connection refused")),
    "too slow": raising(httpx.ReadTimeout("")),
    "cut off": raising(httpx.RemoteProtocolError("peer closed")),
    "broken": saying(500, b"oops"),
    "not allowed": saying(401, {"error_code": "UNAUTHENTICATED", "message": "no"}),
    "elsewhere": saying(302, headers={"location": "http://169.254.169.254/"}),
    "a page": saying(200, b"<html>"),
    "a list": saying(200, []),
    "other types": saying(
        200, {"registered_models": 3, "model_versions": "x", "model_version": []}
    ),
    "no name": saying(
        200, {"registered_models": [{}], "model_versions": [{}], "model_version": {}}
    ),
    "deep": saying(200, b'{"a":' * 100_000),
    "no text": saying(200, b'{"message": "\xff"}'),
    "endless": lambda request: httpx.Response(200, content=forever()),
    "error in a 200": saying(200, {"error_code": "INTERNAL_ERROR", "message": "x"}),
}


async def forever():
    for _ in range(MAX_ANSWER // (1 << 20) + 2):
        yield b" " * (1 << 20)


@pytest.mark.parametrize("kind", BAD)
async def test_what_is_no_answer_is_unavailable(kind):
    mlflow = registry(BAD[kind])
    for ask in (mlflow.state(), mlflow.versions("iris"), mlflow.get("iris", 1)):
        with pytest.raises(Unavailable) as raised:
            await ask
        assert raised.value.code == "registry-unavailable"
        assert "mlflow://host:5000" in raised.value.detail
    await mlflow.close()


async def test_pages_without_end_are_unavailable():
    with pytest.raises(Unavailable, match="no end"):
        await registry(saying(200, {"next_page_token": "again"})).state()


async def test_pages_are_turned():
    pages = {"": ("a", "next"), "next": ("b", "")}

    def answer(request):
        name, token = pages[request.url.params.get("page_token", "")]
        aliases = [{"alias": "production", "version": "3"}]
        found = [{"name": name, "aliases": aliases}, {"name": "Of Somebody Else's"}]
        return httpx.Response(200, json={"registered_models": found, "next_page_token": token})

    assert await registry(answer).state() == {"a": {"production": 3}, "b": {"production": 3}}


@pytest.mark.parametrize(("options", "sent"), [
    ({}, None), ({"token": "abc"}, "Bearer abc"), ({"token": "ann:pass"}, "Basic YW5uOnBhc3M="),
])  # fmt: skip
async def test_credentials_are_sent_and_never_shown(options, sent):
    def answer(request):
        assert request.headers.get("authorization") == sent
        return httpx.Response(500)

    with pytest.raises(Unavailable) as raised:
        await registry(answer, **options).state()
    assert "abc" not in raised.value.detail and "pass" not in raised.value.detail


def version(folder: Path, **changed) -> dict[str, object]:
    write(folder, "iris", "one")
    given = inspect(folder, Rules())
    tags = {
        LISTING_TAG: listing_of(given.files),
        MANIFEST_TAG: (folder / "manifest.json").read_text(),
    } | changed.pop("tags", {})
    return {
        "name": "iris",
        "version": "1",
        "source": "mlflow-artifacts:/1/x/artifacts/v",
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    } | changed


@pytest.mark.parametrize("tags", [
    {LISTING_TAG: ""}, {LISTING_TAG: "x"}, {MANIFEST_TAG: "{}"}, {MANIFEST_TAG: ""},
    {LISTING_TAG: f"{'0' * 64} 5 ../../etc/passwd\n"},
    {LISTING_TAG: f"{'0' * 64} 5 manifest.json\n"},
    {LISTING_TAG: f"{'0' * 64} -5 a\n"}, {LISTING_TAG: f"{'0' * 64} 5 a"},
])  # fmt: skip
async def test_what_does_not_belong_together_is_rejected(tags, tmp_path):
    entry = version(tmp_path, tags=tags)
    with pytest.raises(Rejected):
        await registry(saying(200, {"model_version": entry})).get("iris", 1)


async def test_a_version_of_another_model_is_rejected(tmp_path):
    entry = version(tmp_path, name="wine")
    with pytest.raises(Rejected, match="of the model iris"):
        await registry(saying(200, {"model_version": entry})).get("wine", 1)


@pytest.mark.parametrize(
    "source", ["s3://bucket/v", "file:///etc", "mlflow-artifacts://evil/v", ""]
)
async def test_files_are_fetched_from_mlflow_alone(source, tmp_path):
    entry = version(tmp_path / "given", source=source)
    asked = []

    def answer(request):
        asked.append(request.url)
        if "artifacts" in request.url.path:
            return httpx.Response(200, content=pieces(b"x"))
        return httpx.Response(200, json={"model_version": entry})

    mlflow = registry(answer)
    with pytest.raises((Rejected, NotFound, Unavailable)):
        await fetch(mlflow, await mlflow.get("iris", 1), tmp_path / "out")
    assert {url.host for url in asked} == {"host"}


async def pieces(data: bytes):
    yield data


@pytest.mark.parametrize("body", [b"on", b"onE", b"one and more", b""])
async def test_files_that_are_others_are_rejected(body, tmp_path):
    entry = version(tmp_path / "given")

    def answer(request):
        if "artifacts" not in request.url.path:
            return httpx.Response(200, json={"model_version": entry})
        name = request.url.path.rpartition("/")[2]
        data = body if name == "notes.txt" else (tmp_path / "given" / name).read_bytes()
        return httpx.Response(200, content=pieces(data))

    mlflow = registry(answer)
    with pytest.raises(Rejected, match=r"notes\.txt is not what was registered"):
        await fetch(mlflow, await mlflow.get("iris", 1), tmp_path / "out")


async def test_who_keeps_artifacts_elsewhere_is_told_so(tmp_path):
    def answer(request):
        info = {"run_id": "a" * 32, "artifact_uri": "s3://bucket/1"}
        said = {"experiment": {"experiment_id": "1"}, "run": {"info": info}}
        return httpx.Response(200, json=said)

    version(tmp_path)
    with pytest.raises(Unavailable, match="--serve-artifacts"):
        await registry(answer).register(inspect(tmp_path, Rules()))


def test_a_url_names_a_host():
    with pytest.raises(ValueError, match="no host"):
        MlflowRegistry("mlflow:///x")


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"success": True}, ""),
        ({"success": False, "response_status": 401, "error_message": "no"}, "401 no"),
        ({"success": False}, "no reason was given"),
        ({}, "no reason was given"),
    ],
)
@pytest.mark.parametrize("known", [False, True])
async def test_a_webhook_that_was_not_taken_says_so_and_a_new_one_is_not_left(known, result, said):
    asked = []

    def answer(request):
        asked.append((request.method, request.url.path.rpartition("/webhooks")[2]))
        if request.method == "GET":
            there = [{"webhook_id": "w1", "url": "http://house/hooks"}] if known else []
            return saying(200, {"webhooks": there})(request)
        if request.url.path.endswith("/test"):
            return saying(200, {"result": result})(request)
        return saying(200, {"webhook": {"webhook_id": "w1", "url": "http://house/hooks"}})(request)

    assert await registry(answer).hook("http://house/hooks", "a secret") == said
    assert (("PATCH", "/w1") in asked) == known
    assert (("DELETE", "/w1") in asked) == (bool(said) and not known)
