"""What a person may ask of a rollout, and when it makes sense."""

from __future__ import annotations

import msgspec
import pytest

from headrace.control.order import Order, check, check_now
from headrace.deployments import Rollout
from headrace.errors import Conflict, Invalid

STATES = ("starting", "stepping", "promoting", "keeping")


def opened(state="stepping", paused=False):
    return Rollout(
        id="1", model="iris", from_version=1, to_version=2, strategy="canary", state=state,
        paused=paused, author="ann", reason="x", started=1.0, updated=1.0, since=1.0,
    )  # fmt: skip


def said(order, opened=None, stable=1, back=None, version=None):
    """Why not; "" where it is taken."""
    asked = Order(order=order, reason="x", version=version)
    check(asked)
    try:
        check_now(asked, opened, stable, back)
    except Conflict as conflict:
        return f"{conflict.code}: {conflict.detail}"
    return ""


def test_without_an_open_rollout():
    assert said("start", version=2) == "" and said("start", stable=None, version=1) == ""
    assert said("start", stable=2, version=2) == "rollout-state: 2 has the calls already"
    for order in ("pause", "resume", "promote"):
        assert said(order, back=1) == "rollout-state: no rollout is open"
    assert said("rollback", back=0) == "" and said("rollback", back=1) == ""
    assert "no rollout is open, and none is done" in said("rollback")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("paused", [False, True])
def test_of_an_open_one(state, paused):
    one = opened(state, paused)
    taken = {o for o in ("pause", "resume", "promote", "rollback") if not said(o, one)}
    wanted = {"rollback", "resume" if paused else "pause"}
    assert taken == wanted | ({"promote"} if state in ("starting", "stepping") else set())


def test_a_start_while_another_is_open():
    assert "paused: promote it or roll it back first" in said(
        "start", opened(paused=True), version=3
    )
    assert (
        said("start", opened(), version=2)
        == "rollout-state: the rollout of 2 is under way: stepping"
    )
    # The calls are where they were meant to be: what stands by may go.
    assert said("start", opened("keeping"), version=3) == ""
    assert said("start", opened("keeping"), version=1) == ""
    assert said("start", opened("keeping"), version=2) == "rollout-state: 2 has the calls already"


def test_what_belongs_to_a_start():
    with pytest.raises(Invalid, match="expected the number"):
        check(Order(order="start", reason="x"))
    for more, place in (({"version": 3}, "/version"), ({"strategy": "rolling"}, "/strategy")):
        with pytest.raises(Invalid) as wrong:
            check(Order(order="promote", reason="x", **more))
        assert wrong.value.errors[0].pointer == place


@pytest.mark.parametrize(
    "body",
    [
        {"order": "stop"}, {"version": 0}, {"version": "2"}, {"strategy": "big-bang"},
        {"reason": ""}, {"reason": "a\nb"}, {"reason": "\x1b[31m"}, {"author": "root"},
    ],
)  # fmt: skip
def test_what_is_no_order(body):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"order": "start", "reason": "x", "version": 2} | body, Order)
