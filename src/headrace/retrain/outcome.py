"""What came of a run: its record -> what is written of the training, in words. Pure."""

from __future__ import annotations

import msgspec

from headrace.pipeline.run import Run
from headrace.retraining import Then, Training

MOST_TEXT = 1_000


def outcome(training: Training, run: Run, then: Then) -> Training:
    """`run` has ended. Where its version is to be promoted, state and words say so: that it is done
    is whoever calls's."""
    version = int(run.version) if run.version.isdigit() else 0
    state, said = "registered", f"version {version} is registered"
    if run.state == "failed":
        state, said = "failed", f"{run.step or 'the run'} failed: {run.problem}"
    elif run.state == "refused":
        shut = "; ".join(verdict.why for verdict in run.verdicts if not verdict.passed)
        state, said = "out", f"it stays out: {shut}"
    elif version == training.before:
        said = f"nothing new: the same files as version {version} in production"
    elif then == "promote":
        state, said = "promoted", f"version {version} goes to production"
    return msgspec.structs.replace(
        training,
        state=state,
        ended=run.ended,
        took_s=round(max(0.0, run.ended - run.began), 3) if run.began else 0.0,
        version=version,
        outcome=_short(said),
    )


def stayed(training: Training, why: str) -> Training:
    """It was to be promoted, and was not."""
    said = f"version {training.version} is registered and not promoted: {why}"
    return msgspec.structs.replace(training, state="registered", outcome=_short(said))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_TEXT else f"{line[: MOST_TEXT - 4]} ..."
