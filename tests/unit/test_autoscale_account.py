"""What a gateway tells the autoscaler: all that was wanted of a model, and nothing else."""

import time

import pytest

from headrace.dispatch import Dispatch
from headrace.errors import BadRequest, DeadlineExceeded, Unavailable
from headrace.gateway.account import Account
from headrace.gateway.app import App
from headrace.gateway.snapshot import Snapshot
from headrace.jobs import Form
from headrace.settings import GatewaySettings
from headrace.telemetry.metrics import GatewayMetrics


class Nowhere:
    """Where a broker would be."""

    def publish(self, queue, job, refused):
        pass

    def send(self, address, data):
        pass


@pytest.fixture
def app():
    dispatch = Dispatch(Nowhere(), None, 1_000, "here")
    return App(GatewaySettings(), Snapshot("here", ["oak"]), dispatch, GatewayMetrics())


def start(app, model="oak"):
    end = time.time() + 9
    given = {"deadline": end, "form": Form.JSON, "on_outcome": lambda *_: None}
    return app.dispatch.start(model, "r", b"1", **given)


async def test_calls_stored_jobs_and_calls_refused_for_want_of_room_have_arrived(app):
    account = Account(app)
    number = start(app)
    start(app, "elm")
    app.metrics.submitted.add("oak")
    app.miss("oak", Unavailable("full", code="queue-full"), 3)
    told = account.outstanding()
    assert (told.gateway, told.calls) == ("here", {"oak": 1, "elm": 1})
    assert told.arrived == {"oak": 5, "elm": 1}
    assert sorted(told.oldest_s) == ["elm", "oak"] and 0 <= told.oldest_s["oak"] < 60
    app.dispatch.cancel(number)
    later = account.outstanding(leaving=True)
    assert (later.calls, later.arrived["oak"], later.leaving) == ({"elm": 1}, 5, True)
    assert 0 <= told.up_s <= later.up_s < 60


def test_what_the_client_did_wrong_or_too_late_is_no_demand(app):
    for refusal in (BadRequest("no"), DeadlineExceeded("late"), Unavailable("no disk")):
        app.miss("oak", refusal)
    assert Account(app).outstanding().arrived == {}


def test_a_model_that_is_not_ready_was_wanted(app):
    with pytest.raises(Unavailable):
        app.admit(app.snapshot.models["oak"], time.time() + 9, time.time(), 4)
    assert Account(app).outstanding().arrived == {"oak": 4}


def test_the_lag_is_the_longest_since_it_was_told(app):
    account = Account(app)
    app.dispatch.longest_lag_s = 2.5
    assert [account.outstanding().reply_lag_s for _ in range(2)] == [2.5, 0.0]
    app.dispatch.longest_lag_s = -1.0
    assert account.outstanding().reply_lag_s == 0.0, "clocks that differ"


async def test_versions_are_told_of_as_their_model(app):
    for workload in ("oak", "oak@3", "oak@3"):
        start(app, workload)
    told = Account(app).outstanding()
    assert told.arrived == {"oak": 3}
    assert told.calls == {"oak": 3, "oak@3": 2}, "other gateways admit to one version's workers"
    assert list(told.oldest_s) == ["oak"]
    assert app.open_calls() == {"oak": 3}
