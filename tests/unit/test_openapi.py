"""The OpenAPI document: valid, whole, and the same as what the gateway answers."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any

import jsonschema
import numpy as np
import pydantic
import pytest
from msgspec import Meta
from openapi_spec_validator import OpenAPIV31SpecValidator

import headrace
from headrace.errors import MethodNotAllowed, Problem, Refusal
from headrace.gateway.answer import Timings
from headrace.gateway.app import App
from headrace.gateway.feedback import FeedbackApi
from headrace.gateway.job_views import accepted, job_json, job_view
from headrace.gateway.jobs import PATH, JobsApi
from headrace.gateway.openapi import openapi
from headrace.gateway.snapshot import Snapshot
from headrace.gateway.webhooks import WebhooksApi
from headrace.httpserver import Request
from headrace.records import Lost, Priority, Record, State
from headrace.settings import GatewaySettings, Settings, WebhooksSettings
from headrace.signature import Card, Signature, card
from headrace.telemetry.metrics import GatewayMetrics


@dataclass
class Leaf:
    label: Annotated[str, Meta(examples=[{"$ref": "#/$defs/not-a-reference"}])] = "#/$defs/Leaf"


@dataclass
class Tree:
    leaves: list[Leaf]
    children: list[Tree]


class Oak(headrace.Model):
    """Counts leaves.

    A <b>second</b> paragraph.
    """

    def predict(self, trees: list[Tree]) -> list[Leaf]:
        return [Leaf() for _ in trees]


@dataclass
class Pair:
    first: headrace.Image
    second: headrace.Image
    third: headrace.Image | None = None
    note: str = ""
    leaf: Leaf | None = None


class FaceMatch(headrace.Model):
    def predict(self, pairs: list[Pair]) -> list[float]:
        return [0.0 for _ in pairs]


class Thumb(headrace.Model):
    def predict(self, images: list[headrace.Image]) -> list[str]:
        return ["" for _ in images]


class Sum(headrace.Model):
    def predict(
        self, rows: list[Annotated[np.ndarray, headrace.Tensor("float32", (3,))]]
    ) -> list[float]:
        return [0.0 for _ in rows]


class Inner(pydantic.BaseModel):
    size: int = pydantic.Field(ge=0)


class Outer(pydantic.BaseModel):
    inner: Inner
    more: list[Inner] = []


class Odd(headrace.Model):
    name = "predict-many_odd"

    def predict(self, items: list[Outer]) -> list[Outer]:
        return items


MODELS = [Oak, FaceMatch, Thumb, Sum, Odd]


@pytest.fixture(scope="module")
def cards() -> list[Card]:
    return [card(model, Signature(model)) for model in MODELS]


@pytest.fixture(scope="module")
def document(cards: list[Card]) -> dict[str, Any]:
    return openapi(cards)


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, node[method])
        for path, node in document["paths"].items()
        for method in ("get", "post", "put", "delete", "patch")
        if method in node
    ]


def references(node: Any) -> list[str]:
    """Every $ref that is one: not those that are data."""
    if isinstance(node, list):
        return [found for item in node for found in references(item)]
    if not isinstance(node, dict):
        return []
    inside = [
        found
        for key, value in node.items()
        if key not in ("default", "examples", "example")
        for found in references(value)
    ]
    return [*inside, node["$ref"]] if isinstance(node.get("$ref"), str) else inside


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_a_house_without_models_has_a_valid_document() -> None:
    OpenAPIV31SpecValidator(openapi([])).validate()


def test_the_validator_can_fail(cards: list[Card]) -> None:
    broken = openapi(cards)
    broken["paths"]["/models/oak/predict"]["post"]["responses"] = {"200": {"content": {}}}
    assert list(OpenAPIV31SpecValidator(broken).iter_errors())


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for pointer in references(document):
        node: Any = document
        for key in pointer.removeprefix("#/").split("/"):
            node = node[key]


def test_definitions_carry_the_name_of_their_model(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["oak-input"] == {"$ref": "#/components/schemas/oak.Tree"}
    assert schemas["oak.Tree"]["properties"]["children"]["items"] == schemas["oak-input"]
    assert schemas["face-match.Leaf"] == schemas["oak.Leaf"]
    assert "predict-many_odd.Inner" in schemas


def test_data_in_a_schema_is_left_alone(document: dict[str, Any]) -> None:
    label = document["components"]["schemas"]["oak.Leaf"]["properties"]["label"]
    assert label["default"] == "#/$defs/Leaf"
    assert label["examples"] == [{"$ref": "#/$defs/not-a-reference"}]


def test_one_name_with_two_meanings_stays_two_schemas() -> None:
    def schema(kind: str) -> dict[str, Any]:
        return {"$ref": "#/$defs/Row", "$defs": {"Row": {"type": kind}}}

    document = openapi([Card("m", "1", "", schema("string"), schema("integer"), 1)])
    schemas = document["components"]["schemas"]
    assert schemas["m.Row"] == {"type": "string"}
    assert schemas["m-output"] == {"$ref": "#/components/schemas/m.output.Row"}
    assert schemas["m.output.Row"] == {"type": "integer"}


def test_names_that_no_component_may_have_are_changed() -> None:
    schema = {"$ref": "#/$defs/Row[int]", "$defs": {"Row[int]": {"type": "string"}}}
    document = openapi([Card("m", "1", "", schema, {"type": "string"}, 1)])
    OpenAPIV31SpecValidator(document).validate()
    assert document["components"]["schemas"]["m-input"]["$ref"].endswith("/m.Row_int_")


def test_the_description_is_the_docstring(document: dict[str, Any]) -> None:
    operation = document["paths"]["/models/oak/predict"]["post"]
    assert operation["summary"] == "Counts leaves."
    assert operation["description"] == "Counts leaves.\n\nA <b>second</b> paragraph."


@pytest.mark.parametrize(
    ("model", "media_types"),
    [
        ("oak", ["application/json"]),
        ("face-match", ["application/json", "multipart/form-data"]),
        (
            "thumb",
            ["application/json", "multipart/form-data", "image/jpeg", "image/png", "image/webp"],
        ),
    ],
)
def test_bodies_are_those_that_the_gateway_reads(
    document: dict[str, Any], model: str, media_types: list[str]
) -> None:
    operation = document["paths"][f"/models/{model}/predict"]["post"]
    assert list(operation["requestBody"]["content"]) == media_types


def test_a_form_has_binary_parts_where_there_are_images(document: dict[str, Any]) -> None:
    operation = document["paths"]["/models/face-match/predict"]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["required"] == ["first", "second"]
    assert form["schema"]["properties"]["first"] == {"contentMediaType": "image/*"}
    assert form["schema"]["properties"]["third"] == {"contentMediaType": "image/*"}
    assert form["encoding"]["second"] == {"contentType": "image/jpeg, image/png, image/webp"}


def test_problems_are_shared_and_503_says_when_to_retry(document: dict[str, Any]) -> None:
    refusals = document["paths"]["/models/oak/predict"]["post"]["responses"]
    wanted = {400, 404, 405, 406, 408, 411, 413, 415, 422, 431, 500, 503, 504}
    assert wanted <= {int(status) for status in refusals}
    for response in document["components"]["responses"].values():
        problem = response["content"]["application/problem+json"]["schema"]
        assert problem == {"$ref": "#/components/schemas/Problem"}
    assert "Retry-After" in document["components"]["responses"]["Unavailable"]["headers"]


def test_the_schema_of_an_answer_takes_a_real_one(document: dict[str, Any]) -> None:
    answer = {
        "result": {"label": "x"},
        "model": "oak",
        "version": "1",
        "request_id": "a-1",
        "timings": {f"{stage}_ms": 0.5 for stage in (*Timings._fields, "total")},
    }
    response = document["paths"]["/models/oak/predict"]["post"]["responses"]["200"]
    schema = response["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator(schema | {"components": document["components"]})
    validator.validate(answer)
    assert not validator.is_valid(answer | {"result": {"label": 3}})
    assert {"X-Request-Id", "Server-Timing"} <= set(response["headers"])


# -- the document against the running routes (faults.md 5.9) ---------------------------------------


class Outside:
    """Where a connection would be: keeps what was answered."""

    def __init__(self) -> None:
        self.transport = self
        self.code = ""

    def answer(self, request: Request, status: int, body: bytes, head: bytes) -> None:
        if b"application/problem+json" in head:
            self.code = json.loads(body)["code"]


class Nowhere:
    """Where a dispatch would be."""

    address, by_workload, waiting, unknown = "here", {}, {}, 0
    lag_s, last_reply_size = 0.0, 0

    @staticmethod
    def oldest_s() -> dict[str, float]:
        return {}


class Unstored:
    """Errands that know the verbs and run nothing: there is no store."""

    def run(self, request: Request, verbs: dict[bytes, Any]) -> None:
        if request.method not in verbs:
            raise MethodNotAllowed("others")


@pytest.fixture
def app() -> App:
    snapshot = Snapshot("here", ["oak"])
    app = App(GatewaySettings(), snapshot, Nowhere(), GatewayMetrics())  # type: ignore[arg-type]
    app.jobs = JobsApi(app, Settings(), Unstored(), None)  # type: ignore[arg-type]
    app.webhooks = WebhooksApi(Unstored(), WebhooksSettings())  # type: ignore[arg-type]
    app.feedback = FeedbackApi(Unstored(), {})  # type: ignore[arg-type]
    return app


def runs(app: App, method: str, path: str) -> bool:
    """Is there such a route? A refusal for another reason than the path is a yes."""
    outside = Outside()
    request = Request(outside, 0.0)  # type: ignore[arg-type]
    request.method, request.path = method.upper().encode(), path.encode()
    request.headers = {b"content-length": b"0"}
    try:
        app.on_head(request)
        app.handle(request)
    except Refusal as refusal:
        outside.code = refusal.code
    return outside.code not in ("not-found", "method-not-allowed")


def filled(path: str) -> str:
    return path.replace("{name}", "oak").replace("{version}", "1").replace("{id}", "0" * 32)


def test_each_documented_route_runs(app: App, cards: list[Card]) -> None:
    routes = [(m, filled(path)) for path, m, _ in operations(openapi(cards[:1]))]
    assert len(routes) > 15
    assert [route for route in routes if not runs(app, *route)] == []


def test_an_undocumented_route_does_not_run(app: App) -> None:
    for path in ("/nowhere", "/models/oak/else", "/models/oak/predict/more", "/static/docs.html"):
        assert not runs(app, "GET", path)
        assert not runs(app, "POST", path)


def test_each_running_route_is_documented(app: App, cards: list[Card]) -> None:
    document = openapi(cards[:1])
    for path, (method, _) in app.pages.routes().items():
        assert method.decode().lower() in document["paths"][path.decode()], path
    for path in app.snapshot.by_path:
        assert "post" in document["paths"][path.decode()], path


def test_each_prefix_route_is_documented(cards: list[Card]) -> None:
    """The routes that are code, not a table: every path in that code is in the document."""
    documented = [filled(path) for path in openapi(cards[:1])["paths"]]
    pieces = re.findall(r'b"(/[^"]*)"', inspect.getsource(App._by_prefix))
    assert {"/models/", "/predict-many", "/v2/"} <= set(pieces)
    for piece in set(pieces) - {"/"}:
        assert any(piece in path for path in documented), piece


def test_the_routes_of_stored_jobs_are_documented(app: App, cards: list[Card]) -> None:
    """Every path that their pattern takes, with the methods that run and no others."""
    paths = openapi(cards[:1])["paths"]
    [suffixes] = re.findall(rb"\(\?:/\(([a-z|]+)\)\)\?$", PATH.pattern)
    known = [
        "/jobs",
        "/jobs/{id}",
        *(f"/jobs/{{id}}/{word.decode()}" for word in suffixes.split(b"|")),
    ]
    assert [path for path in paths if path.startswith("/jobs")] == known
    for path in known:
        methods = ("get", "post", "put", "delete", "patch")
        running = {method for method in methods if runs(app, method, filled(path))}
        assert running == paths[path].keys() & set(methods), path


def test_a_submit_is_documented(document: dict[str, Any]) -> None:
    submit = document["paths"]["/models/face-match/jobs"]["post"]
    assert {"200", "202", "404", "422", "503"} <= submit["responses"].keys()
    names = {parameter["$ref"].rpartition("/")[2] for parameter in submit["parameters"]}
    assert {"IdempotencyKey", "Priority", "JobLifeMs", "Prefer"} <= names
    assert "multipart/form-data" in submit["requestBody"]["content"]
    stored = submit["responses"]["202"]
    assert {"Location", "Idempotent-Replayed"} <= stored["headers"].keys()
    valid(document, stored["content"]["application/json"]["example"], stored)


def test_a_predict_may_become_a_job(document: dict[str, Any]) -> None:
    predict = document["paths"]["/models/oak/predict"]["post"]
    assert {"200", "202", "409", "422", "503"} <= predict["responses"].keys()
    assert "Headrace-Job" in predict["responses"]["200"]["headers"]


def test_the_schema_of_a_job_takes_a_real_one(document: dict[str, Any]) -> None:
    problem = Problem(500, "model-failed", "it raised")
    record = Record(
        "0" * 32, "default", "oak", State.DEAD, Priority.BULK, 2, 2, 2, "r-1", 1.0, 2.0, 1.5, None,
        "w", "1", 3.0, b"", "", problem, "", False,
    )  # fmt: skip
    one = document["paths"]["/jobs/{id}"]["get"]["responses"]["200"]
    for losses in ([], [Lost(1, "w", 1.5, "it died")]):
        valid(document, json.loads(job_json(record, None, losses)), one)
    valid(document, json.loads(job_json(record, b"[1]")), one)
    listed = document["paths"]["/jobs"]["get"]["responses"]["200"]
    valid(document, {"jobs": [job_view(record)], "next": None}, listed)
    stored = document["paths"]["/models/oak/jobs"]["post"]["responses"]["202"]
    valid(document, accepted("0" * 32, "oak", "waiting", "r-1"), stored)
    with pytest.raises(jsonschema.ValidationError):
        valid(document, job_view(record) | {"state": "lost"}, one)


def valid(document: dict[str, Any], body: Any, response: dict[str, Any]) -> None:
    schema = response["content"]["application/json"]["schema"]
    schema = schema | {"components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(body)
