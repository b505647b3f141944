"""What were the predictions worth? Pure, of pairs of prediction and label.

accuracy      share that was right, with Wilson's interval
auc           how often what came true was foretold as likelier (Hanley and McNeil's interval)
calibration   mean distance of the foretold from what came, over ten bins (ECE); by bootstrap
error         mean absolute error, by its deviation; rmse beside it
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.monitoring import Quality

Z = 1.96  # 95 %
RESAMPLES = 200
BINS = 10
_TRUE = frozenset({"true", "yes", "1", "1.0"})
_FALSE = frozenset({"false", "no", "0", "0.0"})


class Pair(NamedTuple):
    predicted: float | str
    label: float | str


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure with its interval of confidence. `limit`: what is allowed; None: not judged."""

    name: str
    value: float
    low: float
    high: float
    limit: float | None = None
    bad: bool = False


class QualityVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Of one version and segment.

    good; bad: beyond a limit, surely; few: too few labels to say."""

    version: str
    segment: str
    verdict: Literal["good", "bad", "few"]
    labels: int = 0
    figures: tuple[Figure, ...] = ()
    #: One sentence.
    text: str = ""


def judge(
    pairs: Sequence[Pair], limits: Quality, *, version: str = "", segment: str = ""
) -> QualityVerdict:
    where = f"version {version}" + (f", segment {segment}" if segment else "")
    found = _figures(pairs, limits)
    if found is None or len(pairs) < limits.least:
        text = f"{where}: {len(pairs)} labels, {limits.least} are needed"
        if found is None and len(pairs) >= limits.least:
            text = f"{where}: its labels are of one kind alone, or not {limits.kind}"
        return QualityVerdict(
            version=version, segment=segment, verdict="few", labels=len(pairs), text=text
        )
    bad = [figure for figure in found if figure.bad]
    text = f"{where}: " + "; ".join(map(_told, bad or found)) + f" of {len(pairs)} labels"
    return QualityVerdict(
        version=version, segment=segment, verdict="bad" if bad else "good", labels=len(pairs),
        figures=tuple(found), text=text,
    )  # fmt: skip


def _told(figure: Figure) -> str:
    told = f"{figure.name} {figure.value:.3g} ({figure.low:.3g} to {figure.high:.3g})"
    return f"{told}, limit {figure.limit:g}" if figure.bad else told


def _figures(pairs: Sequence[Pair], limits: Quality) -> list[Figure] | None:
    """None: these pairs say nothing of it."""
    if not pairs:
        return None
    if limits.kind == "class":
        right = sum(as_text(pair.predicted) == as_text(pair.label) for pair in pairs)
        return [_at_least("accuracy", right / len(pairs), *wilson(right, len(pairs)),
                          limits.accuracy_least)]  # fmt: skip
    if limits.kind == "number":
        numbers = [(n, m) for p in pairs if (n := number(p.predicted)) is not None
                   and (m := number(p.label)) is not None]  # fmt: skip
        return _errors(numbers, limits) if numbers else None
    truths = [(n, t) for p in pairs if (n := number(p.predicted)) is not None
              and (t := truth(p.label)) is not None]  # fmt: skip
    return _probabilities(truths, limits) if truths else None


def _errors(numbers: list[tuple[float, float]], limits: Quality) -> list[Figure]:
    off = [abs(a - b) for a, b in numbers]
    mean, half = _mean(off)
    root = math.sqrt(sum(each * each for each in off) / len(off))
    bias, bias_half = _mean([a - b for a, b in numbers])
    return [
        _at_most("error", mean, max(0.0, mean - half), mean + half, limits.error_most),
        Figure(name="rmse", value=root, low=root, high=root),
        Figure(name="bias", value=bias, low=bias - bias_half, high=bias + bias_half),
    ]


def _probabilities(truths: list[tuple[float, bool]], limits: Quality) -> list[Figure] | None:
    right = sum((p >= 0.5) == came for p, came in truths)
    found = [_at_least("accuracy", right / len(truths), *wilson(right, len(truths)),
                       limits.accuracy_least)]  # fmt: skip
    ranked = auc(truths)
    if ranked is None and limits.auc_least is not None:
        return None
    if ranked is not None:
        came = sum(t for _, t in truths)
        half = Z * _auc_deviation(ranked, came, len(truths) - came)
        low, high = max(0.0, ranked - half), min(1.0, ranked + half)
        found.append(_at_least("auc", ranked, low, high, limits.auc_least))
    off = calibration(truths)
    # Resampling adds what chance makes of few to what is there: its middle is put on the value.
    spread = bootstrap(truths)
    half = (spread[1] - spread[0]) / 2
    found.append(
        _at_most("calibration", off, max(0.0, off - half), off + half, limits.calibration_most)
    )
    return found


# -- arithmetic ----------------------------------------------------------------------------------


def wilson(right: int, of: int) -> tuple[float, float]:
    """The interval of a share, which is in 0 to 1 also for few and for all."""
    if not of:
        return 0.0, 1.0
    share, square = right / of, Z * Z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = Z / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def auc(truths: Sequence[tuple[float, bool]]) -> float | None:
    """None where all came true, or none."""
    came = sum(t for _, t in truths)
    if not came or came == len(truths):
        return None
    ordered = sorted(truths)
    ranks, start = 0.0, 0
    while start < len(ordered):
        end = start
        while end < len(ordered) and ordered[end][0] == ordered[start][0]:
            end += 1
        middle = (start + 1 + end) / 2  # equals share their ranks
        ranks += middle * sum(t for _, t in ordered[start:end])
        start = end
    return (ranks - came * (came + 1) / 2) / (came * (len(truths) - came))


def _auc_deviation(value: float, came: int, not_came: int) -> float:
    one, two = value / (2 - value), 2 * value * value / (1 + value)
    spread = (
        value * (1 - value)
        + (came - 1) * (one - value * value)
        + (not_came - 1) * (two - value * value)
    )
    return math.sqrt(max(0.0, spread) / (came * not_came))


def calibration(truths: Sequence[tuple[float, bool]]) -> float:
    """0: what was foretold with 0.7 comes seven times of ten."""
    bins, off = _binned(truths)
    return float(np.abs(np.bincount(bins, off, BINS)).sum() / max(1, len(off)))


def bootstrap(truths: Sequence[tuple[float, bool]], most: int = 2_000) -> tuple[float, float]:
    """95 % of the calibration when drawn again. The same for the same values; of many, the last
    `most`."""
    bins, off = _binned(truths[-most:])
    drawn = np.random.default_rng(0).integers(0, len(off), (RESAMPLES, len(off)))
    places = bins[drawn] + BINS * np.arange(RESAMPLES)[:, None]
    sums = np.bincount(places.ravel(), off[drawn].ravel(), BINS * RESAMPLES)
    found = np.sort(np.abs(sums.reshape(RESAMPLES, BINS)).sum(1) / len(off)).tolist()
    return found[round(0.025 * (RESAMPLES - 1))], found[round(0.975 * (RESAMPLES - 1))]


def _binned(truths: Sequence[tuple[float, bool]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The bin of each, and how much more was foretold than came."""
    foretold, came = np.array(truths, float).reshape(-1, 2).T
    return np.clip((foretold * BINS).astype(np.int64), 0, BINS - 1), foretold - came


def number(value: float | str) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if math.isfinite(value) else None


def truth(value: float | str) -> bool | None:
    text = as_text(value).lower()
    return True if text in _TRUE else False if text in _FALSE else None


def as_text(value: float | str) -> str:
    """1 and 1.0 and "1" are the same class."""
    return f"{value:g}" if isinstance(value, float | int) else value


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """And half of its interval."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.inf
    spread = sum((each - mean) ** 2 for each in values) / (len(values) - 1)
    return mean, Z * math.sqrt(spread / len(values))


def _at_least(name: str, value: float, low: float, high: float, limit: float | None) -> Figure:
    bad = limit is not None and high < limit
    return Figure(name=name, value=value, low=low, high=high, limit=limit, bad=bad)


def _at_most(name: str, value: float, low: float, high: float, limit: float | None) -> Figure:
    bad = limit is not None and low > limit
    return Figure(name=name, value=value, low=low, high=high, limit=limit, bad=bad)
