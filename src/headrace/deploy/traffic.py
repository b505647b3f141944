"""Does anybody call? By what gateways say they were asked for. Pure; times are given."""

from __future__ import annotations

from collections import deque

from headrace.announce import FRESH_S, Outstanding

QUIET_S = 30.0  # nobody called for so long: there is nothing to judge a version by


class Traffic:
    """Of all models."""

    def __init__(self) -> None:
        self._arrived: dict[str, dict[str, int]] = {}  # gateway -> model -> calls
        self._called: dict[str, float] = {}  # model -> when somebody called
        self._heard: deque[float] = deque(maxlen=1)

    def hear(self, said: Outstanding, now: float) -> None:
        """A gateway that is new is believed to have been called just now, if ever."""
        self._heard.append(now)
        known = self._arrived.get(said.gateway, {})
        for model, calls in said.arrived.items():
            if calls > known.get(model, 0):
                self._called[model] = now
        if said.leaving:
            self._arrived.pop(said.gateway, None)
        else:
            self._arrived[said.gateway] = said.arrived

    def heard(self, now: float) -> bool:
        """Is there a gateway that says anything?"""
        return bool(self._heard) and now - self._heard[-1] <= FRESH_S

    def idle(self, model: str, now: float) -> bool:
        return self.heard(now) and now - self._called.get(model, float("-inf")) > QUIET_S
