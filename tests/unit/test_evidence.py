"""What a gateway tells deploy of a version's calls; what it sees of a shadow's."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from headrace.announce import TIMES_MS, evidence_bytes, read_evidence
from headrace.errors import DeadlineExceeded, Problem, Unavailable
from headrace.gateway import evidence
from headrace.gateway.evidence import SEEN_MOST, Witness, Witnesses, fields_of
from headrace.gateway.shadow import MOST, Shadows
from headrace.gateway.snapshot import ModelView
from headrace.jobs import Outcome, Returned
from headrace.telemetry.metrics import GatewayMetrics


def outcome(body: bytes = b"1", problem: Problem | None = None) -> Outcome:
    return Outcome(1, 0.0, 0.0, 0.0, body, problem)


def test_outcomes_are_counted_by_what_they_say_of_the_version() -> None:
    witness = Witness("wine@3")
    for took_ms in (0.0, 9.9, 10.1, 1e9):
        witness.note(outcome(), took_ms)
    witness.note(outcome(problem=Problem(500, "model-failed", "")), 5.0)
    witness.note(outcome(problem=Problem(422, "poison-input", "")), 5.0)
    witness.note(outcome(problem=Problem(422, "odd", "")), 5.0)
    witness.note(Unavailable("", code="overloaded"), 0.0)
    witness.note(DeadlineExceeded(""), 0.0)
    said = read_evidence(evidence_bytes(witness.evidence("here")))
    assert (said.gateway, said.model, said.version) == ("here", "wine", 3)
    assert (said.answered, said.failed, said.refused) == (4, 2, 3)
    assert sum(said.took_ms.values()) == 4
    assert set(said.took_ms) <= set(TIMES_MS)
    assert said.took_ms[TIMES_MS[-1]] == said.took_ms[TIMES_MS[0]] == 1


def test_predictions_are_sampled_and_bounded(monkeypatch: Any) -> None:
    witness = Witness("wine")
    for _ in range(3):
        witness.note(outcome(), 1.0, b'{"score": 0.5}')
    assert witness.evidence("here").seen == {"score": [0.5]}, "20 a second are enough"
    monkeypatch.setattr(evidence, "SAMPLE_EVERY_S", -1.0)
    witness._again_at = 0.0
    for number in range(SEEN_MOST + 5):
        witness.note(outcome(), 1.0, b'{"score": %d}' % number)
    seen = witness.evidence("here").seen["score"]
    assert len(seen) == SEEN_MOST and seen[-1] == SEEN_MOST + 4
    witness.note(outcome(), 1.0, b'["' + b"x" * 100_000 + b'"]')
    for number in range(100):
        witness.note(outcome(), 1.0, b'{"f%d": 1}' % number)
    assert len(witness.evidence("here").seen) == evidence.FIELDS_MOST


def test_fields() -> None:
    assert fields_of(2) == {"": 2.0}
    assert fields_of([1, 2]) == {}
    value = {"a": 1, "b": True, "c": "x" * 200, "d": {"e": 2.5, "f": {"g": 1}}, "h": [1], "i": None}
    assert fields_of(value) == {"a": 1.0, "b": "true", "c": "x" * 100, "d.e": 2.5}


# -- the shadow ------------------------------------------------------------------------------------


class FakeDispatch:
    def __init__(self) -> None:
        self.waiting: dict[int, Any] = {}
        self.started: list[tuple[str, Any]] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def start(self, workload: str, request_id: str, body: bytes, **more: Any) -> int:
        self.started.append((workload, more["on_outcome"]))
        return len(self.started)


class Stage:
    def __init__(self) -> None:
        self.dispatch, self.metrics, self.witnesses = FakeDispatch(), GatewayMetrics(), Witnesses()
        self.shadows = Shadows(lambda: self.dispatch, self.metrics, self.witnesses)  # type: ignore[arg-type,return-value]
        self.view = ModelView("wine", 4)
        self.view.ready = True
        self.told: list[Any] = []

    def pair(self) -> Any:
        return self.shadows.pair(self.view, lambda *said: self.told.append(said))

    async def opened(self) -> Stage:
        assert self.pair() is None, "it is being opened"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self

    def show(self) -> tuple[Any, Any]:
        pair = self.pair()
        self.shadows.show(pair, "r", b"x", time.time() + 9)
        assert self.dispatch.started[-1][0] == "wine@4"
        return pair, self.dispatch.started[-1][1]

    def counted(self, how: str) -> int:
        return int(self.metrics.shadow.values.get(("wine", how), 0))


RETURNED = Returned("wine@3", "3", "w", 0.0, [])


async def test_answers_are_compared_whichever_comes_first() -> None:
    stage = await Stage().opened()
    pair, shown = stage.show()
    pair.real(outcome(b'{"a": 1.0}'), RETURNED)
    assert len(stage.told) == 1, "the caller does not wait for the shadow"
    shown(outcome(b'{"a":1.0004}'), None)
    pair, shown = stage.show()
    shown(outcome(b'{"a": 2.0}'), None)
    assert len(stage.told) == 1
    pair.real(outcome(b'{"a": 1.0}'), RETURNED, b"hit")
    assert stage.told[1] == (outcome(b'{"a": 1.0}'), RETURNED, b"hit")
    pair, shown = stage.show()
    pair.real(outcome(b"1"), RETURNED)
    shown(DeadlineExceeded(""), None)
    assert [stage.counted(how) for how in ("same", "other", "missing")] == [1, 1, 1]
    said = stage.witnesses.of("wine@4").evidence("here")
    assert (said.same, said.other, said.missing, said.answered, said.refused) == (1, 1, 1, 2, 1)


async def test_a_call_that_failed_is_no_measure() -> None:
    stage = await Stage().opened()
    pair, shown = stage.show()
    pair.real(Unavailable("", code="overloaded"), None)
    shown(outcome(), None)
    assert [stage.counted(how) for how in ("same", "other", "missing")] == [0, 0, 0]


async def test_what_is_too_much_is_not_shown() -> None:
    stage = await Stage().opened()
    before = stage.counted("dropped")
    stage.view.ready = False
    assert stage.pair() is None
    stage.view.ready = True
    stage.dispatch.waiting = dict.fromkeys(range(MOST))
    assert stage.pair() is None
    assert stage.counted("dropped") == before + 2
    await stage.shadows.close()


async def test_what_a_shadow_answers_cannot_hurt() -> None:
    """Outcomes come many in a message: those behind this one are other callers'."""
    stage = await Stage().opened()
    deep = [b"[" * 500 + b"%d" % number + b"]" * 500 for number in (1, 2)]
    for real, answer in ((deep[0], deep[1]), (b"1", b"no JSON at all")):
        pair, shown = stage.show()
        pair.real(outcome(real), RETURNED)
        shown(outcome(answer), None)
    large = b'"' + b"x" * evidence.LARGEST + b'"'
    for answer in (large, large.replace(b"x", b"y")):
        pair, shown = stage.show()
        pair.real(outcome(large), RETURNED)
        shown(outcome(answer), None)
    assert (stage.counted("same"), stage.counted("other")) == (1, 0)
    assert len(stage.told) == 4
    await stage.shadows.close()


async def test_a_broker_that_is_away_at_first_is_asked_again() -> None:
    stage = Stage()

    async def away() -> None:
        raise Unavailable("away")

    stage.dispatch.open = away  # type: ignore[method-assign]
    assert stage.pair() is None
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del stage.dispatch.open
    await stage.opened()
    assert stage.pair() is not None
    await stage.shadows.close()
