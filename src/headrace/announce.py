"""What workers and gateways tell each other, once a second and whenever it changes.

    worker  --Announcement--> every gateway       "gateways"
    gateway --Outstanding---> every gateway       "gateways"
    worker  --Settled-------> every gateway       "gateways"
    clerk   --Backlog-------> every gateway       "gateways"
    deploy  --Route---------> every gateway       "gateways"
    gateway --Evidence------> deploy              "deploy"
    worker  --Evidence------> deploy              "deploy"      of stored jobs
    anybody --"look"--------> deploy              "deploy"
    gateway --"who"---------> every worker        "workers"
    gateway --Cancel--------> a model's workers   "workers.WORKLOAD"

No store is asked: a gateway knows the models by the workers that are alive now.
"""

from __future__ import annotations

import msgspec

from headrace.deployments import Route
from headrace.signature import Card

EVERY_S = 1.0
FRESH_S = 3.5  # not heard of for this long: gone
TO_GATEWAYS = "gateways"
TO_WORKERS = "workers"
TO_DEPLOY = "deploy"
LOOK = b"look"  # the registry may say something new
#: Upper bounds of the times of calls, in ms, that evidence is counted by: each 15 % above the one
#: before, from 0.1 ms to ten minutes. The metrics' are too coarse to tell a time from twice of it.
TIMES_MS = tuple(round(0.1 * 1.15**n, 4) for n in range(113))


def to_workers_of(workload: str) -> str:
    """The address of the workers of one model, or of one version: who is gone need not be
    answered."""
    return f"{TO_WORKERS}.{workload}"


class Announcement(msgspec.Struct, tag="worker"):
    """One worker's state. `fixed_ms` + n * `per_item_ms` is the time of a batch of n."""

    worker: str
    model: str
    ready: bool
    reason: str
    card: Card | None
    slots: int
    slots_ready: int
    busy: int
    in_hand: int
    waiting: int
    golden: bool
    fixed_ms: float
    per_item_ms: float
    max_size: int
    metrics_url: str = ""
    leaving: bool = False
    #: Of the registry that it runs; 0: the settings' own files.
    version: int = 0

    def per_second(self) -> float:
        """Items a second that this worker can answer in full batches; 0 where not known."""
        took_ms = self.fixed_ms + self.per_item_ms * self.max_size
        return self.slots_ready * self.max_size * 1000 / took_ms if took_ms else 0.0


class Outstanding(msgspec.Struct, tag="gateway"):
    """What a gateway waits for, and what came to it; at least once a second. By model."""

    gateway: str
    #: Also of each version of the registry that is served, by its workload.
    calls: dict[str, int]
    #: Since it started, never lowered: calls and stored jobs that a model was wanted for, also what
    #: was refused for want of capacity. A gateway that starts again has another name.
    arrived: dict[str, int] = {}
    #: Age of the oldest open call.
    oldest_s: dict[str, float] = {}
    #: The longest that a reply, of whatever model, was under way since this was last said.
    reply_lag_s: float = 0.0
    up_s: float = 0.0
    leaving: bool = False


class Settled(msgspec.Struct, tag="settled"):
    """These stored jobs have ended: who waits for one looks it up."""

    ids: list[str]


class Backlog(msgspec.Struct, tag="clerk"):
    """Stored jobs that wait, by model."""

    waiting: dict[str, int]


class Evidence(msgspec.Struct, tag="evidence"):
    """What became of the calls of one version at one gateway since that started: totals, so that a
    message that is lost loses nothing. Only while the route says `watched`."""

    gateway: str
    model: str
    version: int
    answered: int  # 2xx
    failed: int  # 5xx, but for refusals
    refused: int  # 4xx of the model; 503 and 504
    #: Answers by the upper bound of their time: of TIMES_MS.
    took_ms: dict[float, int]
    #: Of the last answers that were looked at: field of the prediction -> its values (numbers or
    #: text), at most 200 of each; the newest last.
    seen: dict[str, list[float | str]] = {}
    #: Of the shadow: calls whose answers were the same, were others, or did not come.
    same: int = 0
    other: int = 0
    missing: int = 0


News = Announcement | Outstanding | Settled | Backlog | Route

announcement_bytes = msgspec.msgpack.Encoder().encode
read_announcement = msgspec.msgpack.Decoder(News).decode

evidence_bytes = msgspec.msgpack.Encoder().encode
read_evidence = msgspec.msgpack.Decoder(Evidence).decode
