"""For all tests: in CI nothing is skipped in silence, and nobody is blamed for a stolen machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from _pytest.runner import runtestprotocol

#: A journey that failed while the host kept more of the processor than this is run again.
STOLEN = 0.2
TRIES = 3

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        _skipped.append(f"{report.nodeid}: {report.longrepr}")


def pytest_deselected(items: list[pytest.Item]) -> None:
    _skipped.extend(f"{item.nodeid}: deselected" for item in items)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if os.environ.get("CI") and _skipped and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("\nskipped, which fails in CI:\n" + "\n".join(_skipped))


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A test that sets up the logs does so for itself: its stderr is closed when it ends."""
    yield
    structlog.reset_defaults()


def processor_times() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal: ticks of all cores."""
    return [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Journeys hold real processes to bounds in seconds. On a shared machine the host may keep the
    processor for as long; a failure then says nothing, and one on a machine of our own stands."""
    if "journey" not in item.keywords:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for left in reversed(range(TRIES)):
        before = processor_times()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        spent = [now - then for now, then in zip(processor_times(), before, strict=True)]
        stolen = spent[7] / max(1, sum(spent))
        if not left or stolen < STOLEN or not any(report.failed for report in reports):
            break
        print(f"\n{item.nodeid}: failed with {stolen:.0%} of the processor stolen; run again")
        item._initrequest()  # fixtures of the test itself are made anew
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
