"""Is what comes now as what came before? Pure, of sketches of both.

PSI        sum of (now - before) * ln(now / before) over ten bins that had a tenth each before, or
           over the kinds of a text. Where nothing changed it is about (bins - 1) * (1/n + 1/m) by
           chance alone, which is why a limit is raised by what chance makes of so few.
KS         the greatest distance of the two distributions, and how likely it is by chance
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from headrace.monitor.sketch import OTHERS, K, Profile, Sketch
from headrace.monitoring import Drift

BINS = 10
_LEAST_SHARE = 1e-4  # of a bin that nobody is in
#: Twice the error of a rank in a sketch, which is no change: each side has its own.
RANK_ERROR = 2 * 1.33 / 100 * (200 / K)
_KINDS = 20  # of a text that are compared, the rest together


class FieldVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one field.

    same; changed: beyond a limit, and more than chance; few: too few values to say."""

    field: str
    verdict: Literal["same", "changed", "few"]
    #: None: not of this kind of field.
    psi: float | None = None
    ks: float | None = None
    #: That so great a distance is chance.
    chance: float | None = None
    missing: float = 0.0
    missing_before: float = 0.0
    values: int = 0
    #: One sentence.
    text: str = ""


class DriftVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Of one version and segment."""

    version: str
    segment: str
    verdict: Literal["same", "changed", "few"]
    fields: tuple[FieldVerdict, ...] = ()
    calls: int = 0
    text: str = ""


def judge(
    before: Profile,
    now: Profile,
    limits: Drift,
    *,
    least: int,
    version: str = "",
    segment: str = "",
    complete: bool = True,
) -> DriftVerdict:
    """`complete`: the reference has all that it will have."""
    where = f"version {version}" + (f", segment {segment}" if segment else "")
    if not complete or before.calls < least:
        text = f"{where}: its first calls are still being gathered ({before.calls} so far)"
        return DriftVerdict(version=version, segment=segment, verdict="few", text=text)
    if now.calls < least:
        text = f"{where}: {now.calls} samples of late, {least} are needed"
        return DriftVerdict(
            version=version, segment=segment, verdict="few", calls=now.calls, text=text
        )
    # All fields together are to raise a false alarm as rarely as one.
    chance = limits.chance / max(1, len(before.fields))
    fields = tuple(
        judge_field(name, sketch, now.fields.get(name, Sketch()), limits, chance, least)
        for name, sketch in sorted(before.fields.items())
    )
    changed = [each for each in fields if each.verdict == "changed"]
    if len(changed) >= limits.fields:
        first = sorted(changed, key=lambda each: -max(each.psi or 0, each.ks or 0))
        text = f"{where}: {'; '.join(each.text for each in first[:3])}"
        if len(first) > 3:
            text += f"; and {len(first) - 3} more"
        verdict: Literal["same", "changed", "few"] = "changed"
    else:
        verdict, text = "same", f"{where}: {len(fields)} fields are as they were"
    return DriftVerdict(
        version=version, segment=segment, verdict=verdict, fields=fields, calls=now.calls,
        text=text,
    )  # fmt: skip


def judge_field(
    name: str, before: Sketch, now: Sketch, limits: Drift, chance: float, least: int
) -> FieldVerdict:
    lost = now.missing_share - before.missing_share
    if abs(lost) > limits.missing + _share_noise(before, now, chance):
        text = (
            f"{name} is missing in {now.missing_share:.0%} of the calls, "
            f"before in {before.missing_share:.0%}"
        )
        return _said(name, "changed", before, now, text)
    if before.numeric:
        return _judge_numbers(name, before, now, limits, chance, least)
    return _judge_texts(name, before, now, limits, chance, least)


def _judge_numbers(
    name: str, before: Sketch, now: Sketch, limits: Drift, chance: float, least: int
) -> FieldVerdict:
    if before.numbers < least or now.numbers < least:
        return _said(name, "few", before, now, f"{name}: {now.numbers} numbers are too few")
    index, noise = psi(*binned(before, now)), psi_noise(BINS, before.numbers, now.numbers)
    distance = ks(before, now)
    # What the sketches themselves are wrong by is no distance.
    likely = ks_chance(max(0.0, distance - RANK_ERROR), before.numbers, now.numbers)
    certain = likely < chance
    shifted = f"{name}: mean {_short(now.mean)}, before {_short(before.mean)}"
    if index > limits.psi + noise and certain:
        text = f"{shifted} (PSI {index:.2f}, limit {limits.psi:g})"
        verdict: Literal["same", "changed"] = "changed"
    elif distance > limits.ks and certain:
        text = f"{shifted} (KS {distance:.2f}, limit {limits.ks:g})"
        verdict = "changed"
    else:
        text, verdict = f"{name}: as before (PSI {index:.2f}, KS {distance:.2f})", "same"
    return _said(name, verdict, before, now, text, psi=index, ks=distance, chance=likely)


def _judge_texts(
    name: str, before: Sketch, now: Sketch, limits: Drift, chance: float, least: int
) -> FieldVerdict:
    if before.texts < least or now.texts < least:
        return _said(name, "few", before, now, f"{name}: {now.texts} texts are too few")
    was, are, kinds = compared(before, now)
    index, noise = psi(was, are), psi_noise(len(kinds), before.texts, now.texts)
    likely = kinds_chance(was, are, before.texts, now.texts)
    if index > limits.psi + noise and likely < chance:
        most = max(range(len(kinds)), key=lambda n: abs(are[n] - was[n]))
        text = (
            f"{name}: {kinds[most]!r} is {are[most]:.0%} of the calls, before {was[most]:.0%} "
            f"(PSI {index:.2f}, limit {limits.psi:g})"
        )
        return _said(name, "changed", before, now, text, psi=index, chance=likely)
    text = f"{name}: as before (PSI {index:.2f})"
    return _said(name, "same", before, now, text, psi=index, chance=likely)


def _said(
    name: str, verdict: Literal["same", "changed", "few"], before: Sketch, now: Sketch, text: str,
    *, psi: float | None = None, ks: float | None = None, chance: float | None = None,
) -> FieldVerdict:  # fmt: skip
    return FieldVerdict(
        field=name, verdict=verdict, psi=psi, ks=ks, chance=chance, missing=now.missing_share,
        missing_before=before.missing_share, values=now.count - now.missing, text=text,
    )  # fmt: skip


# -- arithmetic ----------------------------------------------------------------------------------


def binned(before: Sketch, now: Sketch) -> tuple[list[float], list[float]]:
    """Shares of both in bins that had about the same share before. A number that many have makes
    its neighbours' bins one."""
    edges = sorted(set(before.quantiles([n / BINS for n in range(1, BINS)])))
    return _steps(before.cdf(edges)), _steps(now.cdf(edges))


def compared(before: Sketch, now: Sketch) -> tuple[list[float], list[float], list[str]]:
    """Shares of the most frequent texts of both sides; the rest is one."""
    was, are = before.shares(), now.shares()
    both = sorted(set(was) | set(are), key=lambda t: (-was.get(t, 0) - are.get(t, 0), t))
    kinds = [text for text in both if text != OTHERS][:_KINDS]
    left = [1 - sum(side.get(text, 0) for text in kinds) for side in (was, are)]
    shares = [[side.get(text, 0.0) for text in kinds] for side in (was, are)]
    if max(left) > 1e-9:
        kinds.append(OTHERS)
        for side, rest in zip(shares, left, strict=True):
            side.append(max(0.0, rest))
    return shares[0], shares[1], kinds


def psi(before: Sequence[float], now: Sequence[float]) -> float:
    """Of shares; 0 where both are the same."""
    total = 0.0
    for was, are in zip(before, now, strict=True):
        one, other = max(was, _LEAST_SHARE), max(are, _LEAST_SHARE)
        total += (other - one) * math.log(other / one)
    return total


def psi_noise(bins: int, one: int, other: int) -> float:
    """What chance adds to it, with three deviations: it goes as chi square (Yurdakul 2018)."""
    free = max(1, bins - 1)
    return (free + 3 * math.sqrt(2 * free)) * (1 / max(one, 1) + 1 / max(other, 1))


def ks(before: Sketch, now: Sketch) -> float:
    """The greatest distance of the distributions, seen at 200 points of both."""
    ranks = [n / 100 for n in range(101)]
    points = sorted({*before.quantiles(ranks), *now.quantiles(ranks)})
    return max(
        (abs(a - b) for a, b in zip(before.cdf(points), now.cdf(points), strict=True)), default=0.0
    )


def ks_chance(distance: float, one: int, other: int) -> float:
    """That two samples of one distribution are so far apart (asymptotic, with Stephens' term)."""
    if not one or not other:
        return 1.0
    root = math.sqrt(one * other / (one + other))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.3:
        return 1.0
    total = sum((1 if n % 2 else -1) * math.exp(-2 * (n * scaled) ** 2) for n in range(1, 101))
    return min(1.0, max(0.0, 2 * total))


def kinds_chance(was: Sequence[float], are: Sequence[float], one: int, other: int) -> float:
    """That two samples of one population differ so much: chi square, by Wilson and Hilferty."""
    total: float = 0.0
    bins = 0
    for a, b in zip(was, are, strict=True):
        pooled = (a * one + b * other) / (one + other)
        if pooled > 0:
            bins += 1
            total += (a - b) ** 2 / (pooled * (1 / one + 1 / other))
    free = max(1, bins - 1)
    if bins < 2:
        return 1.0
    width = 2 / (9 * free)
    scaled: float = (math.cbrt(total / free) - (1 - width)) / math.sqrt(2 * width)
    return 0.5 * math.erfc(scaled)


def _steps(cdf: Sequence[float]) -> list[float]:
    edges = [0.0, *cdf, 1.0]
    return [max(0.0, right - left) for left, right in itertools.pairwise(edges)]


def _share_noise(before: Sketch, now: Sketch, chance: float) -> float:
    """What chance makes of a share that did not change."""
    one, other = max(before.count, 1), max(now.count, 1)
    pooled = (before.missing + now.missing) / (one + other)
    deviation = math.sqrt(max(pooled * (1 - pooled), 1e-9) * (1 / one + 1 / other))
    return math.sqrt(-2 * math.log(chance)) * deviation


def _short(value: float) -> str:
    return f"{value:.4g}"
