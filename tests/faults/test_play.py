"""How many second runs the faults of a ledger explain."""

from __future__ import annotations

import pytest

from .ledger import Event
from .models import Prove
from .play import FETCHED, repeats_most


def fault(what: str, *pids: int) -> Event:
    return Event("fault", 1.0, what=what, pids=list(pids), proof="gone")


@pytest.mark.parametrize(
    ("faults", "batches"),
    [
        ([], 0),
        ([fault("kill gateway", 1), fault("kill broker", 2), fault("pause clerk", 3)], 0),
        ([fault("kill worker", 1, 2)], 4),
        ([fault("kill model", 1), fault("drain worker", 2, 3)], 6),
        ([fault("pause worker", 1, 2)], 4 + FETCHED),
    ],
)
def test_strikes_explain_so_many_batches(faults: list[Event], batches: int) -> None:
    assert repeats_most(faults) == batches * Prove.batching.max_size


@pytest.mark.parametrize("what", ["cut database", "kill everything", "fill disk"])
def test_nobody_can_say(what: str) -> None:
    assert repeats_most([fault("kill worker", 1), fault(what)]) is None
