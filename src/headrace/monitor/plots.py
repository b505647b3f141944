"""Small plots as SVG, by themselves: no script, no font, no address. Colours are the page's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from itertools import pairwise

from headrace.monitor import drift
from headrace.monitor.gather import Point
from headrace.monitor.sketch import Sketch

WIDE, HIGH = 340, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 8, 22
STEPS = 24  # of a histogram
KINDS = 8  # of a text that are drawn


def histogram(before: Sketch, now: Sketch) -> str:
    """Shares of equal steps, from the 0.5 % to the 99.5 % of both: before an area, now bars."""
    edges = [each for side in (before, now) for each in side.quantiles([0.005, 0.995])]
    if not edges:
        return ""
    low, high = min(edges), max(edges)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    points = [low + (high - low) * n / STEPS for n in range(STEPS + 1)]
    was, are = (_shares(side, points) for side in (before, now))
    most = max([*was, *are]) or 1.0
    step = (WIDE - _LEFT - _RIGHT) / STEPS
    bars = "".join(
        f'<rect class="now" x="{_LEFT + n * step + 1:.1f}" y="{_y(share, 0, most):.1f}" '
        f'width="{step - 2:.1f}" height="{_y(0, 0, most) - _y(share, 0, most):.1f}"/>'
        for n, share in enumerate(are)
    )
    line = "".join(
        f"L{_LEFT + n * step:.1f} {_y(share, 0, most):.1f}"
        f"L{_LEFT + (n + 1) * step:.1f} {_y(share, 0, most):.1f}"
        for n, share in enumerate(was)
    )
    ground = _y(0, 0, most)
    area = f'<path class="was" d="M{_LEFT} {ground:.1f}{line}L{WIDE - _RIGHT} {ground:.1f}Z"/>'
    return _svg(
        area + bars + _across(most, "0%") + _below(_short(low), _short(high)), "before and now"
    )


def kinds(before: Sketch, now: Sketch) -> str:
    """Shares of the most frequent texts, two bars each."""
    was, are, names = drift.compared(before, now)
    rows = sorted(zip(was, are, names, strict=True), key=lambda row: -max(row[0], row[1]))[:KINDS]
    if not rows:
        return ""
    most, high, left = max(max(a, b) for a, b, _ in rows) or 1.0, 22, 110
    wide = WIDE - left - 48
    drawn = ""
    for n, (a, b, name) in enumerate(rows):
        y = n * high + 4
        shown = name if len(name) <= 15 else f"{name[:14]}…"
        drawn += (
            f'<text class="name" x="{left - 6}" y="{y + 12}">{escape(shown)}'
            f"<title>{escape(name)}</title></text>"
            f'<rect class="was" x="{left}" y="{y}" width="{wide * a / most:.1f}" height="7"/>'
            f'<rect class="now" x="{left}" y="{y + 8}" width="{wide * b / most:.1f}" height="7"/>'
            f'<text x="{left + wide * max(a, b) / most + 5:.1f}" y="{y + 12}">{b:.0%}</text>'
        )
    return _svg(drawn, "before and now", len(rows) * high + 8)


def line(
    points: Sequence[Point], limit: float | None, name: str, floor: float | None = None
) -> str:
    """Over time, with the interval behind it where there is one."""
    if not points:
        return ""
    values = [v for p in points for v in (p.value, p.low, p.high) if v is not None]
    values = [v for v in values if math.isfinite(v)] + ([] if limit is None else [limit])
    low, high = min(values), max(values)
    low = min(low, floor) if floor is not None else low
    if high - low < 1e-9:
        low, high = low - 0.05, high + 0.05
    elif floor is None or low < floor:
        low -= (high - low) * 0.08
    high += (high - low) * 0.08
    start, end = points[0].at, points[-1].at
    xs = [
        _LEFT + (WIDE - _LEFT - _RIGHT) * ((p.at - start) / (end - start) if end > start else 0.5)
        for p in points
    ]
    ys = [_y(p.value, low, high) for p in points]
    drawn = _band(points, xs, low, high)
    if limit is not None:
        y = _y(limit, low, high)
        drawn += f'<path class="limit" d="M{_LEFT} {y:.1f}H{WIDE - _RIGHT}"/>'
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
    drawn += f'<path class="line" d="M{path}"/>'
    for x, y, point in zip(xs, ys, points, strict=True):
        told = f"{_clock(point.at)}: {_short(point.value)}"
        drawn += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"><title>{told}</title></circle>'
    times = (_clock(start), _clock(end)) if end > start else ("", _clock(end))
    scale = f'<text class="name" x="{_LEFT - 5}" y="{_TOP + 8}">{_short(high)}</text>'
    scale += f'<text class="name" x="{_LEFT - 5}" y="{HIGH - _BOTTOM}">{_short(low)}</text>'
    return _svg(drawn + scale + _below(*times), name)


def _band(points: Sequence[Point], xs: Sequence[float], low: float, high: float) -> str:
    """From the low to the high ends; of a single point an upright line."""
    ends = [
        (x, _y(p.low, low, high), _y(p.high, low, high))
        for p, x in zip(points, xs, strict=True)
        if p.low is not None and p.high is not None and math.isfinite(p.low + p.high)
    ]
    if len(ends) == 1:
        [(x, bottom, top)] = ends
        return f'<path class="whisker" d="M{x:.1f} {bottom:.1f}V{top:.1f}"/>'
    there = [f"{x:.1f} {top:.1f}" for x, _, top in ends]
    back = [f"{x:.1f} {bottom:.1f}" for x, bottom, _ in reversed(ends)]
    return f'<path class="band" d="M{"L".join(there + back)}Z"/>' if ends else ""


def _shares(side: Sketch, points: Sequence[float]) -> list[float]:
    cdf = [0.0, *side.cdf(points[1:-1]), 1.0 if side.numbers else 0.0]
    return [max(0.0, right - left) for left, right in pairwise(cdf)]


def _y(value: float, low: float, high: float) -> float:
    share = (min(max(value, low), high) - low) / ((high - low) or 1.0)
    return HIGH - _BOTTOM - share * (HIGH - _TOP - _BOTTOM)


def _across(most: float, least: str) -> str:
    ground = HIGH - _BOTTOM
    return (
        f'<path class="axis" d="M{_LEFT} {ground}H{WIDE - _RIGHT}"/>'
        f'<text class="name" x="{_LEFT - 5}" y="{_TOP + 8}">{most:.0%}</text>'
        f'<text class="name" x="{_LEFT - 5}" y="{ground}">{least}</text>'
    )


def _below(left: str, right: str) -> str:
    return (
        f'<text x="{_LEFT}" y="{HIGH - 6}">{left}</text>'
        f'<text class="name" x="{WIDE - _RIGHT}" y="{HIGH - 6}">{right}</text>'
    )


def _svg(inner: str, name: str, high: int = HIGH) -> str:
    return (
        f'<svg viewBox="0 0 {WIDE} {high}" width="{WIDE}" height="{high}" role="img" '
        f'aria-label="{escape(name)}">{inner}</svg>'
    )


def _short(value: float) -> str:
    return f"{value:.3g}"


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%d %b %H:%M}"
