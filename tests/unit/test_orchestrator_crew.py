"""Who works for which model, and who was told to go: with processes that do as the test says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.errors import Conflict, Invalid, NotFound, Unavailable
from headrace.orchestrator.crew import MOST, Crew


class Process:
    """Ends when the test says so, or by SIGKILL."""

    def __init__(self) -> None:
        self.returncode: int | None = None
        self.signals: list[str] = []

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.signals.append("term")

    def kill(self) -> None:
        self.signals.append("kill")
        self.returncode = -9

    def wait(self) -> int:
        assert self.returncode is not None
        return self.returncode


class Fake:
    def __init__(self, name: str) -> None:
        self.name, self.process = name, None

    def start(self) -> None:
        self.process: Any = Process()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def leave(self) -> None:
        self.process.returncode = 0


def crew(grace_s: float = 10.0) -> Crew[Fake]:
    return Crew(["m", "n"], lambda model, number: Fake(f"{model}-{number}"), grace_s)  # type: ignore[arg-type]


def names(members: list[Fake]) -> list[str]:
    return [member.name for member in members]


async def gone(ours: Crew[Fake]) -> None:
    async with asyncio.timeout(5):
        while ours.leaving:
            await asyncio.sleep(0.001)


async def test_the_newest_go_and_numbers_come_back_lowest_first() -> None:
    ours = crew()
    ours.scale("m", 3, "")
    ours.scale("n", 1, "")
    assert names(ours.members) == ["m-0", "m-1", "m-2", "n-0"]
    ours.scale("m", 1, "")
    assert names(ours.members) == ["m-0", "n-0"]
    assert names(ours.leaving) == ["m-2", "m-1"]
    ours.scale("m", 2, "")
    assert names(ours.members) == ["m-0", "m-3", "n-0"], "1 and 2 are still there"
    for member in ours.leaving:
        member.leave()
    await gone(ours)
    ours.scale("m", 3, "")
    assert names(ours.members) == ["m-0", "m-3", "m-1", "n-0"]
    ours.scale("m", 2, "")
    assert names(ours.leaving) == ["m-1"], "the newest, not the highest"
    for member in (*ours.members, *ours.leaving):
        member.leave()
    await ours.close()


async def test_who_is_told_to_go_gets_a_grace() -> None:
    ours = crew(grace_s=0.02)
    ours.scale("m", 1, "")
    [member] = ours.members
    ours.scale("m", 0, "")
    await asyncio.sleep(0)
    assert member.process.signals == ["term"]
    await gone(ours)
    assert member.process.signals == ["term", "kill"]


async def test_what_is_there() -> None:
    ours = crew()
    ours.scale("m", 2, "")
    ours.members[0].leave()  # it died, and will be started again
    status = ours.status("m")
    assert (status.desired, status.running, status.ready, status.moving) == (2, 1, None, False)
    ours.scale("m", 1, "")
    assert ours.status("m").desired == 1 and ours.status("m").running == 0
    await end(ours)


async def end(ours: Crew[Fake]) -> None:
    await ours.close(hurry=lambda: True)


async def test_tokens_are_of_one_model_and_one_house() -> None:
    ours, earlier = crew(), crew()
    for each in (ours, earlier):
        each.scale("m", 1, "")
    seen = ours.status("m").token
    ours.scale("n", 1, "another model's")
    ours.scale("m", 1, "no change")
    ours.note("m", "no change")
    ours.scale("m", 2, "", seen)
    with pytest.raises(Conflict):
        ours.scale("m", 3, "", seen)
    with pytest.raises(Conflict):
        ours.scale("m", 3, "", earlier.status("m").token)
    ours.scale("m", 3, "whatever happened")
    assert ours.status("m").desired == 3
    await end(ours)
    await end(earlier)


async def test_refused() -> None:
    ours = crew()
    ours.scale("m", 1, "")
    for count in (-1, MOST + 1):
        with pytest.raises(Invalid, match=f"expected 0 to {MOST}"):
            ours.scale("m", count, "")
    with pytest.raises(NotFound, match="expected one of m, n"):
        ours.scale("x", 1, "")
    with pytest.raises(NotFound):
        ours.status("x")
    with pytest.raises(NotFound):
        ours.note("x", "")
    assert ours.status("m").desired == 1
    await end(ours)


async def test_the_end() -> None:
    """All go, those that were told before included; nobody comes any more."""
    ours = crew()
    ours.scale("m", 3, "")
    ours.scale("m", 2, "")
    everybody = [*ours.members, *ours.leaving]
    closing = asyncio.create_task(ours.close())
    await asyncio.sleep(0.01)
    assert [member.process.signals for member in everybody] == [["term"]] * 3
    with pytest.raises(Unavailable, match="closing"):
        ours.scale("m", 1, "")
    assert not closing.done()
    for member in everybody:
        member.leave()
    await asyncio.wait_for(closing, 5)
    assert ours.members == ours.leaving == []


async def test_a_hurry_ends_the_grace_of_all() -> None:
    ours, hurry = crew(), False
    ours.scale("m", 2, "")
    ours.scale("m", 1, "")
    everybody = [*ours.members, *ours.leaving]
    closing = asyncio.create_task(ours.close(lambda: hurry))
    await asyncio.sleep(0.01)
    assert not closing.done()
    hurry = True
    await asyncio.wait_for(closing, 5)
    assert [member.process.signals for member in everybody] == [["term", "kill"]] * 2


async def test_who_cannot_be_started_is_left_to_the_watcher() -> None:
    class Unable(Fake):
        def start(self) -> None:
            raise OSError("no more processes")

    ours = Crew(["m"], lambda model, number: Unable(f"{model}-{number}"), 1.0)  # type: ignore[arg-type]
    ours.scale("m", 2, "")
    assert len(ours.members) == 2 and ours.status("m").running == 0
    ours.scale("m", 0, "")
    await gone(ours)


async def test_versions_of_a_model_are_workloads_of_their_own() -> None:
    ours = crew()
    ours.scale("m", 1, "")
    assert ours.status("m@3").desired == 0, "never started"
    ours.scale("m@3", 2, "")
    assert names(ours.members) == ["m-0", "m@3-0", "m@3-1"]
    assert (ours.status("m").desired, ours.status("m@3").desired) == (1, 2)
    seen = ours.status("m@3").token
    ours.scale("m@3", 0, "")
    assert names(ours.members) == ["m-0"]
    assert len(ours.leaving) == 2
    assert ours.status("m@3").desired == 0
    with pytest.raises(Conflict):
        ours.scale("m@3", 1, "", seen)
    ours.scale("m@3", 1, "")
    assert names(ours.members) == ["m-0", "m@3-2"], "0 and 1 are still there"
    for wrong in ("x@3", "m@0", "m@", "m@3@4"):
        with pytest.raises(NotFound, match="expected one of m, n"):
            ours.scale(wrong, 1, "")
    await end(ours)
