"""Is the new version worse than the one in production? Calls of both, of the same time. Pure.

errors, refusals   share of the calls, above production's   bounds of the difference (Newcombe)
latency            p95, in times of production's            how many calls are above what is allowed
predictions        distance of the distributions            Kolmogorov-Smirnov, total variation
answers            of a shadow: the same as were given      told, and not judged

Each is asked each second while a version is watched. So "bad" is said only of what chance makes
once in some thousand times, and then comes on top of what is allowed; what is above it and may be
chance is doubtful, and waited for.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec.structs import replace

from headrace.deploy.evidence import Counts, Seen
from headrace.deployments import Gates, Verdict

SURE_Z = 3.3  # one side: chance does it once in two thousand times
SURE = 0.001
SEEN_LEAST = 30  # predictions of each version
LATE = 0.05  # of the calls are above a p95
LATE_SECONDS = 6  # in which calls are late

Grade = Literal["good", "few", "doubtful", "bad"]
GRADES: tuple[Grade, ...] = ("good", "few", "doubtful", "bad")


def judge(
    new: Counts, stable: Counts, seen: tuple[Seen, Seen], gates: Gates, only: Sequence[str] = ()
) -> list[Verdict]:
    """`seen`: predictions of the new and of the stable version. `only`: those gates; all else."""
    made = [
        _share("errors", "fail", new.failed, stable.failed, new, stable, gates.errors_above, gates),
        _share(
            "refusals", "are refused", new.refused, stable.refused, new, stable,
            gates.refusals_above, gates,
        ),
        _latency(new, stable, gates),
    ]  # fmt: skip
    if gates.predictions is not None:
        made.append(_predictions(*seen, gates.predictions, _calls(new, stable)))
    if new.same or new.other or new.missing:
        made.append(_answers(new))
    return [verdict for verdict in made if not only or verdict.gate in only]


def worst(verdicts: Iterable[Verdict]) -> Verdict | None:
    """None: none of them speaks against it."""
    found = max(verdicts, key=lambda each: GRADES.index(each.verdict), default=None)
    return None if found is None or found.verdict == "good" else found


def merged(whole: Sequence[Verdict], recent: Sequence[Verdict]) -> list[Verdict]:
    """Of the whole time, but where the last seconds of it are bad."""
    bad = {each.gate: each for each in recent if each.verdict == "bad"}
    return [bad.get(each.gate, each) for each in whole]


def _calls(new: Counts, stable: Counts) -> tuple[int, int]:
    return new.calls, stable.calls


# -- errors, refusals ------------------------------------------------------------------------------


def _share(
    gate: str,
    words: str,
    of_new: int,
    of_stable: int,
    new: Counts,
    stable: Counts,
    above: float,
    gates: Gates,
) -> Verdict:
    n, m = _calls(new, stable)
    here, there = of_new / n if n else 0.0, of_stable / m if m else 0.0
    limit = there + above
    if n < gates.least_calls or m < gates.least_calls:
        grade: Grade = "few"
        text = few(n, m, gates.least_calls)
    else:
        grade = "good"
        if here > limit:
            sure = least_difference(of_new, n, of_stable, m) > above
            grade = "bad" if sure else "doubtful"
        text = f"{here:.1%} of its calls {words}, {there:.1%} of production's"
    return Verdict(
        gate=gate, verdict=grade, new=here, stable=there, limit=limit, new_calls=n,
        stable_calls=m, text=text,
    )  # fmt: skip


def few(n: int, m: int, least: int) -> str:
    return f"{n} calls of it and {m} of production's are too few to judge, {least} are needed"


def least_difference(hits: int, n: int, others: int, m: int, z: float = SURE_Z) -> float:
    """The lower bound of hits/n - others/m (Newcombe's, of Wilson's intervals)."""
    p, q = hits / n, others / m
    low, _ = wilson(hits, n, z)
    _, high = wilson(others, m, z)
    return p - q - math.sqrt((p - low) ** 2 + (high - q) ** 2)


def wilson(hits: int, n: int, z: float) -> tuple[float, float]:
    """The interval of a share."""
    p, w = hits / n, z * z / n
    middle = (p + w / 2) / (1 + w)
    half = z / (1 + w) * math.sqrt(p * (1 - p) / n + w / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


# -- latency ---------------------------------------------------------------------------------------


def _latency(new: Counts, stable: Counts, gates: Gates) -> Verdict:
    n, m = new.took_ms.total(), stable.took_ms.total()
    unknown = Verdict(
        gate="latency",
        verdict="few",
        new_calls=n,
        stable_calls=m,
        text=few(n, m, gates.least_calls),
    )
    if n < gates.least_calls or m < gates.least_calls:
        return unknown
    here, there = quantile(new.took_ms, 1 - LATE), quantile(stable.took_ms, 1 - LATE)
    limit = _allowed(there, gates)
    grade: Grade = "good"
    if here > limit:
        late = sum(count for ms, count in new.took_ms.items() if ms > limit)
        # What production would have above it, were its times that much longer.
        as_late = sum(c for ms, c in stable.took_ms.items() if _allowed(ms, gates) > limit)
        sure = least_difference(late, n, as_late, m) > 0 and _lasts(new, limit)
        grade = "bad" if sure else "doubtful"
    text = f"its p95 is {here:.4g} ms, production's {there:.4g} ms"
    return replace(unknown, verdict=grade, new=here, stable=there, limit=limit, text=text)


def _lasts(new: Counts, limit: float) -> bool:
    """Calls that are late in the same second have one reason, which may be a busy machine."""
    late = sum(max(took_ms) > limit for took_ms in new.seconds.values())
    return late >= max(LATE_SECONDS, len(new.seconds) / 3)


def _allowed(ms: float, gates: Gates) -> float:
    return max(ms * gates.latency_times, ms + gates.latency_above_ms)


def quantile(took_ms: Counter[float], share: float) -> float:
    """Of counts by upper bounds; 0 of none."""
    left = share * took_ms.total()
    for ms in sorted(took_ms):
        left -= took_ms[ms]
        if left <= 0:
            return ms
    return 0.0


# -- predictions -----------------------------------------------------------------------------------


def _predictions(new: Seen, stable: Seen, limit: float, calls: tuple[int, int]) -> Verdict:
    """The field that is furthest from what chance explains."""
    found: list[tuple[int, float, str]] = []
    for name in sorted(new.keys() & stable.keys()):
        grade, distance = compare(new[name], stable[name], limit)
        found.append((GRADES.index(grade), distance, name))
    nothing = Verdict(
        gate="predictions", verdict="good", limit=limit, new_calls=calls[0], stable_calls=calls[1],
        text="no predictions of both versions were looked at",
    )  # fmt: skip
    if not found:
        return nothing
    place, distance, name = max(found)
    what = f" of {name}" if name else ""
    text = f"the distributions{what} are {distance:.2f} apart, {limit:g} is allowed"
    if GRADES[place] == "few":
        text = f"too few predictions to compare: {SEEN_LEAST} of each version are needed"
    return replace(nothing, verdict=GRADES[place], new=distance, text=text)


def compare(
    new: Sequence[float | str], stable: Sequence[float | str], limit: float
) -> tuple[Grade, float]:
    """And the distance, 0 to 1."""
    n, m = len(new), len(stable)
    if n < SEEN_LEAST or m < SEEN_LEAST:
        return "few", 0.0
    if any(isinstance(value, str) for value in (*new, *stable)):
        distance, expected, most = variation([str(v) for v in new], [str(v) for v in stable])
    else:
        distance = kolmogorov([float(v) for v in new], [float(v) for v in stable])
        spread = math.sqrt((n + m) / (n * m))
        expected, most = 0.87 * spread, math.sqrt(math.log(2 / SURE) / 2) * spread
    if distance - most > limit:
        return "bad", distance
    return ("doubtful" if distance - expected > limit else "good"), distance


def kolmogorov(new: Sequence[float], stable: Sequence[float]) -> float:
    """The greatest distance of the two distributions. What is no number is the greatest of all."""
    here, there = sorted(map(_ordered, new)), sorted(map(_ordered, stable))
    return max(
        abs(bisect_right(here, at) / len(here) - bisect_right(there, at) / len(there))
        for at in {*here, *there}
    )


def _ordered(value: float) -> float:
    return math.inf if math.isnan(value) else value


def variation(new: Sequence[str], stable: Sequence[str]) -> tuple[float, float, float]:
    """The total variation, what chance makes of it in the mean, and at most."""
    here, there = Counter(new), Counter(stable)
    n, m = len(new), len(stable)
    distance = expected = 0.0
    for value in {*here, *there}:
        distance += abs(here[value] / n - there[value] / m) / 2
        share = (here[value] + there[value]) / (n + m)
        expected += math.sqrt(2 / math.pi * share * (1 - share) * (1 / n + 1 / m)) / 2
    beyond = math.sqrt(math.log(1 / SURE) / 2 * (1 / n + 1 / m))
    return distance, expected, expected + beyond


# -- answers of a shadow ---------------------------------------------------------------------------


def _answers(new: Counts) -> Verdict:
    compared = new.same + new.other
    share = new.same / compared if compared else 0.0
    text = f"{share:.1%} of its {compared:,} answers are those that were given"
    if new.missing:
        text += f"; {new.missing:,} did not come"
    return Verdict(
        gate="answers", verdict="good", new=share, new_calls=compared + new.missing, text=text
    )
