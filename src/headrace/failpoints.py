"""Named places where a test may have this process die or stop, mid-way.

    HEADRACE_FAILPOINTS="worker.taken=kill@3,child.executing=stop@10"

kills the process with SIGKILL at the third passing of `worker.taken`, and stops it (SIGSTOP) at the
tenth of `child.executing`. Without the variable a failpoint costs one look at an empty dict.
"""

from __future__ import annotations

import os
import signal

NAMES = (
    "worker.taken", "worker.claimed", "worker.executing", "worker.replied", "worker.finishing",
    "worker.finished", "child.executing", "gateway.submitting", "gateway.submitted",
    "gateway.published", "clerk.looked", "clerk.published",
    "pipeline.stepped",
)  # fmt: skip
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def _parse(text: str) -> dict[str, tuple[signal.Signals, int]]:
    armed = {}
    for entry in filter(None, text.split(",")):
        name, _, act = entry.partition("=")
        kind, _, passing = act.partition("@")
        if name not in NAMES or kind not in _SIGNALS:
            raise ValueError(f"HEADRACE_FAILPOINTS {entry!r}: expected NAME=kill|stop[@N]")
        armed[name] = (_SIGNALS[kind], int(passing or 1))
    return armed


_armed = _parse(os.environ.get("HEADRACE_FAILPOINTS", ""))
_passed: dict[str, int] = {}


def armed(name: str) -> bool:
    """For a place that a plain call cannot mark: where something must happen first."""
    return name in _armed


def failpoint(name: str) -> None:
    if not _armed or name not in _armed:
        return
    _passed[name] = _passed.get(name, 0) + 1
    kind, passing = _armed[name]
    if _passed[name] == passing:
        os.kill(os.getpid(), kind)
