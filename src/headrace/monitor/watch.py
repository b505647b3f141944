"""What the monitor has of one model in its memory. No I/O; times are given, in Unix seconds.

samples --> window (the last minutes, in slices) --+
        --> reference (a version's first calls) ---+--> drift
        --> predictions by id --+
labels  ------------------------+--> pairs --> quality
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import NamedTuple

from headrace.monitor import drift, quality
from headrace.monitor.adwin import Adwin
from headrace.monitor.quality import Pair
from headrace.monitor.shelf import Found, Profiles, State, hour
from headrace.monitor.sketch import Profile
from headrace.monitoring import Label, Monitor, Sample, Samples, Value

SLICES = 6  # of the window: it moves on by one of them
SEGMENTS_MOST = 20  # of a version
PREDICTIONS_MOST = 100_000  # that wait for their label
FOUND_MOST = 50
HOURS_MOST = 3  # that are not yet written
ROWS_MOST = 50_000  # likewise: what is above while the objects are away is lost


class Predicted(NamedTuple):
    """By version and id: a call may have been shown to two."""

    version: str
    segment: str
    at: float
    value: float | str


class _Reference:
    """A version's first calls: until so long after `began`, and until a segment has enough."""

    __slots__ = ("began", "changed", "profiles")

    def __init__(self, began: float) -> None:
        self.began, self.changed = began, True
        self.profiles: Profiles = {}


class Watch:
    def __init__(self, model: str, policy: Monitor) -> None:
        self.model, self.policy = model, policy
        self._names = policy.names()
        self._width = policy.window_minutes * 60 / SLICES
        self.clear()

    def clear(self) -> None:
        self._slices: deque[tuple[int, Profiles]] = deque()
        self.references: dict[str, _Reference] = {}
        #: Since they were last written.
        self.hours: dict[str, Profiles] = {}
        self.rows: list[tuple[str, Sample]] = []
        self._predicted: OrderedDict[tuple[str, str], Predicted] = OrderedDict()
        self._labels: dict[str, Label] = {}
        self._streams: dict[tuple[str, str], Adwin] = {}
        self._scored: set[tuple[str, str]] = set()
        self._found: deque[Found] = deque(maxlen=FOUND_MOST)
        self.samples = self.calls = 0

    # -- what comes ----------------------------------------------------------------------------

    def known(self, version: str) -> bool:
        """Is its reference here? Else it is to be read first."""
        return version in self.references

    def refer(self, version: str, kept: tuple[float, Profiles] | None, now: float) -> None:
        """What was kept of a version's first calls; None: they come now."""
        reference = self.references[version] = _Reference(kept[0] if kept else now)
        if kept:
            reference.profiles = kept[1]
            reference.changed = False

    def hear(self, news: Samples, now: float) -> None:
        self.calls += news.of
        of_it = self._columns(news)
        place = int(now // self._width)
        if not self._slices or self._slices[-1][0] != place:
            self._slices.append((place, {}))
        slice_, of_hour = self._slices[-1][1], self.hours.setdefault(hour(now), {})
        reference = self.references[news.version]
        before = reference.profiles
        for sample in news.samples:
            values = [sample.values[n] if n is not None else None for n in of_it]
            self.samples += 1
            for segment in {"", sample.segment}:
                key = (news.version, segment)
                self._add(slice_, key, values)
                self._add(of_hour, key, values)
                if not self._complete(reference, key, now):
                    self._add(before, key, values)
                    reference.changed = True
            self.rows.append((news.version, Sample(
                sample.id, sample.at, sample.took_ms, sample.segment, values)))  # fmt: skip
            self._predict(news.version, sample, values)
        del self.rows[:-ROWS_MOST]

    def _columns(self, news: Samples) -> list[int | None]:
        """Where our fields are in what a worker sent, which may have read other settings."""
        if tuple(news.names) == self._names:
            return list(range(len(self._names)))
        at = {name: n for n, name in enumerate(news.names)}
        return [at.get(name) for name in self._names]

    def _add(self, profiles: Profiles, key: tuple[str, str], values: list[Value]) -> None:
        profile = profiles.get(key)
        if profile is None:
            if _full(profiles, key):
                return
            profile = profiles[key] = Profile()
        profile.add(self._names, values)

    def _complete(self, reference: _Reference, key: tuple[str, str], now: float) -> bool:
        profile = reference.profiles.get(key)
        long = now - reference.began >= self.policy.reference_hours * 3600
        return long and profile is not None and profile.calls >= self.policy.least

    def _predict(self, version: str, sample: Sample, values: list[Value]) -> None:
        asked = self.policy.quality
        if asked is None:
            return
        value = values[self._names.index(f"out.{asked.prediction}")]
        if value is None:
            return
        self._predicted[version, sample.id] = Predicted(version, sample.segment, sample.at, value)
        if isinstance(value, float):
            self._stream(version, f"out.{asked.prediction}", value, sample.at)
        while len(self._predicted) > PREDICTIONS_MOST:
            gone, _ = self._predicted.popitem(last=False)
            self._labels.pop(gone[1], None)
            self._scored.discard(gone)

    def recall(self, version: str, segment: str, at: float, id: str, values: dict[str, Value],
               ) -> None:  # fmt: skip
        """A sample of before a restart, for labels that are still to come."""
        asked = self.policy.quality
        value = values.get(f"out.{asked.prediction}") if asked else None
        if value is not None and (version, id) not in self._predicted:
            self._predicted[version, id] = Predicted(version, segment, at, value)

    def label(self, labels: Iterable[Label]) -> None:
        for label in labels:
            self._labels[label.id] = label
            if len(self._labels) > 2 * PREDICTIONS_MOST:  # of calls that were not drawn
                del self._labels[next(iter(self._labels))]

    def _stream(self, version: str, what: str, value: float, at: float) -> None:
        stream = self._streams.get((version, what))
        if stream is None:
            stream = self._streams[version, what] = Adwin()
        before = stream.mean
        if stream.add(value):
            self._found.append(Found(at, version, what, before, stream.mean))

    # -- what is said of it --------------------------------------------------------------------

    def look(self, now: float) -> State:
        window = self._window(now)
        since = now - (self.policy.quality.window_hours * 3600 if self.policy.quality else 0)
        self._age(since)
        pairs = self._pairs()
        return State(
            model=self.model,
            at=now,
            samples=self.samples,
            calls=self.calls,
            labels=sum(len(of) for (_, segment), of in pairs.items() if not segment),
            drift=tuple(self._drift(key, window[key], now) for key in sorted(window)),
            quality=tuple(
                quality.judge(of, self.policy.quality, version=version, segment=segment)
                for (version, segment), of in sorted(pairs.items())
                if self.policy.quality
            ),
            found=tuple(self._found),
        )

    def _window(self, now: float) -> dict[tuple[str, str], Profile]:
        first = int(now // self._width) - SLICES
        while self._slices and self._slices[0][0] < first:
            self._slices.popleft()
        merged: dict[tuple[str, str], Profile] = {}
        for _, profiles in self._slices:
            for key, profile in profiles.items():
                merged.setdefault(key, Profile()).merge(profile)
        return merged

    def _drift(self, key: tuple[str, str], profile: Profile, now: float) -> drift.DriftVerdict:
        version, segment = key
        reference = self.references[version]
        return drift.judge(
            reference.profiles.get(key, Profile()),
            profile,
            self.policy.drift,
            least=self.policy.least,
            version=version,
            segment=segment,
            complete=self._complete(reference, key, now),
        )

    def _age(self, since: float) -> None:
        while self._predicted:
            first = next(iter(self._predicted))
            if self._predicted[first].at >= since:
                return
            del self._predicted[first]
            self._labels.pop(first[1], None)
            self._scored.discard(first)

    def _pairs(self) -> dict[tuple[str, str], list[Pair]]:
        found: dict[tuple[str, str], list[Pair]] = {}
        for each, predicted in self._predicted.items():
            label = self._labels.get(each[1])
            if label is None:
                continue
            pair = Pair(predicted.value, label.label)
            for segment in {"", predicted.segment}:
                key = (predicted.version, segment)
                if key in found or not _full(found, key):
                    found.setdefault(key, []).append(pair)
            if each not in self._scored:
                self._scored.add(each)
                self._stream(predicted.version, "errors", self._off(pair), label.at)
        return found

    def _off(self, pair: Pair) -> float:
        """How wrong it was."""
        assert self.policy.quality is not None
        kind = self.policy.quality.kind
        foretold = quality.number(pair.predicted)
        came = quality.number(pair.label)
        if kind == "probability":
            true = quality.truth(pair.label)
            came = None if true is None else float(true)
        if kind == "class" or foretold is None or came is None:
            return float(quality.as_text(pair.predicted) != quality.as_text(pair.label))
        return abs(foretold - came)


def _full(known: Iterable[tuple[str, str]], key: tuple[str, str]) -> bool:
    """Are so many segments of its version known that another one is not looked at?"""
    version, segment = key
    return bool(segment) and sum(of == version for of, _ in known) > SEGMENTS_MOST
