"""How many messages an hour. Pure: the time is an argument."""

from __future__ import annotations

HOUR_S = 3600.0


class Bucket:
    """A third of the hour's messages may go at once, the rest come back evenly: never more than
    `most` in any hour. Of that third, a third is for what is urgent."""

    def __init__(self, most: int, now: float) -> None:
        self.size = max(1, most // 3)
        self.reserve = self.size // 3
        self._per_s = max(1, most - self.size) / HOUR_S
        self._tokens, self._at = float(self.size), now

    def wait_s(self, now: float, urgent: bool) -> float:
        """Until a message may go; 0: now."""
        self._fill(now)
        wanted = 1.0 if urgent else 1.0 + self.reserve
        return max(0.0, (wanted - self._tokens) / self._per_s)

    def take(self, now: float, urgent: bool) -> bool:
        """False where there is none."""
        if self.wait_s(now, urgent) > 0:
            return False
        self._tokens -= 1
        return True

    def _fill(self, now: float) -> None:
        # The clock may have been set back: then nothing comes of it.
        self._tokens += max(0.0, now - self._at) * self._per_s
        self._tokens, self._at = min(self._tokens, float(self.size)), now
