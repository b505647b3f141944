"""What the author of a pipeline writes: up to five methods, each a step.

    class Wines(Pipeline[Params]):
        model = WineCultivar                                   # the class that serves it
        schema = DataFrameSchema({...})                        # pandera's
        gates = Gates(metrics=(Metric("accuracy", least=0.95, worse_by=0.02),))

        def extract(self) -> pl.DataFrame: ...
        def prepare(self, wines: pl.DataFrame) -> Split: ...
        def train(self, split: Split, folder: Path) -> None: ...       # writes what `load` reads
        def evaluate(self, split: Split, model: WineCultivar) -> dict[str, float]: ...

What a step returns is kept by its digest and read back for the next one, so a run that goes on
after a crash gets what it would have got. It may hold frames of polars or pandas, numpy arrays,
bytes, numbers, text, lists, dicts, and dataclasses or structs of those: not just any object, for
nothing is pickled. The return annotation says the type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from headrace.model import Model, kebab
from headrace.pipeline import outputs
from headrace.pipeline.gates import Gates

P = TypeVar("P")
Told = Callable[[dict[str, float]], None]


class Pipeline(Generic[P]):
    """Subclass this. `self.params` are the values of the run, of the type in the brackets: a
    dataclass or a struct with a default for each field; None where there are no parameters."""

    name: ClassVar[str] = ""  # set by the class; kebab case of the class name by default
    #: The class that serves what is trained: golden call, schema and latency are taken from it.
    model: ClassVar[type[Model]]
    #: A pandera schema or model that the extracted data must fit; None: nothing is checked.
    schema: ClassVar[Any] = None
    #: What a version must reach, or the TOML file that says so, beside the module.
    gates: ClassVar[Gates | str] = Gates()
    #: How often a step is run again where it raises: {"extract": 2}.
    retries: ClassVar[Mapping[str, int]] = {}

    params: P

    def __init__(self, params: P | None = None) -> None:
        self.params = params if params is not None else params_type(type(self))()
        self._told: Told = _nobody

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = kebab(cls.__name__)

    def extract(self) -> Any:
        """The data, from where they are."""
        raise NotImplementedError(f"{type(self).__name__} has no extract")

    def validate(self, data: Any) -> Any:
        """The data, checked. Raises what pandera raises."""
        return data if self.schema is None else self.schema.validate(data, lazy=True)

    def prepare(self, data: Any) -> Any:
        """What training and evaluation need of the data."""
        return data

    def train(self, data: Any, folder: Path) -> Any:
        """Writes into the folder what the model's `load` is given. May return metrics."""
        raise NotImplementedError(f"{type(self).__name__} has no train")

    def evaluate(self, data: Any, model: Any) -> Mapping[str, float]:
        """Metrics of a loaded model. Run on the new one, and on the one in production."""
        raise NotImplementedError(f"{type(self).__name__} has no evaluate")

    def examples(self, data: Any) -> list[Any]:
        """Some inputs of the model: latency is measured with them, golden calls are made of them.
        Without any, the model's own golden call serves."""
        return []

    def report(self, **metrics: float) -> None:
        """Progress inside a step, shown as it comes, and kept: `self.report(loss=0.3)`."""
        self._told({name: finite(name, value) for name, value in metrics.items()})

    def told_by(self, told: Told) -> None:
        """Who hears what the steps report."""
        self._told = told


def _nobody(metrics: dict[str, float]) -> None:
    pass


@dataclass
class _None:
    """The parameters of a pipeline that has none."""


def params_type(kind: type[Pipeline[Any]]) -> type[Any]:
    """What stands in the brackets of `Pipeline[...]`."""
    for each in kind.__mro__:
        for base in each.__dict__.get("__orig_bases__", ()):
            origin, given = get_origin(base), get_args(base)
            if isinstance(origin, type) and issubclass(origin, Pipeline) and given:
                found = given[0]
                if isinstance(found, type) and outputs.fields(found) is not None:
                    return found
    return _None


def finite(name: str, value: Any) -> float:
    """A metric as a float. Raises ValueError for what is none, or not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} = {value!r}: expected a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} = {number}: expected a finite number")
    return number
