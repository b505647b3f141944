"""Who gets a call: shares, stickiness, who stands in for whom, and what a gateway follows."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import pytest

from headrace.announce import Announcement
from headrace.deployments import WHOLE, Route, Share, bucket, pick, place_of
from headrace.errors import Problem, Unavailable
from headrace.gateway.app import App
from headrace.gateway.route import Routing
from headrace.gateway.snapshot import Snapshot
from headrace.jobs import Outcome, Returned
from headrace.records import new_job_id
from headrace.settings import GatewaySettings
from headrace.signature import Card
from headrace.telemetry.metrics import GatewayMetrics

ANY = {"type": "integer"}


class View:
    def __init__(self, version: int, ready: bool = True, admitting: bool = True) -> None:
        self.version, self.ready, self.admitting = version, ready, admitting

    @property
    def queue(self) -> str:
        return f"wine@{self.version}"


def route(*shares: tuple[int, int], revision: int = 1, **more: object) -> Route:
    return Route("wine", revision, tuple(Share(*share) for share in shares), **more)  # type: ignore[arg-type]


def views(*versions: int) -> dict[int, View]:
    return {version: View(version) for version in versions}


def keys(count: int) -> list[bytes]:
    return [b"caller-%d" % number for number in range(count)]


def test_each_version_gets_its_share_by_chance_and_by_key() -> None:
    places = iter(range(WHOLE))
    routing = Routing(
        route((3, 8_000), (4, 2_000)), views(3, 4), chance=lambda: next(places) / WHOLE
    )
    by_chance = Counter(routing.of(None).version for _ in range(WHOLE))
    assert by_chance == {3: 8_000, 4: 2_000}
    by_key = Counter(routing.of(key).version for key in keys(4_000))
    assert 700 < by_key[4] < 900


def test_a_caller_stays_with_a_version_whose_share_grows() -> None:
    """And is the one that stored jobs of that id are, too."""
    had: set[bytes] = set()
    for share in (500, 2_500, 5_000, WHOLE):
        said = route((3, WHOLE - share), (4, share))
        routing = Routing(said, views(3, 4))
        has = {key for key in keys(500) if routing.of(key).version == 4}
        assert had <= has
        for key in keys(50):
            assert routing.of(key).version == pick(said.shares, bucket("wine", key))
        had = has
    assert had == set(keys(500))


@pytest.mark.parametrize("standing_by", [2_000, 0])
def test_the_first_of_the_shares_stands_in(standing_by: int) -> None:
    seen = views(3, 4)
    routing = Routing(route((3, standing_by), (4, WHOLE - standing_by)), seen)
    seen[4].ready = False
    assert {routing.of(key).version for key in keys(100)} == {3}
    assert routing.face.version == 3, "its readiness is the model's"
    seen[3].ready = False
    assert 4 in {routing.of(key).version for key in keys(100)}, "it may come back"
    assert routing.face.version == 4
    seen[4].admitting = False
    assert {routing.of(key).version for key in keys(100)} == {3}
    seen[4].ready = True
    assert 4 in {routing.of(key).version for key in keys(100)}


def test_what_need_not_be_looked_at() -> None:
    assert Routing(route((3, WHOLE)), views(3)).plain
    assert not Routing(route((3, WHOLE), watched=True), views(3)).plain
    assert not Routing(route((3, WHOLE), (4, 0)), views(3, 4)).plain
    shown = Routing(route((3, WHOLE), shadow=4, shadow_share=2_500), views(3, 4), lambda: 0.2)
    assert not shown.plain
    assert shown.shadowed()
    assert shown.shadow is not None and shown.shadow.version == 4
    unseen = Routing(route((3, WHOLE), shadow=4, shadow_share=2_500), views(3, 4), lambda: 0.3)
    assert not unseen.shadowed()
    assert {shown.of(key).version for key in keys(100)} == {3}


# -- as a gateway hears it -------------------------------------------------------------------------


def worker(version: int, *, ready: bool = True, leaving: bool = False) -> Announcement:
    card = Card("wine", str(version), f"number {version}", ANY, ANY, 1)
    return Announcement(
        f"wine@{version}-1", "wine", ready, "" if ready else "loading", card, 1, int(ready), 0, 0,
        0, True, 1.0, 1.0, 1, leaving=leaving, version=version,
    )  # fmt: skip


def test_without_a_route_a_version_gets_nothing() -> None:
    snapshot = Snapshot("here", ["wine"])
    snapshot.hear(worker(3))
    assert not snapshot.ready
    assert snapshot.by_path[b"/models/wine/predict"].version == 0
    snapshot.hear(worker(0))
    assert snapshot.ready
    assert snapshot.models["wine"].routing is None


def test_one_version_that_has_all_is_found_by_the_path_at_once() -> None:
    snapshot = Snapshot("here", ["wine"])
    snapshot.hear(worker(3))
    snapshot.hear(route((3, WHOLE)))
    view = snapshot.by_path[b"/models/wine/predict"]
    assert (view.version, view.queue, view.name, view.routing) == (3, "wine@3", "wine", None)
    assert snapshot.ready
    assert snapshot.models["wine"].card is not None
    assert snapshot.models["wine"].card.description == "number 3"


def test_a_new_version_takes_over_when_it_is_ready_here() -> None:
    snapshot = Snapshot("here", ["wine"])
    snapshot.hear(worker(3))
    snapshot.hear(route((3, WHOLE)))
    snapshot.hear(route((3, 0), (4, WHOLE), revision=2, watched=True))
    view = snapshot.by_path[b"/models/wine/predict"]
    assert view.version == 3 and view.routing is not None
    assert view.routing.of(None).version == 3, "nobody has heard of a worker of 4"
    snapshot.hear(worker(4))
    view = snapshot.by_path[b"/models/wine/predict"]
    assert view.version == 4 and view.routing is not None
    assert view.routing.of(None).version == 4
    assert [seen.version for seen in snapshot.watched()] == [3, 4]
    snapshot.hear(route((4, WHOLE), revision=3))
    assert snapshot.models["wine"].routing is None
    assert snapshot.watched() == []
    snapshot.hear(worker(3, leaving=True))
    snapshot.settle()
    assert sorted(snapshot.versions["wine"]) == [0, 4], "what nobody runs or names is forgotten"


def test_an_older_route_is_not_followed() -> None:
    snapshot = Snapshot("here", ["wine"])
    snapshot.hear(route((4, WHOLE), revision=7))
    snapshot.hear(route((3, WHOLE), revision=6))
    snapshot.hear(route((3, WHOLE), revision=7))
    assert snapshot.routings["wine"].route.stable == 4


def test_stored_jobs_go_where_calls_of_their_bucket_go() -> None:
    snapshot = Snapshot("here", ["wine"])
    for version in (3, 4):
        snapshot.hear(worker(version))
    snapshot.hear(route((3, 5_000), (4, 5_000)))
    for number in range(50):
        key = b"caller-%d" % number
        routing, place = snapshot.routings["wine"], place_of(new_job_id(bucket("wine", key)))
        assert snapshot.routed("wine", place).version == routing.of(key).version
        assert routing.of(key).version == pick(routing.route.shares, place)
    with pytest.raises(KeyError):
        snapshot.routed("beer", 1)


# -- a call's way ----------------------------------------------------------------------------------


class Dispatch:
    def __init__(self) -> None:
        self.by_workload: dict[str, int] = {}
        self.started: list[tuple[str, Any]] = []

    def start(self, workload: str, request_id: str, body: bytes, **more: Any) -> int:
        self.started.append((workload, more["on_outcome"]))
        return len(self.started)

    def answer(self, by: str, problem: Problem | None = None) -> None:
        """The last, by whom is said."""
        outcome = Outcome(1, time.time(), 0.0, 1.0, b'{"score":2}', problem)
        returned = Returned(by, by.partition("@")[2], "w", time.time(), [outcome])
        self.started[-1][1](outcome, returned)


class Request:
    method, query, id = b"POST", b"", "r-1"

    def __init__(self, **headers: bytes) -> None:
        self.body, self.status = b"1", 0
        self.headers = {b"content-type": b"application/json"}
        self.headers |= {name.replace("_", "-").encode(): v for name, v in headers.items()}

    def answer(self, status: int, body: bytes, head: bytes) -> None:
        self.status, self.json = status, json.loads(body)


@pytest.fixture
def app() -> App:
    snapshot = Snapshot("here", ["wine"])
    for version in (3, 4):
        snapshot.hear(worker(version))
    snapshot.hear(route((3, 5_000), (4, 5_000), watched=True))
    return App(GatewaySettings(), snapshot, Dispatch(), GatewayMetrics())  # type: ignore[arg-type]


def predict(app: App, **headers: bytes) -> Request:
    request = Request(**headers)
    app.predict(request, app.snapshot.models["wine"])  # type: ignore[arg-type]
    return request


async def test_a_call_goes_to_the_version_of_its_key_and_is_answered_by_who_ran_it(
    app: App,
) -> None:
    jobs: Any = app.dispatch
    for number in range(20):
        key = b"caller-%d" % number
        asked = [predict(app, headrace_route_key=key) for _ in range(2)]
        version = pick(app.snapshot.routings["wine"].route.shares, bucket("wine", key))
        assert {workload for workload, _ in jobs.started[-2:]} == {f"wine@{version}"}
        jobs.answer(f"wine@{version}")
        assert asked[-1].json["version"] == str(version)
        assert asked[-1].json["model"] == "wine"
    said = {v.version: v.witness.evidence("here") for v in app.snapshot.watched() if v.witness}
    assert said[3].answered + said[4].answered == 20
    assert said[3].answered and said[4].answered and said[4].seen["score"][-1] == 2.0


async def test_evidence_is_of_who_ran_it(app: App) -> None:
    jobs: Any = app.dispatch
    witnesses = app.snapshot.witnesses
    asked = predict(app)
    app.moved("wine@4", 1)
    jobs.answer("wine@3")
    assert asked.json["version"] == "3"
    assert (witnesses.of("wine@3").answered, witnesses.of("wine@4").failed) == (1, 1)
    predict(app)
    jobs.answer("wine@4", Problem(500, "model-failed", "it raised"))
    assert witnesses.of("wine@4").failed == 2
    view = app.snapshot.version("wine", 4)
    app.dispatch.by_workload["wine@4"] = app.settings.max_outstanding
    with pytest.raises(Unavailable):
        app.admit(view, time.time() + 9, time.time())
    assert witnesses.of("wine@4").refused == 1


async def test_nobody_counts_where_nobody_asks(app: App) -> None:
    app.snapshot.hear(route((3, WHOLE), revision=2))
    jobs: Any = app.dispatch
    predict(app)
    jobs.answer("wine@3")
    assert jobs.started[-1][0] == "wine@3"
    assert app.snapshot.witnesses.of("wine@3").answered == 0
