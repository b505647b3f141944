"""Samples for the monitor, off the callers' way: which calls is drawn by lot from all of them, and
what is kept of them is told once in two seconds. Losing some is allowed, waiting is not.

Called behind the replies, a batch at a time; a call that is not drawn costs 0.6 us
(benchmarks/monitoring.py).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import msgspec

from headrace.errors import Problem
from headrace.jobs import Form
from headrace.monitoring import Monitor, Sample, Samples, Value, at_path, kept, samples_bytes
from headrace.worker.take import Held

TELL_EVERY_S = 2.0
#: Larger inputs and results are not held on to: nothing of them is read.
LARGEST = 65_536
#: A message of samples is cut there: a broker takes only so much.
MOST_A_MESSAGE = 500

_read = msgspec.msgpack.Decoder().decode
_read_json = msgspec.json.Decoder().decode

#: Request id, body, result, is it JSON, Unix time, ms of the batch.
_Drawn = tuple[str, bytes, bytes, bool, float, float]


class Sampler:
    """Of one worker. `version`: set when the model is ready."""

    def __init__(
        self,
        model: str,
        policy: Monitor,
        send: Callable[[bytes], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`send` neither waits nor raises."""
        self._model, self._policy, self._send, self._now = model, policy, send, now
        self.version = ""
        self.unread = 0  # drawn, and then not to be read
        self._room = max(1, round(policy.samples_per_minute * TELL_EVERY_S / 60))
        self._seen = 0
        self._drawn: list[_Drawn] = []
        self._random = random.Random().random

    def offer(
        self, batch: Sequence[Held], outcomes: Sequence[bytes | Problem], took_ms: float
    ) -> None:
        """Each call of a period has the same chance (reservoir sampling)."""
        drawn, room, seen = self._drawn, self._room, self._seen
        chance = self._random
        for held, outcome in zip(batch, outcomes, strict=True):
            if outcome.__class__ is not bytes:
                continue  # a refusal predicts nothing
            seen += 1
            if len(drawn) < room:
                drawn.append(self._one(held, outcome, took_ms))
            elif (place := int(chance() * seen)) < room:
                drawn[place] = self._one(held, outcome, took_ms)
        self._seen = seen

    def _one(self, held: Held, outcome: bytes, took_ms: float) -> _Drawn:
        body = held.body if len(held.body) <= LARGEST else b""
        result = outcome if len(outcome) <= LARGEST else b""
        is_json = held.job.form is Form.JSON
        return held.job.request_id, body, result, is_json, self._now(), took_ms

    async def keep_telling(self) -> None:
        """For ever; the rest when it is cancelled."""
        try:
            while True:
                await asyncio.sleep(TELL_EVERY_S)
                self.tell()
        finally:
            self.tell()

    def tell(self) -> None:
        drawn, of = self._drawn, self._seen
        self._drawn, self._seen = [], 0
        samples = [sample for each in drawn if (sample := self._sample(*each)) is not None]
        names = list(self._policy.names())
        for start in range(0, len(samples), MOST_A_MESSAGE):
            part = samples[start : start + MOST_A_MESSAGE]
            self._send(samples_bytes(Samples(self._model, self.version, names, part, of)))
            of = 0

    def _sample(
        self, id: str, body: bytes, result: bytes, is_json: bool, at: float, took_ms: float
    ) -> Sample | None:
        policy = self._policy
        try:
            given = _read(body) if body else None
            came = (_read_json(result) if is_json else _read(result)) if result else None
        except Exception:  # an extension that we do not know, say
            self.unread += 1
            return None
        values: list[Value] = [at_path(given, name) for name in policy.inputs]
        values += [at_path(came, name) for name in policy.outputs]
        segment = kept(at_path(given, policy.segment)) if policy.segment else ""
        return Sample(id, at, took_ms, "" if segment is None else str(segment), values)
