"""Which versions of a model are run, and who gets which. Words and arithmetic, no I/O.

    settings' own files        version 0    workload "wine"
    the registry's version 3   version 3    workload "wine@3"

A route is what a gateway follows: shares of the calls in hundredths of a per cent, a version that
is shown calls without answering them, and a revision that only grows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from zlib import crc32

import msgspec
from msgspec import Meta

WHOLE = 10_000  # all calls: a share is so many of them
_WORKLOAD = re.compile(r"([a-z0-9][a-z0-9_-]{0,62})(?:@([1-9]\d{0,8}))?")

PerCent = Annotated[float, Meta(gt=0, le=100)]
Seconds = Annotated[float, Meta(gt=0)]
Strategy = Literal["canary", "rolling", "blue-green", "shadow"]


def workload_of(model: str, version: int) -> str:
    """Also the name of its queue on the broker."""
    return f"{model}@{version}" if version else model


def parted(workload: str) -> tuple[str, int]:
    """Model and version. Raises ValueError."""
    found = _WORKLOAD.fullmatch(workload)
    if not found:
        raise ValueError(f"workload {workload[:100]!r}: expected MODEL or MODEL@VERSION")
    return found[1], int(found[2] or 0)


class Share(msgspec.Struct, frozen=True, array_like=True):
    """`of_whole`: of WHOLE calls."""

    version: int
    of_whole: int


class Route(msgspec.Struct, frozen=True, tag="route"):
    """Who gets the calls of one model. The shares sum up to WHOLE; the first one is of the version
    that also gets what a version without a ready worker would have got. Right after a change that
    is the old one, which gets no calls (0 of WHOLE) and stands by."""

    model: str
    revision: int
    shares: tuple[Share, ...]
    #: The version that is shown calls, 0: none; and so many of WHOLE of them.
    shadow: int = 0
    shadow_share: int = 0
    #: Of all versions that have a part in it: outcomes are counted and told of (`Evidence`).
    watched: bool = False

    @property
    def stable(self) -> int:
        return self.shares[0].version

    @property
    def most(self) -> int:
        """The version that has most calls."""
        return max(self.shares, key=lambda share: share.of_whole).version


def bucket(model: str, key: bytes) -> int:
    """0 to WHOLE - 1: always the same for the same caller of a model, whatever is rolled out, so
    that a share that grows keeps whom it has."""
    return crc32(model.encode() + b"\0" + key) % WHOLE


def place_of(job_id: str) -> int:
    """A stored job's bucket (`records.new_job_id`); of an id that says none, as releases before
    made them, one that is always the same."""
    return int(job_id[-4:], 16) % WHOLE


def pick(shares: Sequence[Share], place: int) -> int:
    """The version of who has that bucket. The newest versions come first: they grow from 0 up."""
    for share in sorted(shares, key=lambda each: -each.version):
        if place < share.of_whole:
            return share.version
        place -= share.of_whole
    return shares[0].version


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A version that was decided to be run, or was."""

    model: str
    version: int
    #: Of the registry's version; "" of the settings' own files.
    digest: str = ""
    #: Of WHOLE calls.
    share: int = 0
    #: kept: it gets no calls, and runs on `until` (None: until its rollout is over).
    state: Literal["starting", "serving", "kept", "retired"] = "starting"
    #: Unix time of its state.
    since: float
    until: float | None = None
    #: Workers that were last asked for.
    count: int = 0


#: starting     workers of the new version start; it gets no calls
#: stepping     its share grows; of a shadow: it is shown calls
#: promoting    it is brought to full strength before it gets all
#: keeping      it has all, and the old version stands by
#: done, rolled-back (a gate, its workers, or a person), stopped (it is no longer wanted): over
RolloutState = Literal[
    "starting", "stepping", "promoting", "keeping", "done", "rolled-back", "stopped"
]


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """From one version of a model to another. Times are Unix seconds."""

    id: str
    model: str
    from_version: int
    to_version: int
    #: Of `to_version`: what was meant, byte for byte.
    digest: str = ""
    strategy: Strategy
    state: RolloutState = "starting"
    #: The share that it has, as a place in Deploy.steps; workers that are ready, where rolling.
    step: int = 0
    paused: bool = False
    #: Grows with each change: of two who change it one is refused.
    revision: int = 0
    #: Who started it: "headrace", as the alias was moved, or a person.
    author: str
    reason: str
    started: float
    updated: float
    #: When the present step, or state, began.
    since: float
    ended: float | None = None
    #: Why it stands as it does: one sentence.
    why: str = ""
    #: What the gates saw last, by their names (`Verdict`).
    figures: dict[str, Any] = {}
    #: What the alias named when it started; None: nothing.
    named: int | None = None
    #: Rolled back: not tried again until the alias was moved away, or a person starts it.
    barred: bool = False

    @property
    def is_open(self) -> bool:
        return self.ended is None

    @property
    def is_shared_out(self) -> bool:
        """Deploy asks for the workers of both versions, out of one number."""
        return self.strategy == "rolling" and self.state in ("starting", "stepping", "promoting")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate says of a new version.

    good; bad: sure, and it is rolled back; doubtful: worse than allowed, which may be chance; few:
    too few calls to say."""

    gate: str  # errors, refusals, latency or predictions
    verdict: Literal["good", "bad", "doubtful", "few"]
    new: float | None = None
    stable: float | None = None
    #: Of the new version's figure: what is allowed.
    limit: float | None = None
    new_calls: int = 0
    stable_calls: int = 0
    #: One sentence.
    text: str = ""


class _Written(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """By a person, in a file."""


class Gates(_Written, frozen=True, kw_only=True):
    """What a new version must not do, compared with the version in production over the same time.
    One that does is rolled back at once."""

    #: Calls of each version before anything is judged.
    least_calls: Annotated[int, Meta(ge=1)] = 50
    #: Share of calls that fail (5xx), above that of production.
    errors_above: Annotated[float, Meta(ge=0, le=1)] = 0.02
    #: Share of calls that are refused (4xx of the model, 503), above that of production.
    refusals_above: Annotated[float, Meta(ge=0, le=1)] = 0.05
    #: p95 in times of production's ...
    latency_times: Annotated[float, Meta(ge=1)] = 1.5
    #: ... where it is also so much above it.
    latency_above_ms: Annotated[float, Meta(ge=0)] = 20.0
    #: Greatest distance of the distributions of predictions, 0 to 1 (Kolmogorov-Smirnov, beyond
    #: what chance makes of so few); None: not judged.
    predictions: Annotated[float, Meta(gt=0, le=1)] | None = 0.3


class Deploy(_Written, frozen=True, kw_only=True):
    """How versions of one model come from the registry to its callers."""

    #: The version that this alias names is served. Until it names one: the settings' own files.
    alias: str = "production"
    strategy: Strategy = "canary"
    #: Canary: per cent of the calls, step by step, before it gets all.
    steps: tuple[PerCent, ...] = (5.0, 25.0, 50.0)
    #: Each step is watched for so long, at least.
    hold_s: Seconds = 30.0
    #: ... and, where too few calls come to judge, at most; it then goes on unless `strict`.
    wait_s: Seconds = 300.0
    #: Too few calls to judge: rolled back, and not gone on with.
    strict: bool = False
    #: Workers of the new version are ready in this time, or it is rolled back.
    ready_s: Seconds = 300.0
    #: The old version is kept running after the new one got all, for a way back at once.
    keep_s: Annotated[float, Meta(ge=0)] = 60.0
    #: Shadow: per cent of the calls that it is shown.
    shadow: PerCent = 10.0
    #: A version that was rolled back loses the alias again, in the name of headrace.
    alias_back: bool = True
    gates: Gates = Gates()
