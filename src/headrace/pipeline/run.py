"""One run of a pipeline, as it is recorded: enough to say where a version comes from."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from headrace.pipeline.gates import Verdict

#: In this order; the number of a step is its place, from 1.
STEPS = ("extract", "validate", "prepare", "train", "evaluate", "gate", "register")
#: "interrupted" is never written: it is a run whose process is gone.
STATES = ("waiting", "running", "interrupted", "succeeded", "refused", "failed")
ENDED = ("succeeded", "refused", "failed")


class Step(msgspec.Struct, omit_defaults=True):
    """One finished step. `output` is the digest of what it returned."""

    name: str
    began: float
    took_s: float
    output: str
    note: str = ""
    metrics: dict[str, float] = {}


class Code(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was run. `source` is a digest of the modules beside the pipeline's own; `commit` is ""
    outside of git, `dirty` where files that git knows, or the pipeline's own, are not committed."""

    source: str
    commit: str = ""
    dirty: bool = False


class Resumed(msgspec.Struct, frozen=True, omit_defaults=True):
    """The run went on at this step, with this code."""

    at: float
    step: str
    code: Code


class Run(msgspec.Struct, omit_defaults=True):
    """Times are Unix seconds."""

    id: str
    pipeline: str
    target: str
    folder: str
    model: str
    #: All parameters with their values, and those that were asked for.
    params: dict[str, Any]
    code: Code
    asked: dict[str, Any] = {}
    state: str = "waiting"
    created: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    #: Who runs it: see `process`.
    process: str = ""
    #: What runs now, or ran when it failed.
    step: str = ""
    steps: list[Step] = []
    #: The digest of what was extracted.
    data: str = ""
    metrics: dict[str, float] = {}
    verdicts: list[Verdict] = []
    #: What the model's `load` is given: name to digest.
    artifacts: dict[str, str] = {}
    version: str = ""
    problem: str = ""
    #: The end of the traceback of what failed.
    trace: str = ""
    resumed: list[Resumed] = []
    #: Who asked for it: "train" by hand, "trigger", "retrain", or the name of a schedule.
    asked_by: str = "train"

    def code_now(self) -> Code:
        """What it runs with since it last went on."""
        return self.resumed[-1].code if self.resumed else self.code

    def finished(self, name: str) -> Step | None:
        return next((step for step in self.steps if step.name == name), None)


def new_id(now: float | None = None) -> str:
    """`20261122-193201-4f2a`: sorts by time, in UTC."""
    moment = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    return f"{moment:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def id_of(key: str, target: str) -> str:
    """The run that an idempotency key stands for."""
    return "key-" + hashlib.sha256(f"{target}\0{key}".encode()).hexdigest()[:20]


def seen(run: Run) -> str:
    """Its state, as far as can be known here."""
    return "interrupted" if run.state == "running" and gone(run.process) else run.state


def process() -> str:
    """`host:pid:start`: a process that no other one is mistaken for."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start(os.getpid())}"


def gone(who: str) -> bool:
    """Is that process dead? Not where it is another machine's: we cannot know."""
    host, _, rest = who.partition(":")
    pid, _, start = rest.partition(":")
    return host == socket.gethostname() and pid.isdigit() and _start(int(pid)) != start


def _start(pid: int) -> str:
    """When it was started, in ticks since the machine was; "" where there is none, "0" where the
    kernel does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self").exists():
            return ""
        return "0" if _exists(pid) else ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
