"""The report on one model: one HTML file that needs nothing else. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from headrace.monitor import plots
from headrace.monitor.gather import FieldSeen, Seen
from headrace.monitor.shelf import State
from headrace.monitoring import Monitor
from headrace.retraining import clock

_WORDS = {
    "changed": ("bad", "changed"), "bad": ("bad", "bad"), "same": ("good", "as before"),
    "good": ("good", "good"), "few": ("few", "too few to say"),
}  # fmt: skip


def report(
    state: State, policy: Monitor, seen: Sequence[Seen], alarms: Sequence[tuple[str, float, str]]
) -> str:
    """`alarms`: those that are open, by name, beginning and detail."""
    model = escape(state.model)
    body = [
        f"<h1>{model}</h1><p class=quiet>{clock(state.at)} · {state.samples:,} samples of "
        f"{state.calls:,} calls, {state.labels:,} labels</p>",
        _summary(state, alarms),
    ]
    body += [_section(each, state, policy) for each in seen]
    if state.found:
        body.append(_found(state))
    body.append(
        "<p class=quiet>Before: the version's first calls. Now: its last hour. PSI of 0.1 is "
        "usually called some change, of 0.25 a great one; only what is more than chance counts. "
        "Intervals are of 95 %. Times are UTC.</p>"
    )
    return _PAGE.replace("@TITLE@", f"{model}: monitoring").replace("@BODY@", "\n".join(body))


def _summary(state: State, alarms: Sequence[tuple[str, float, str]]) -> str:
    rows = [
        f"<li><span class='tag bad'>alarm</span> <b>{escape(name)}</b> since {clock(began)}: "
        f"{escape(detail)}</li>"
        for name, began, detail in alarms
    ]
    for kind, verdicts in (("drift", state.drift), ("quality", state.quality)):
        rows += [
            f"<li>{_tag(verdict.verdict)} {kind}: {escape(verdict.text)}</li>"
            for verdict in verdicts
        ]
    return f"<ul class=said>{''.join(rows)}</ul>" if rows else "<p>Nothing was judged yet.</p>"


def _tag(verdict: str) -> str:
    kind, word = _WORDS[verdict]
    return f"<span class='tag {kind}'>{word}</span>"


def _section(seen: Seen, state: State, policy: Monitor) -> str:
    title = f"Version {escape(seen.version)}"
    if seen.segment:
        title += f", {escape(policy.segment)} = {escape(seen.segment)}"
    verdicts = {
        field.field: field
        for each in state.drift
        if (each.version, each.segment) == (seen.version, seen.segment)
        for field in each.fields
    }
    cards = [_card(field, verdicts.get(field.name), policy) for field in seen.fields]
    # What changed first.
    cards.sort(key=lambda card: "tag bad" not in card)
    parts = [f"<h2>{title}</h2>"]
    if seen.quality:
        limits = {figure.name: figure.limit for each in state.quality for figure in each.figures}
        drawn = "".join(
            f"<figure><figcaption>{escape(name)}</figcaption>"
            f"{plots.line(points, limits.get(name), name)}</figure>"
            for name, points in seen.quality.items()
        )
        parts.append(f"<h3>Quality</h3><div class=cards>{drawn}</div>")
    parts.append(f"<h3>Fields</h3><div class=cards>{''.join(cards)}</div>")
    parts.append(_table(seen.fields))
    return "\n".join(parts)


def _card(field: FieldSeen, verdict: object, policy: Monitor) -> str:
    said = getattr(verdict, "verdict", "few")
    text = getattr(verdict, "text", "")
    numeric = field.before.numeric if field.before.count else field.now.numeric
    drawn = (plots.histogram if numeric else plots.kinds)(field.before, field.now)
    over = plots.line(field.psi, policy.drift.psi, "PSI", 0.0)
    return (
        f"<figure><figcaption>{escape(field.name)} {_tag(said)}</figcaption>{drawn}"
        f"<p class=quiet>PSI by the hour</p>{over}<p class=quiet>{escape(text)}</p></figure>"
    )


def _table(fields: Sequence[FieldSeen]) -> str:
    rows = ""
    for field in fields:
        for word, side in (("before", field.before), ("now", field.now)):
            ends = side.quantiles([0.05, 0.5, 0.95])
            numbers = [side.mean, side.deviation, *ends] if ends else []
            cells = "".join(f"<td>{value:.4g}</td>" for value in numbers) or "<td colspan=5>"
            if not ends:
                first = list(side.shares().items())[:3]
                cells += escape(", ".join(f"{name} {share:.0%}" for name, share in first) or "none")
                cells += "</td>"
            name = f"<th rowspan=2>{escape(field.name)}</th>" if word == "before" else ""
            rows += (
                f"<tr>{name}<td>{word}</td><td>{side.count:,}</td>"
                f"<td>{side.missing_share:.1%}</td>{cells}</tr>"
            )
    return (
        "<details><summary>Figures</summary><div class=wide><table><thead><tr><th>field<th><th>"
        "calls<th>missing<th>mean<th>deviation<th>5 %<th>median<th>95 %</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _found(state: State) -> str:
    rows = "".join(
        f"<tr><td>{clock(each.at)}<td>{escape(each.version)}<td>{escape(each.what)}"
        f"<td>{each.before:.4g}<td>{each.after:.4g}</tr>"
        for each in reversed(state.found)
    )
    return (
        "<h2>Changes in the stream</h2><p class=quiet>Found by ADWIN, call by call: the mean "
        "before, and of late.</p><div class=wide><table><thead><tr><th>when<th>version<th>of<th>"
        f"before<th>after</tr></thead><tbody>{rows}</tbody></table></div>"
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #5b6570; --ground: #fff; --card: #f6f8fa;
  --rim: #d8dee4; --was: #9aa7b4; --now: #0969da; --good: #1a7f37; --bad: #cf222e; --few: #6e7781; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9198a1; --ground: #0d1117;
  --card: #151b23; --rim: #30363d; --was: #6b7682; --now: #4493f8; --good: #3fb950; --bad: #f85149;
  --few: #848d97; } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 72rem; color: var(--ink);
  background: var(--ground); font: 15px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.7rem } h2 { margin: 2rem 0 0; font-size: 1.25rem }
h3 { margin: 1rem 0 .4rem; font-size: 1rem }
.quiet { margin: .2rem 0; color: var(--quiet); font-size: .87rem }
.said { margin: 1rem 0; padding: 0; list-style: none }
.said li { padding: .45rem .7rem; border: 1px solid var(--rim); border-bottom: 0;
  background: var(--card); overflow-wrap: anywhere }
.said li:first-child { border-radius: 8px 8px 0 0 }
.said li:last-child { border-bottom: 1px solid var(--rim); border-radius: 0 0 8px 8px }
.said li:only-child { border-radius: 8px }
.tag { display: inline-block; padding: 0 .5em; border: 1px solid; border-radius: 1em;
  font-size: .78rem; font-weight: 600; white-space: nowrap }
.good { color: var(--good) } .bad { color: var(--bad) } .few { color: var(--few) }
.cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)) }
figure { margin: 0; padding: .7rem .8rem; border: 1px solid var(--rim); border-radius: 8px;
  background: var(--card); min-width: 0 }
figcaption { font-weight: 600; margin-bottom: .3rem; overflow-wrap: anywhere }
svg { display: block; width: 100%; height: auto; max-width: 400px }
svg text { fill: var(--quiet); font: 10px system-ui, sans-serif } svg .name { text-anchor: end }
.was { fill: var(--was); opacity: .55 } .now { fill: var(--now); opacity: .8 }
.axis { stroke: var(--rim); fill: none } .line { stroke: var(--now); fill: none; stroke-width: 1.6 }
circle { fill: var(--now) } .band { fill: var(--now); opacity: .15 }
.whisker { stroke: var(--now); opacity: .4; stroke-width: 3 }
.limit { stroke: var(--bad); stroke-dasharray: 4 3; fill: none }
summary { margin-top: .8rem; cursor: pointer; color: var(--quiet) }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rim); text-align: left }
td { text-align: right } td:first-child, td[colspan] { text-align: left }
</style></head><body>
@BODY@
</body></html>
"""
