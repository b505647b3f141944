"""How long a batch of n takes: `fixed_ms + per_item_ms * n`, learned from the batches that ran.

Least squares over exponentially forgotten batches, so that a model that turns slow is known within
some twenty batches. Used to predict waits at the gateway and to plan capacity.
"""

from __future__ import annotations

FORGET = 0.9  # weight of the past at each new batch: half is forgotten after 7


class Fit:
    def __init__(self) -> None:
        self._w = self._n = self._t = self._nn = self._nt = 0.0

    def learn(self, size: int, took_ms: float) -> None:
        """One batch of `size` items took `took_ms`."""
        self._w = self._w * FORGET + 1.0
        self._n = self._n * FORGET + size
        self._t = self._t * FORGET + took_ms
        self._nn = self._nn * FORGET + size * size
        self._nt = self._nt * FORGET + size * took_ms

    @property
    def known(self) -> bool:
        return self._w > 0

    def line(self) -> tuple[float, float]:
        """(fixed_ms, per_item_ms), neither below 0; all is per item while sizes never varied."""
        if not self._w:
            return 0.0, 0.0
        mean_n, mean_t = self._n / self._w, self._t / self._w
        variance = self._nn / self._w - mean_n * mean_n
        if variance < 0.05 * mean_n:
            return 0.0, mean_t / max(mean_n, 1e-9)
        slope = (self._nt / self._w - mean_n * mean_t) / variance
        slope = min(max(slope, 0.0), mean_t / mean_n)
        return mean_t - slope * mean_n, slope

    def took_ms(self, size: int) -> float:
        """What a batch of `size` is expected to take."""
        fixed, per_item = self.line()
        return fixed + per_item * size
