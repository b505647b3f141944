"""For all tests: in CI nothing is skipped in silence."""

import os
from collections.abc import Iterator

import pytest
import structlog

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        _skipped.append(f"{report.nodeid}: {report.longrepr}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if os.environ.get("CI") and _skipped and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("\nskipped, which fails in CI:\n" + "\n".join(_skipped))


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A test that sets up the logs does so for itself: its stderr is closed when it ends."""
    yield
    structlog.reset_defaults()
