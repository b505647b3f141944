"""How a model is watched: what an operator writes, and what a worker tells the monitor. No I/O.

[models.wine.monitor]
inputs = ["alcohol", "hue"]          of these fields alone samples are kept
outputs = ["cultivar", "probability"]
segment = "region"
quality = {prediction = "cultivar", kind = "class", accuracy_least = 0.9}

A field is named by its path: "face.age", "values.0"; "" where the whole value is one number or
text. Of a number the number is kept, of a text at most 100 characters; of a longer text, of bytes
(an image) and of a list the length, and nothing of what it says.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

#: Where workers send samples on the broker.
TO_MONITOR = "monitor"
TEXT_MOST = 100  # characters that are kept of one value
FIELDS_MOST = 64  # of the inputs, and of the outputs

Field = Annotated[str, Meta(max_length=100, pattern=r"^[A-Za-z0-9_.-]*$")]
Fields = Annotated[tuple[Field, ...], Meta(max_length=FIELDS_MOST)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
#: What is kept of one field; None: it was not there.
Value = float | str | None


class _Written(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """By a person, in a file."""


class Quality(_Written, frozen=True, kw_only=True):
    """What predictions are worth, by the labels that come later. It is bad where even the better
    end of the confidence interval (95 %) is beyond a limit. None: not judged."""

    #: The field of the output that labels are compared with.
    prediction: Field
    #: class: equal or not. probability: of the label true, or 1. number: how far off.
    kind: Literal["class", "probability", "number"] = "class"
    accuracy_least: Share | None = None
    auc_least: Share | None = None
    #: Mean distance of the foretold probability from what came (ECE, ten bins).
    calibration_most: Share | None = None
    #: Mean absolute error.
    error_most: Annotated[float, Meta(ge=0)] | None = None
    #: Labels of one version and segment before anything is said.
    least: Annotated[int, Meta(ge=10)] = 200
    #: Of the calls of so long a time.
    window_hours: Positive = 24.0

    def __post_init__(self) -> None:
        of_kind = {
            "class": {"accuracy_least"},
            "probability": {"accuracy_least", "auc_least", "calibration_most"},
            "number": {"error_most"},
        }[self.kind]
        for name in ("accuracy_least", "auc_least", "calibration_most", "error_most"):
            if getattr(self, name) is not None and name not in of_kind:
                raise ValueError(f"{name} with kind = {self.kind!r}: expected {sorted(of_kind)}")


class Drift(_Written, frozen=True, kw_only=True):
    """What is a change. Each holds only where it is more than chance makes of so few samples."""

    #: Population stability index: 0.1 is usually called some change, 0.25 a great one.
    psi: Positive = 0.25
    #: Greatest distance of two distributions of a number (Kolmogorov-Smirnov).
    ks: Share = 0.2
    #: ... is believed below this probability that it is chance, all fields together.
    chance: Annotated[float, Meta(gt=0, lt=1)] = 0.001
    #: Change of the share of calls without the field.
    missing: Share = 0.1
    #: Fields that have to change before it is an alarm.
    fields: Annotated[int, Meta(ge=1)] = 1


class Monitor(_Written, frozen=True, kw_only=True):
    """How one model is watched. Only the fields that are named here are kept of a call."""

    inputs: Fields = ()
    outputs: Fields = ()
    #: A field of the input whose values are judged apart too, at most 20 of them; "": none.
    segment: Field = ""
    #: Most samples that one worker keeps in a minute: drawn by lot from all calls.
    samples_per_minute: Annotated[int, Meta(ge=1, le=600_000)] = 600
    #: What is compared: the samples of so long ...
    window_minutes: Annotated[float, Meta(gt=0, le=10_080)] = 60.0
    #: ... with the first of the version: those of so long, and at least `least` of them.
    reference_hours: Annotated[float, Meta(ge=0)] = 24.0
    #: Samples on each side before anything is said.
    least: Annotated[int, Meta(ge=20)] = 500
    #: Judged so often ...
    every_s: Annotated[float, Meta(ge=0.2)] = 60.0
    #: ... and it is an alarm when found so many times on end, and over when not found so many.
    begins: Annotated[int, Meta(ge=1)] = 3
    ends: Annotated[int, Meta(ge=1)] = 5
    #: Samples and labels are removed after so long.
    keep_hours: Positive = 168.0
    drift: Drift = Drift()
    quality: Quality | None = None

    def __post_init__(self) -> None:
        if not self.inputs and not self.outputs:
            raise ValueError("expected inputs, outputs, or both: nothing would be kept")
        if self.quality and self.quality.prediction not in self.outputs:
            raise ValueError(f"quality.prediction = {self.quality.prediction!r}: not in outputs")

    def names(self) -> tuple[str, ...]:
        """Of what is kept, as `Sample.values` has it."""
        return (*(f"in.{name}" for name in self.inputs), *(f"out.{name}" for name in self.outputs))


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """What is kept of one answered call."""

    #: The request's, or the stored job's: what a label names.
    id: str
    at: float  # Unix time
    took_ms: float  # of its batch
    segment: str
    values: list[Value]  # by `Monitor.names`


class Samples(msgspec.Struct, array_like=True, frozen=True):
    """What one worker drew since it last told. `names`: it may have read other settings."""

    model: str
    version: str
    names: list[str]
    samples: list[Sample]
    #: Calls that they were drawn from.
    of: int


class Label(msgspec.Struct, frozen=True):
    """What was right, told later. Times are Unix seconds."""

    id: str
    label: float | str
    #: When it became known, and when we were told.
    at: float
    received: float


def at_path(value: Any, path: str) -> Value:
    """What is kept of a field of plain data."""
    if path:
        for part in path.split("."):
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            else:
                return None
    return kept(value)


def kept(value: Any) -> Value:
    """Numbers, short texts, truth values as text; of all else its length."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str) and len(value) <= TEXT_MOST:
        return value
    if isinstance(value, msgspec.msgpack.Ext):
        return float(memoryview(value.data).nbytes)
    return float(len(value)) if isinstance(value, str | bytes | list | dict) else None


samples_bytes = msgspec.msgpack.Encoder().encode
read_samples = msgspec.msgpack.Decoder(Samples).decode
