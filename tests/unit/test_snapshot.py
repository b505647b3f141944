"""What readiness says: the truth of each model that should have workers."""

from __future__ import annotations

import pytest

from headrace.announce import Announcement
from headrace.gateway.snapshot import Snapshot
from headrace.signature import Card

ANY = {"type": "integer"}


def said(model: str, ready: bool = True, leaving: bool = False) -> Announcement:
    card = Card(model, "1", "", ANY, ANY, 1)
    return Announcement(f"{model}-1", model, ready, "", card, 1, int(ready), 0, 0, 0, True, 1.0,
                        1.0, 1, leaving=leaving)  # fmt: skip


@pytest.mark.parametrize("may_rest", [(), ("elm",)])
def test_all_models_that_should_have_workers_are_ready(may_rest: tuple[str, ...]) -> None:
    snapshot = Snapshot("here", ["oak", "elm"], may_rest)
    assert not snapshot.ready
    snapshot.hear(said("oak"))
    assert snapshot.ready == bool(may_rest), "a model scaled to zero holds nobody up"
    snapshot.hear(said("elm", ready=False))
    assert not snapshot.ready, "it has a worker, and that one is not fit to answer"
    snapshot.hear(said("elm"))
    assert snapshot.ready
    snapshot.hear(said("elm", leaving=True))
    assert snapshot.ready == bool(may_rest)
    snapshot.hear(said("oak", leaving=True))
    assert not snapshot.ready
