"""The broker: a central queue of jobs for each model, and a way to send a message to an address.

What an adapter promises (the exam in `testing.broker_exam` checks it):
- a published job is taken by one worker at a time; it stays on the broker until acked;
- a job not acked, held or given back within `ack_wait_s` is delivered again, its attempt counted;
- the queue has a bound: a job beyond it is refused, never dropped in silence (what was already on
  its way when the bound was reached may still be taken);
- jobs are pulled: a worker gets only what it asked for, so that the queue is central;
- `send` reaches everybody who listens at the address now, and nobody later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from headrace.errors import Refusal

OnRefused = Callable[[Refusal], None]
OnMessage = Callable[[bytes], None]

ACK_WAIT_S = 3.0  # a dead worker's jobs are back within it; its holder says `hold` at a third
QUEUE_BOUND = 10_000  # jobs that may wait for one model before publishing is refused


class Depth(NamedTuple):
    """Jobs that no worker has taken yet, and jobs taken and not acked: None where the broker does
    not tell (AMQP)."""

    waiting: int
    in_hand: int | None


class Delivery(Protocol):
    """One job in a worker's hand. Every delivery ends with `ack` or `give_back`, or times out."""

    @property
    def data(self) -> bytes: ...

    @property
    def attempt(self) -> int:
        """1 for the first delivery."""

    def ack(self) -> None:
        """Done: take it off the broker."""

    def hold(self) -> None:
        """Still at work: start `ack_wait_s` again."""

    def give_back(self) -> None:
        """Deliver it again at once, to anybody."""


class Intake(Protocol):
    """A worker's pull on one model's queue."""

    def want(self, count: int) -> None:
        """Ask for jobs so that at most `count` more may come before the next `want`."""

    async def close(self) -> None:
        """Take no more. Jobs that arrive from here on are given back."""


class Broker(Protocol):
    async def open(self) -> None:
        """Raises Unavailable where the broker cannot be reached."""

    async def close(self) -> None: ...

    async def ensure(self, model: str) -> None:
        """Make the model's queue, if it is not there."""

    def publish(self, model: str, job: bytes, refused: OnRefused) -> None:
        """Put a job on the model's queue. Returns at once; `refused` is called if the broker does
        not take it (full, gone, no such queue). Silence means that it was taken."""

    async def take(self, model: str, on_job: Callable[[Delivery], None]) -> Intake:
        """Start pulling. Nothing comes before the first `want`."""

    def send(self, address: str, data: bytes) -> None:
        """To everybody who listens at the address now. No promise beyond that."""

    async def listen(self, address: str, on_message: OnMessage) -> None: ...

    def on_restored(self, again: Callable[[], None]) -> None:
        """`again` is called after a lost connection is back: what was sent may be gone."""

    async def depth(self, model: str) -> Depth: ...
