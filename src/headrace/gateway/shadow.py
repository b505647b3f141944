"""Calls that are also shown to a version that answers nobody: is what it would say the same?

    real one --> dispatched, answered as ever --+
    the same --> dispatched to the shadow ------+--> same, other, or missing

Fire and forget, by a dispatch of its own: nothing of it is waited for, admitted, told of as load or
moved elsewhere. At most MOST are open at once; what is above is not shown, and counted. Of answers
above LARGEST bytes only those are compared that are the same byte for byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import structlog

from headrace.background import Background
from headrace.dispatch import Dispatch
from headrace.errors import Refusal
from headrace.gateway.evidence import LARGEST, Witnesses
from headrace.gateway.flight import OnAnswer
from headrace.jobs import Form, Outcome, Returned
from headrace.likeness import close
from headrace.telemetry.metrics import GatewayMetrics

if TYPE_CHECKING:
    from headrace.gateway.snapshot import ModelView

log = structlog.get_logger("headrace.gateway")

MOST = 64

_decode = msgspec.json.Decoder().decode


class Shadows:
    """Of one gateway; opened when the first call is to be shown."""

    def __init__(
        self, make: Callable[[], Dispatch], metrics: GatewayMetrics, witnesses: Witnesses
    ) -> None:
        self._make, self._metrics, self._witnesses = make, metrics, witnesses
        self._dispatch: Dispatch | None = None
        self._open = False
        self._background = Background()

    def pair(self, view: ModelView, on_answer: OnAnswer) -> Pair | None:
        """None: this call is not shown."""
        if self._dispatch is None:
            self._dispatch = self._make()
            self._background.spawn(self._opened(self._dispatch))
        if not self._open or not view.ready or len(self._dispatch.waiting) >= MOST:
            self._metrics.shadow.add(view.name, "dropped")
            return None
        return Pair(self, view, on_answer)

    async def _opened(self, dispatch: Dispatch) -> None:
        try:
            await dispatch.open()
        except Exception as error:  # the broker is away, say: the next call tries it again
            log.warning("nothing is shown to a shadow", reason=repr(error))
            self._dispatch = None
            await dispatch.close()
        else:
            self._open = True

    def show(self, pair: Pair, request_id: str, body: bytes, deadline: float) -> None:
        assert self._dispatch is not None
        self._dispatch.start(
            pair.view.queue,
            request_id,
            body,
            deadline=deadline,
            form=Form.JSON,
            on_outcome=pair.shown,
        )

    def judge(self, pair: Pair, real: bytes, shown: Outcome | Refusal) -> None:
        witness = self._witnesses.of(pair.view.queue)
        witness.note(shown, pair.took_ms, shown.body if isinstance(shown, Outcome) else b"")
        if isinstance(shown, Refusal) or shown.problem is not None:
            how = "missing"
            witness.missing += 1
        elif shown.body == real:
            how = "same"
            witness.same += 1
        elif max(len(shown.body), len(real)) > LARGEST:
            how = "dropped"
        elif close(_decode(shown.body), _decode(real)):
            how = "same"
            witness.same += 1
        else:
            how = "other"
            witness.other += 1
        self._metrics.shadow.add(pair.view.name, how)

    async def close(self) -> None:
        await self._background.close()
        if self._dispatch is not None:
            await self._dispatch.close()


class Pair:
    """Both outcomes of one call. The caller has the real one as soon as it is there."""

    __slots__ = ("_began", "_on_answer", "_real", "_shadows", "_shown", "took_ms", "view")

    def __init__(self, shadows: Shadows, view: ModelView, on_answer: OnAnswer) -> None:
        self._shadows, self.view, self._on_answer = shadows, view, on_answer
        self._began = time.monotonic()
        self.took_ms = 0.0  # of the shadow
        self._real: bytes | None = None
        self._shown: Outcome | Refusal | None = None

    def real(
        self, outcome: Outcome | Refusal, returned: Returned | None, how: bytes = b"", /
    ) -> None:
        self._on_answer(outcome, returned, how)
        if isinstance(outcome, Outcome) and outcome.problem is None:
            self._real = outcome.body
            self._judge()

    def shown(self, outcome: Outcome | Refusal, returned: Returned | None) -> None:
        self.took_ms = (time.monotonic() - self._began) * 1000
        self._shown = outcome
        self._judge()

    def _judge(self) -> None:
        """Where the real one came to no result there is nothing to compare with."""
        if self._real is None or self._shown is None:
            return
        try:
            self._shadows.judge(self, self._real, self._shown)
        except Exception as error:  # other callers' outcomes came with this one, and go on
            log.warning("not compared", workload=self.view.queue, reason=repr(error)[:200])
