"""What came of a run, in words."""

from __future__ import annotations

import pytest

from headrace.pipeline.gates import Verdict
from headrace.pipeline.run import Code, Run
from headrace.retrain.outcome import outcome, stayed
from headrace.retraining import Training

ASKED = Training(model="wine", key="k", at=100.0, reason="because", run="r1", before=3)


def ran(state: str, **more: object) -> Run:
    given = {"id": "r1", "pipeline": "wines", "target": "p:Wines", "folder": "/", "model": "wine",
             "params": {}, "code": Code(""), "began": 101.0, "ended": 131.5}  # fmt: skip
    return Run(state=state, **(given | more))


@pytest.mark.parametrize(
    ("run", "then", "state", "said"),
    [
        (ran("succeeded", version="4"), "register", "registered", "version 4 is registered"),
        (ran("succeeded", version="4"), "promote", "promoted", "version 4 goes to production"),
        (ran("succeeded", version="3"), "promote", "registered",
         "nothing new: the same files as version 3 in production"),
        (ran("failed", step="train", problem="out of\nmemory"), "promote", "failed",
         "train failed: out of memory"),
        (ran("failed", problem="no module"), "promote", "failed", "the run failed: no module"),
        (ran("refused", verdicts=[Verdict("a", True, "fine"), Verdict("b", False, "0.7 < 0.9")]),
         "promote", "out", "it stays out: 0.7 < 0.9"),
    ],
)  # fmt: skip
def test_what_came_of_it(run, then, state, said):
    found = outcome(ASKED, run, then)
    assert (found.state, found.outcome) == (state, said)
    assert (found.ended, found.took_s) == (131.5, 30.5)
    assert (found.key, found.run, found.reason) == (ASKED.key, ASKED.run, ASKED.reason)


def test_a_run_that_never_began_took_no_time():
    found = outcome(ASKED, ran("failed", began=0.0, problem="x" * 5_000), "register")
    assert found.took_s == 0.0 and len(found.outcome) == 1_000


def test_what_was_not_promoted_says_why():
    promoted = outcome(ASKED, ran("succeeded", version="4"), "promote")
    found = stayed(promoted, "production is 9 by now")
    assert found.state == "registered" and found.version == 4
    assert found.outcome == "version 4 is registered and not promoted: production is 9 by now"
