"""What several processes write to one stderr stays apart: a line is one write."""

import io
import json
import sys

import pytest
import structlog

from headrace.telemetry import logs


class Raw(io.RawIOBase):
    def __init__(self):
        self.writes = []

    def writable(self):
        return True

    def write(self, data):
        self.writes.append(bytes(data))
        return len(data)


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_line_is_one_write(monkeypatch, buffered, size):
    raw = Raw()
    if buffered:
        stderr = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", line_buffering=True)
    else:  # as with PYTHONUNBUFFERED
        stderr = io.TextIOWrapper(raw, "utf-8", write_through=True)
    monkeypatch.setattr(sys, "stderr", stderr)
    before = structlog.get_config()
    try:
        logs.set_up("clerk")
        structlog.get_logger("x").warning("said", text="ü" * size)
    finally:
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()
    [line] = raw.writes
    assert line.endswith(b"\n") and json.loads(line)["text"] == "ü" * size
