"""What the machine says, and how the sizes of batches are known."""

import os
from pathlib import Path

import msgspec
import pytest

from headrace.profiling import machine
from headrace.profiling.probe import _Answer, batches


def test_memory_of_this_process_and_its_family():
    assert os.getpid() in machine.family(os.getpid())
    assert 5 < machine.memory_mb([os.getpid()]) < 10_000
    assert machine.memory_mb([2**22 + 1]) == 0.0


def test_ticks_go_on_and_a_share_is_a_share():
    before = machine.ticks()
    assert before.all > 0 and 0 <= machine.stolen(before) <= 1


def test_memory_of_all_accelerators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpu_mb() == 0.0  # no nvidia-smi
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 1000\necho 500\n")
    program.chmod(0o755)
    assert machine.gpu_mb() == pytest.approx(1500 * 1.048576)
    program.write_text("#!/bin/sh\necho no devices\n")
    assert machine.gpu_mb() == 0.0


def test_jobs_of_one_time_ran_together():
    said = (
        b'{"results":[{"timings":{"executed_ms":3.25}},{"timings":{"executed_ms":3.25}},'
        b'{"timings":{"executed_ms":1.5}},{"status":422}],"model":"m"}'
    )
    found = msgspec.json.decode(said, type=_Answer)
    assert sorted(batches(found, 2)) == [(1, 1.5), (2, 3.25)]
    assert batches(found, 1) == [(1, 1.5)]  # two batches that took the same
