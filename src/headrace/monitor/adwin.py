"""ADWIN: a window over a stream of numbers that drops its old part when its mean has changed
(Bifet and Gavalda 2007). Pure; O(log n) buckets for n numbers.

Buckets of 1, 2, 4, ... numbers, at most MOST of a size. Where the means of the two parts of some
cut differ by more than eps_cut, which holds with probability 1 - `chance`, the oldest bucket goes.
"""

from __future__ import annotations

import math
from collections import deque

MOST = 5  # buckets of one size
EVERY = 32  # numbers between two looks
LEAST = 5  # numbers in each part of a cut


class Adwin:
    def __init__(self, chance: float = 0.002) -> None:
        self._chance = chance
        #: By size, 2**n numbers each: (sum, sum of squared distances from the own mean), oldest
        #: first.
        self._rows: list[deque[tuple[float, float]]] = [deque()]
        self.width = 0
        self._sum = 0.0
        self._seen = 0

    @property
    def mean(self) -> float:
        return self._sum / self.width if self.width else 0.0

    def add(self, value: float) -> bool:
        """True where a change was found just now."""
        self._rows[0].append((value, 0.0))
        self.width += 1
        self._sum += value
        self._seen += 1
        self._compress()
        if self._seen % EVERY or self.width < 2 * LEAST:
            return False
        found = False
        while self._cut():
            self._drop()
            found = True
        return found

    def _compress(self) -> None:
        for size, row in enumerate(self._rows):
            if len(row) <= MOST:
                return
            first, second = row.popleft(), row.popleft()
            if size + 1 == len(self._rows):
                self._rows.append(deque())
            count = 2**size
            apart = (first[0] - second[0]) / count
            spread = first[1] + second[1] + apart * apart * count / 2
            self._rows[size + 1].append((first[0] + second[0], spread))

    def _buckets(self) -> list[tuple[int, float, float]]:
        """Count, sum, spread; the oldest first."""
        return [
            (2**size, total, spread)
            for size in range(len(self._rows) - 1, -1, -1)
            for total, spread in self._rows[size]
        ]

    def _cut(self) -> bool:
        buckets = self._buckets()
        variance = self._variance(buckets)
        log = math.log(2 * math.log(max(self.width, 3)) / self._chance)
        count, total = 0, 0.0
        for size, part, _ in buckets[:-1]:
            count, total = count + size, total + part
            rest = self.width - count
            if rest < LEAST:
                return False
            if count < LEAST:
                continue
            inverse = 1 / (count - LEAST + 1) + 1 / (rest - LEAST + 1)
            limit = math.sqrt(2 * inverse * variance * log) + 2 / 3 * inverse * log
            if abs(total / count - (self._sum - total) / rest) > limit:
                return True
        return False

    def _variance(self, buckets: list[tuple[int, float, float]]) -> float:
        mean = self.mean
        return sum(s + n * (total / n - mean) ** 2 for n, total, s in buckets) / self.width

    def _drop(self) -> None:
        total, _ = self._rows[-1].popleft()
        self.width -= 2 ** (len(self._rows) - 1)
        self._sum -= total
        while len(self._rows) > 1 and not self._rows[-1]:
            self._rows.pop()
