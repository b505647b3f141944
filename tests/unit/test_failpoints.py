"""Failpoints act where they are armed, at the passing they are armed for."""

import subprocess
import sys

import pytest

from headrace.failpoints import _parse


def run(armed):
    code = (
        "from headrace.failpoints import failpoint\n"
        "for i in range(4): failpoint('worker.taken'); print(i)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], env={"HEADRACE_FAILPOINTS": armed}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def test_it_kills_at_the_third_passing():
    ended = run("worker.taken=kill@3")
    assert ended.returncode == -9


def test_unarmed_it_does_nothing():
    assert run("").stdout.split() == ["0", "1", "2", "3"]


@pytest.mark.parametrize("text", ["nowhere=kill", "worker.taken=dance", "worker.taken"])
def test_a_wrong_one_is_an_error(text):
    with pytest.raises(ValueError, match="HEADRACE_FAILPOINTS"):
        _parse(text)
