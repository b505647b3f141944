"""What deploy asks of an orchestrator: counts, and workloads for versions while they are run."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from headrace.deploy import apply
from headrace.deploy.apply import Apply
from headrace.orchestrator import refusals
from headrace.orchestrator.port import Status


class Hands:
    """`counts`: of the workloads that there are. `no`: what is raised next, again and again."""

    def __init__(self, **counts: int) -> None:
        self.counts = counts
        self.no: Exception | None = None
        self.said: list[str] = []

    async def status(self, workload: str) -> Status:
        self._find(workload)
        count = self.counts[workload]
        return Status(count, count, None, False, "")

    async def scale(self, workload: str, count: int, reason: str) -> None:
        self._find(workload)
        self._do("scale", workload, count)

    async def create(self, workload: str, count: int, reason: str) -> None:
        self._do("create", workload, count)

    async def remove(self, workload: str, reason: str) -> None:
        self._do("remove", workload, 0)
        self.counts.pop(workload, None)

    def _find(self, workload: str) -> None:
        if workload not in self.counts:
            raise refusals.unknown(f"no workload {workload!r}")

    def _do(self, verb: str, workload: str, count: int) -> None:
        self.said.append(f"{verb} {workload} {count}")
        if self.no:
            raise self.no
        self.counts[workload] = count


def applied(hands: Any) -> Apply:
    return Apply("wine", hands)


async def test_a_version_is_made_with_its_first_worker_and_removed_in_the_end() -> None:
    hands = Hands(wine=2)
    ours = applied(hands)
    assert await ours.count(3) == 0
    assert await ours.to(3, 1, "x") and await ours.to(3, 2, "x") and await ours.to(3, 2, "x")
    assert hands.said == ["create wine@3 1", "scale wine@3 2"]
    assert await ours.retire(3, "x")
    assert hands.counts == {"wine": 2}
    assert await ours.count(3) == 0


async def test_what_versions_are_made_like_stays() -> None:
    hands = Hands(wine=2)
    assert await applied(hands).retire(0, "x")
    assert hands.said == ["scale wine 0"]
    assert await applied(hands).to(0, 2, "x")


async def test_nothing_is_made_to_have_nobody() -> None:
    hands = Hands()
    assert await applied(hands).to(3, 0, "x")
    assert not await applied(hands).to(0, 1, "x"), "that one people make"
    assert hands.said == []


@pytest.mark.parametrize("verb", ["to", "retire"])
async def test_what_cannot_be_done_is_said_once_and_tried_again(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "BELIEVED_S", 0.0)
    hands = Hands()
    ours = applied(hands)
    with capture_logs() as logs:
        for no in (refusals.not_copied("no --model"), refusals.unreachable("away"), KeyError("x")):
            hands.no = no
            for _ in range(2):
                asked = ours.to(3, 1, "x") if verb == "to" else ours.retire(3, "x")
                assert not await asked
    warned = [entry["reason"] for entry in logs if entry["log_level"] == "warning"]
    assert warned == ["no --model", "away", "KeyError"]
    hands.no = None
    assert await (ours.to(3, 1, "x") if verb == "to" else ours.retire(3, "x"))


async def test_without_an_orchestrator_people_see_to_it() -> None:
    ours = applied(None)
    assert await ours.count(3) is None
    assert await ours.retire(3, "x") and await ours.retire(0, "x")
    assert not await ours.to(3, 1, "x")
