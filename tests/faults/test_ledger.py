"""The ledger outlives who writes it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from headrace.testing.house import alive

from .ledger import Ledger, read_ledger

CLIENT = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from faults.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]))
for number in range(5000):
    ledger.enter("attempt", key=f"r.{{number}}")
print(ledger.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_entered_is_read_again_in_order(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.enter("attempt", key="r.1")
        ledger.enter("acked", key="r.1", id="a", at=7.5, since=7.0)
        ledger.enter("ok", id="a", state="succeeded", result={"number": 1})
        sha256 = ledger.close()
    events = read_ledger(path)
    assert [event.event for event in events] == ["attempt", "acked", "ok"]
    assert (events[1].at, events[1].took_s) == (7.5, 0.5)
    assert events[2].result == {"number": 1}
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_second_ledger_appends(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for key in ("r.1", "r.2"):
        with Ledger(path) as ledger:
            ledger.enter("attempt", key=key)
    assert [event.key for event in read_ledger(path)] == ["r.1", "r.2"]


def test_signals_do_not_end_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.enter("attempt", key="r.1")
        while not path.exists():
            assert alive(ledger.pid)
        for how in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(ledger.pid, how)
        ledger.enter("attempt", key="r.2")
    assert len(read_ledger(path)) == 2


def test_a_client_killed_at_once_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    script = CLIENT.format(folder=str(Path(__file__).parents[1]))
    client = subprocess.run(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, check=False
    )
    assert client.returncode == -signal.SIGKILL
    while alive(int(client.stdout)):
        pass  # it reads to the end of the pipe
    assert [event.key for event in read_ledger(path)] == [f"r.{n}" for n in range(5000)]
