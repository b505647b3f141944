"""What a gateway says of itself on the broker: what it waits for, what came, how answers travel."""

from __future__ import annotations

import time

from headrace.announce import Outstanding
from headrace.gateway.app import App, by_model


class Account:
    def __init__(self, app: App) -> None:
        self._app = app
        self._began = self._told_at = time.monotonic()

    @property
    def since_told_s(self) -> float:
        return time.monotonic() - self._told_at

    def outstanding(self, leaving: bool = False) -> Outstanding:
        """As it is now; the lag of replies is the longest since this was last asked."""
        dispatch = self._app.dispatch
        self._told_at = time.monotonic()
        # Between machines whose clocks differ an answer may seem to come before it was sent.
        lag_s, dispatch.longest_lag_s = max(0.0, dispatch.longest_lag_s), 0.0
        return Outstanding(
            dispatch.address,
            self._calls(),
            self._arrived(),
            self._app.oldest_s(),
            lag_s,
            self._told_at - self._began,
            leaving,
        )

    def _calls(self) -> dict[str, int]:
        """Of a model that has several versions, also of each that the registry numbered."""
        calls = self._app.dispatch.by_workload | self._app.open_calls()
        return {workload: count for workload, count in calls.items() if count}

    def _arrived(self) -> dict[str, int]:
        came = by_model(self._app.dispatch.arrived)
        came.update(self._app.missed)
        for (model,), jobs in self._app.metrics.submitted.values.items():
            came[model] += int(jobs)
        return dict(came)
