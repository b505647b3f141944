"""What `headrace profile` measured of one model on one type of node: a JSON file, read by
`headrace plan`.

A try is one packing with one batch size. Of each packing the plan takes the try that carries most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace.policy import Positive

#: Of the most that was found: what is as near is as good, and the smaller one is taken.
NEAR = 0.95

Known = Annotated[float, Meta(ge=0)]


class BadProfile(ValueError):
    """The file is none of ours: the message names it, and what was expected."""


class _Measured(msgspec.Struct, frozen=True, kw_only=True):
    """By a machine, in a file. Fields that a later version adds are ignored."""


class Point(_Measured, frozen=True, kw_only=True):
    """One window of load, at a constant rate of calls a second."""

    rate: Positive
    seconds: Positive
    calls: int
    answered: int
    p50_s: float | None  # None: that share was not answered
    p95_s: float | None
    #: Mean size of a batch.
    batch: float
    #: Calls a second are kept up with; else why not.
    sustained: bool
    why: str = ""
    #: Share of the machine that others had, that nobody could have (steal), and of one core that
    #: the load's own process took.
    stolen: float = 0.0
    driver_busy: float = 0.0


class Try(_Measured, frozen=True, kw_only=True):
    """k model processes on the node, with batches of at most `max_size`."""

    workers: Annotated[int, Meta(ge=1)]
    max_size: Annotated[int, Meta(ge=1)]
    #: T(k): the greatest rate that was sustained inside the promise, calls a second; 0: none was.
    per_second: Known
    #: What came in between: it did not start, or nothing above was tried.
    why: str = ""
    #: A second window of that rate went well, too.
    confirmed: bool = False
    #: p95(k): of whole calls at that rate, from when they were due.
    latency_p95_s: Known = 0.0
    #: At that rate: time of a model process that a call takes (of a batch, its share), how much
    #: that of a batch varies, and the p95 of what a call takes beside waiting for its turn.
    service_s: Known = 0.0
    service_cv2: Known = 0.0
    p95_s: Known = 0.0
    batch: Known = 0.0
    #: A batch of n takes fixed_ms + n * per_item_ms, with nothing else to do.
    fixed_ms: Known = 0.0
    per_item_ms: Known = 0.0
    #: Worker and model processes; on the accelerator.
    memory_mb: Known = 0.0
    gpu_mb: Known = 0.0
    #: From starting the worker to its first answer, each time.
    start_s: tuple[float, ...] = ()
    windows: tuple[Point, ...] = ()


class Use(_Measured, frozen=True, kw_only=True):
    """The try to use, and why."""

    workers: int
    max_size: int
    why: str


class Profile(_Measured, frozen=True, kw_only=True):
    model: str
    version: str
    node: str
    gpu: bool
    devices: int
    cores: int
    slo_s: Positive
    #: poisson or steady.
    arrivals: str
    made: str
    #: Processes a core that wanted to run in the minute before.
    load_before: Known = 0.0
    price_hour: Positive | None = None
    tries: Annotated[tuple[Try, ...], Meta(min_length=1)]
    use: Use | None = None

    @property
    def start_s(self) -> float:
        """L: the longest that a start took; 0 where none was timed."""
        return max((took for one in self.tries for took in one.start_s), default=0.0)

    def packings(self) -> list[Try]:
        """Of each k the try to use, where there is one; by k."""
        found = (best([one for one in self.tries if one.workers == k]) for k in self.ks())
        return [one for one in found if one]

    def ks(self) -> list[int]:
        return sorted({one.workers for one in self.tries})


def best(tries: list[Try]) -> Try | None:
    """The one with the fewest processes, then the smallest batches, of those that carry near the
    most; None where nothing was sustained."""
    most = max((one.per_second for one in tries), default=0.0)
    if not most:
        return None
    near = [one for one in tries if one.per_second >= NEAR * most]
    return min(near, key=lambda one: (one.workers, one.max_size))


def read(path: Path) -> Profile:
    """Raises BadProfile, OSError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Profile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadProfile(f"{path}: no profile of `headrace profile`: {error}") from None


def write(profile: Profile, path: Path) -> None:
    """Whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n")
    beside.replace(path)


def toml(profile: Profile) -> str:
    """The lines of the settings file that the autoscaler sizes by; "" where there are none."""
    used = profile.use and best(
        [one for one in profile.tries if one.workers == profile.use.workers]
    )
    if not used:
        return ""
    model = profile.model
    return (
        f"[models.{model}]\n"
        f"slots = {used.workers}\n"
        f"max_size = {used.max_size}\n\n"
        f"[models.{model}.scale.node]\n"
        f"workers = {used.workers}\n"
        f"service_s = {used.service_s:.6g}\n"
        f"service_cv2 = {used.service_cv2:.3g}\n"
        f"per_second = {used.per_second:.6g}\n\n"
        f"[models.{model}.scale.target]\n"
        f"slo_s = {profile.slo_s:g}\n"
        f"service_p95_s = {used.p95_s:.4g}\n"
    )
