"""What a version must reach before it is registered: data in, verdicts out. Pure.

latency_p95_ms = 5.0
[[metrics]]
name = "accuracy"
least = 0.95
worse_by = 0.02        # than production, at most
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

_NUMBER = "{:.6g}"
#: What a schema says for people: it may change without the API changing.
_WORDS = ("title", "description", "examples")


class BadGates(ValueError):
    """Gates that cannot be: the message names the key."""


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of one metric. `worse_by` is absolute, in the metric's own unit."""

    name: str
    least: float | None = None
    most: float | None = None
    worse_by: Annotated[float, Meta(ge=0)] | None = None
    better: Literal["higher", "lower"] = "higher"

    def __post_init__(self) -> None:
        if self.least is None and self.most is None and self.worse_by is None:
            raise ValueError(f"the gate of {self.name}: expected least, most or worse_by")


class Gates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    metrics: tuple[Metric, ...] = ()
    #: Of one input in the model, on the machine that trains.
    latency_p95_ms: Annotated[float, Meta(gt=0)] | None = None
    #: Inputs and outputs are what production's are.
    same_schema: bool = True


class Production(msgspec.Struct, frozen=True):
    """The version in production. `measured`: its metrics are of this run's data; else they are
    those it was registered with, and `why` says the reason."""

    version: str
    metrics: dict[str, float]
    measured: bool
    schemas: dict[str, Any]
    why: str = ""


class Evaluation(msgspec.Struct, frozen=True):
    """What is known of a version before it is judged."""

    metrics: dict[str, float]
    #: "input" and "output" of the model, as JSON schemas.
    schemas: dict[str, Any]
    #: "right", "wrong: ..." or "" where the model has no golden call.
    golden: str = ""
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    #: Inputs and what the version answered.
    calls: list[dict[str, Any]] = []
    production: Production | None = None


class Verdict(msgspec.Struct, frozen=True):
    """One gate, and why it is open or shut."""

    gate: str
    passed: bool
    why: str
    measured: float | None = None


def read(path: Path) -> Gates:
    """Raises BadGates."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Gates)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadGates(f"{path}: {error}") from None


def judge(gates: Gates, found: Evaluation) -> list[Verdict]:
    """Every gate, also behind one that is shut."""
    verdicts = []
    if found.golden:
        right = found.golden == "right"
        why = "the golden call came out right" if right else f"the golden call is {found.golden}"
        verdicts.append(Verdict("golden", right, why))
    for metric in gates.metrics:
        verdicts += _metric(metric, found)
    if gates.latency_p95_ms is not None:
        verdicts.append(_latency(gates.latency_p95_ms, found.latency_p95_ms))
    if gates.same_schema:
        verdicts.append(_schema(found))
    return verdicts


def _metric(metric: Metric, found: Evaluation) -> list[Verdict]:
    name, value = metric.name, found.metrics.get(metric.name)
    bounds: list[tuple[str, float, bool]] = []
    if metric.least is not None:
        bounds.append(("at least", metric.least, value is not None and value >= metric.least))
    if metric.most is not None:
        bounds.append(("at most", metric.most, value is not None and value <= metric.most))
    verdicts = []
    for words, bound, kept in bounds:
        got = f"{name} is {_n(value)}" if value is not None else f"{name} was not measured"
        why = f"{got}, {words} {_n(bound)} is wanted"
        verdicts.append(Verdict(f"{name} {words} {_n(bound)}", kept, why, value))
    if metric.worse_by is not None:
        verdicts.append(_compared(metric, metric.worse_by, value, found.production))
    return verdicts


def _compared(
    metric: Metric, worse_by: float, value: float | None, production: Production | None
) -> Verdict:
    name = metric.name
    gate = f"{name} against production"
    if production is None:
        return Verdict(gate, True, f"{name}: nothing is in production yet", value)
    theirs = production.metrics.get(name)
    if value is None or theirs is None:
        whose = "this version" if value is None else f"version {production.version} in production"
        return Verdict(gate, False, f"{name} of {whose} is not known", value)
    worse = theirs - value if metric.better == "higher" else value - theirs
    where = "on the same data" if production.measured else f"as registered ({production.why})"
    side = f"{_n(abs(worse))} {'better' if worse < 0 else 'worse'} than" if worse else "equal to"
    why = (
        f"{name} is {_n(value)}, {side} version {production.version}'s {_n(theirs)} {where};"
        f" {_n(worse_by)} worse is allowed"
    )
    # What floats lose in a subtraction is not the model's fault.
    return Verdict(gate, worse <= worse_by + 1e-12, why, value)


def _latency(budget_ms: float, p95_ms: float | None) -> Verdict:
    gate = f"latency p95 at most {_n(budget_ms)} ms"
    if p95_ms is None:
        why = "not measured: the model has no golden call, and the pipeline no examples"
        return Verdict(gate, False, why)
    why = f"p95 is {p95_ms:.3g} ms, at most {_n(budget_ms)} is wanted"
    return Verdict(gate, p95_ms <= budget_ms, why, p95_ms)


def _schema(found: Evaluation) -> Verdict:
    gate = "same schema as production"
    if found.production is None:
        return Verdict(gate, True, "schema: nothing is in production yet")
    theirs = found.production.schemas
    changed = [
        side for side in ("input", "output")
        if bare(found.schemas.get(side)) != bare(theirs.get(side))
    ]  # fmt: skip
    version = found.production.version
    if changed:
        return Verdict(gate, False, f"{' and '.join(changed)} differ from version {version}'s")
    return Verdict(gate, True, f"inputs and outputs are those of version {version}")


def bare(schema: Any) -> Any:
    """A schema without what it says for people. Names of fields stay, also a "title"."""
    if isinstance(schema, list):
        return [bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            found[key] = {name: bare(each) for name, each in value.items()}
        elif key not in _WORDS:
            found[key] = bare(value)
    return found


def _n(value: float) -> str:
    return _NUMBER.format(value)
