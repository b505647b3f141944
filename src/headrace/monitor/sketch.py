"""What is known of a field's values without keeping them: of numbers their distribution, of texts
the most frequent. Sketches merge, in any order, and travel as bytes.

numbers   KLL (ranks within 1.3 % of the truth by k = 200, some 2 KB) and moments
texts     counts of the 64 most frequent (space-saving: a count is at most that much too high)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import datasketches  # type: ignore[import-untyped,unused-ignore]
import msgspec

from headrace.monitoring import Value

K = 200  # of KLL: ranks are within 1.33 % of the truth, nearly always
KINDS_MOST = 64  # texts that are counted
OTHERS = "(others)"


class _Form(msgspec.Struct, array_like=True):
    """As bytes."""

    missing: int
    numbers: int
    mean: float
    square: float  # sum of the squares of the distances from the mean
    kll: bytes
    texts: int
    counts: dict[str, int]


class Sketch:
    """Of one field. A field may have both numbers and texts."""

    __slots__ = ("_kll", "counts", "mean", "missing", "numbers", "square", "texts")

    def __init__(self) -> None:
        self.missing = self.numbers = self.texts = 0
        self.mean = self.square = 0.0
        self.counts: dict[str, int] = {}
        self._kll: Any = datasketches.kll_doubles_sketch(K)

    def add(self, value: Value) -> None:
        if value is None:
            self.missing += 1
        elif isinstance(value, str):
            self.texts += 1
            self._count(value, 1)
        else:
            self.numbers += 1
            step = value - self.mean
            self.mean += step / self.numbers
            self.square += step * (value - self.mean)
            self._kll.update(value)

    def _count(self, text: str, times: int) -> None:
        counts = self.counts
        if text in counts or len(counts) < KINDS_MOST:
            counts[text] = counts.get(text, 0) + times
            return
        # The rarest makes room, and its count is taken over: what is frequent is never lost.
        rarest = min(counts, key=lambda each: (counts[each], each))
        counts[text] = counts.pop(rarest) + times

    @property
    def count(self) -> int:
        return self.missing + self.numbers + self.texts

    @property
    def missing_share(self) -> float:
        return self.missing / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of the numbers."""
        return math.sqrt(self.square / (self.numbers - 1)) if self.numbers > 1 else 0.0

    @property
    def numeric(self) -> bool:
        """Mostly numbers."""
        return self.numbers >= self.texts

    def merge(self, other: Sketch) -> None:
        both = self.numbers + other.numbers
        if both:
            step = other.mean - self.mean
            self.square += other.square + step * step * self.numbers * other.numbers / both
            self.mean += step * other.numbers / both
        self.numbers = both
        self.missing += other.missing
        self.texts += other.texts
        self._kll.merge(other._kll)
        for text, times in other.counts.items():
            self.counts[text] = self.counts.get(text, 0) + times
        if len(self.counts) > KINDS_MOST:
            # Summed up first and cut then, so that the order of merging hardly matters.
            first = sorted(self.counts.items(), key=lambda each: (-each[1], each[0]))
            self.counts = dict(first[:KINDS_MOST])

    def quantiles(self, ranks: Sequence[float]) -> list[float]:
        """Of the numbers; [] where there are none."""
        return list(self._kll.get_quantiles(list(ranks))) if self.numbers else []

    def cdf(self, points: Sequence[float]) -> list[float]:
        """Shares of the numbers up to each point. The points rise strictly."""
        if not self.numbers or not points:
            return [0.0] * len(points)
        return list(self._kll.get_cdf(list(points), True))[:-1]

    def shares(self) -> dict[str, float]:
        """Of the texts, the most frequent first; OTHERS: of those that are not counted."""
        counted = sum(self.counts.values())
        whole = max(self.texts, counted, 1)
        first = sorted(self.counts.items(), key=lambda each: (-each[1], each[0]))
        found = {text: times / whole for text, times in first}
        if counted < self.texts:
            found[OTHERS] = (self.texts - counted) / whole
        return found

    def to_bytes(self) -> bytes:
        return msgspec.msgpack.encode(
            _Form(
                self.missing, self.numbers, self.mean, self.square,
                bytes(self._kll.serialize()), self.texts, self.counts,
            )
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """Raises ValueError for what is none."""
        try:
            form = msgspec.msgpack.decode(data, type=_Form)
            sketch = cls()
            sketch._kll = datasketches.kll_doubles_sketch.deserialize(form.kll)
        except (msgspec.MsgspecError, RuntimeError, IndexError) as error:
            raise ValueError(f"not a sketch: {error}") from None
        sketch.missing, sketch.numbers, sketch.texts = form.missing, form.numbers, form.texts
        sketch.mean, sketch.square, sketch.counts = form.mean, form.square, form.counts
        return sketch

    def copy(self) -> Sketch:
        fresh = Sketch()
        fresh.merge(self)
        return fresh


class Profile:
    """Sketches of all fields, of the calls of one version and segment in some time."""

    __slots__ = ("calls", "fields")

    def __init__(self) -> None:
        self.calls = 0
        self.fields: dict[str, Sketch] = {}

    def add(self, names: Sequence[str], values: Sequence[Value]) -> None:
        self.calls += 1
        for name, value in zip(names, values, strict=False):
            sketch = self.fields.get(name)
            if sketch is None:
                sketch = self.fields[name] = Sketch()
            sketch.add(value)

    def merge(self, other: Profile) -> None:
        self.calls += other.calls
        for name, sketch in other.fields.items():
            self.fields.setdefault(name, Sketch()).merge(sketch)

    def to_plain(self) -> tuple[int, dict[str, bytes]]:
        return self.calls, {name: sketch.to_bytes() for name, sketch in self.fields.items()}

    @classmethod
    def from_plain(cls, calls: int, fields: dict[str, bytes]) -> Profile:
        """Raises ValueError."""
        profile = cls()
        profile.calls = calls
        profile.fields = {name: Sketch.from_bytes(data) for name, data in fields.items()}
        return profile


def merge(into: dict[tuple[str, str], Profile], more: Mapping[tuple[str, str], Profile]) -> None:
    """What only `more` has is shared by both, not copied."""
    for key, profile in more.items():
        if key in into:
            into[key].merge(profile)
        else:
            into[key] = profile
