"""The seven steps of one run: what each is given, does, and leaves behind.

extract    ()                     -> data
validate   data                   -> data
prepare    data                   -> what training and evaluation need
train      that, an empty folder  -> the files in it
evaluate   that, a loaded model   -> Evaluation, of production's version too
gate       the Evaluation         -> Judgement
register   files, Evaluation      -> Registered
"""

from __future__ import annotations

import sys
import tempfile
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from headrace.errors import Unavailable
from headrace.pipeline import outputs
from headrace.pipeline.author import Pipeline, finite
from headrace.pipeline.gates import Evaluation, Gates, Production, Verdict, judge, read
from headrace.pipeline.kept import Kept
from headrace.pipeline.outputs import Folder
from headrace.pipeline.run import Run
from headrace.pipeline.shelf import MANIFEST, Manifest, Shelf, Version, format_of, goldens
from headrace.pipeline.trial import Trial
from headrace.signature import Signature, card


class DataInvalid(Exception):
    """The data do not fit the pipeline's schema."""


class Done(msgspec.Struct):
    """`value` is kept as `kind`; `note` is for people."""

    value: Any
    kind: Any
    note: str
    metrics: dict[str, float] = {}


class Trained(msgspec.Struct, frozen=True):
    files: dict[str, str]
    metrics: dict[str, float]


class Judgement(msgspec.Struct, frozen=True):
    passed: bool
    verdicts: list[Verdict]


class Registered(msgspec.Struct, frozen=True):
    model: str
    number: int
    digest: str


class Steps:
    """`work` is a folder for files in the making."""

    def __init__(
        self, pipeline: Pipeline[Any], run: Run, kept: Kept, shelf: Shelf, work: Path
    ) -> None:
        self.pipeline, self.run = pipeline, run
        self._kept, self._shelf, self._work = kept, shelf, work

    def do(self, name: str) -> Done:
        """One step, of what those before it left. Raises what it raises."""
        done: Done = getattr(self, f"_{name}")()
        return done

    # -- the author's --------------------------------------------------------------------------

    def _extract(self) -> Done:
        data = self.pipeline.extract()
        return Done(data, self._kind("extract"), outputs.note(data))

    def _validate(self) -> Done:
        data = self._output("extract", self._kind("extract"))
        try:
            checked = self.pipeline.validate(data)
        except Exception as error:
            raise _readable(error) from error
        schema = self.pipeline.schema
        said = "no schema" if schema is None else f"fits {_schema_name(schema)}"
        return Done(checked, self._data_kind("validate"), said)

    def _prepare(self) -> Done:
        data = self._output("validate", self._data_kind("validate"))
        prepared = self.pipeline.prepare(data)
        return Done(prepared, self._data_kind("prepare"), outputs.note(prepared))

    def _train(self) -> Done:
        with self._folder("train") as folder:
            told = self.pipeline.train(self._prepared(), folder)
            files = outputs.keep_folder(folder, self._kept).files
        if not files:
            raise ValueError("train wrote no file into its folder: there is nothing to load")
        metrics = _metrics(told) if isinstance(told, Mapping) else {}
        noted = f"{len(files)} file{'s'[: len(files) > 1]}: {', '.join(files)}"
        return Done(Trained(files, metrics), Trained, noted, metrics)

    def _evaluate(self) -> Done:
        prepared = self._prepared()
        with self._folder("evaluate") as folder:
            outputs.lay_out(Folder(self._trained().files), folder, self._kept)
            trial = Trial(self.pipeline.model, folder)
            metrics = _metrics(self.pipeline.evaluate(prepared, trial.model))
            inputs = trial.inputs(self.pipeline.examples(prepared))
            latency = trial.latency(inputs)
            found = Evaluation(
                metrics=metrics,
                schemas=trial.schemas(),
                golden=trial.golden(),
                latency_p50_ms=latency and latency.p50_ms,
                latency_p95_ms=latency and latency.p95_ms,
                calls=trial.calls(inputs),
                production=self._production(prepared),
            )
        noted = f"beside version {found.production.version}" if found.production else ""
        return Done(msgspec.to_builtins(found), dict, noted, metrics)

    def _production(self, prepared: Any) -> Production | None:
        """The version in production, on the same data. Data that it was trained on favour it: the
        new one must be better than that."""
        version = self._shelf.production(self.pipeline.model.name)
        if version is None:
            return None
        known = version.manifest.card
        schemas = {"input": known.input, "output": known.output} if known else {}
        number = str(version.number)
        with self._folder("production") as folder:
            try:
                self._shelf.fetch(version, folder)
                trial = Trial(self.pipeline.model, folder)
                metrics = _metrics(self.pipeline.evaluate(prepared, trial.model))
            except Unavailable:
                raise
            except Exception as error:  # its files may be of another form than today's class reads
                why = f"{type(error).__name__}: {error}"[:300]
                return Production(number, dict(version.manifest.metrics), False, schemas, why)
        return Production(number, metrics, True, schemas)

    # -- the house's ---------------------------------------------------------------------------

    def _gate(self) -> Done:
        verdicts = judge(self._gates(), self._evaluation())
        shut = [verdict.gate for verdict in verdicts if not verdict.passed]
        noted = f"{len(verdicts) - len(shut)} of {len(verdicts)} gates are open"
        if shut:
            noted += f"; shut: {', '.join(shut)}"
        elif not verdicts:
            noted = "no gates"
        judgement = Judgement(not shut, verdicts)
        return Done(msgspec.to_builtins(judgement), dict, noted)

    def _register(self) -> Done:
        with self._folder("register") as folder:
            outputs.lay_out(Folder(self._trained().files), folder, self._kept)
            manifest = msgspec.json.format(msgspec.json.encode(self._manifest()))
            (folder / MANIFEST).write_bytes(manifest)
            version: Version = self._shelf.register(folder)
        registered = Registered(version.model, version.number, version.digest)
        return Done(registered, Registered, f"{version.model} {version.number}")

    def _manifest(self) -> Manifest:
        found, run, kind = self._evaluation(), self.run, self.pipeline.model
        code = run.code_now()
        profile = {
            name: value
            for name, value in (
                ("latency_p50_ms", found.latency_p50_ms),
                ("latency_p95_ms", found.latency_p95_ms),
            )
            if value is not None
        }
        return Manifest(
            model=kind.name,
            format=format_of(list(self._trained().files)),
            target=f"{kind.__module__}:{kind.__qualname__}",
            card=card(kind, Signature(kind)),
            golden=goldens(found.calls),
            profile=profile,
            metrics=found.metrics,
            run=run.id,
            commit=code.commit + ("+" if code.dirty else ""),
            tags={"pipeline": run.target, "data": run.data, "source": code.source},
        )

    def _gates(self) -> Gates:
        gates = self.pipeline.gates
        if isinstance(gates, Gates):
            return gates
        module = sys.modules[type(self.pipeline).__module__].__file__ or ""
        return read(Path(module).parent / gates)

    # -- what the steps before left ------------------------------------------------------------

    def _prepared(self) -> Any:
        return self._output("prepare", self._data_kind("prepare"))

    def _trained(self) -> Trained:
        trained: Trained = self._output("train", Trained)
        return trained

    def _evaluation(self) -> Evaluation:
        return msgspec.convert(self._output("evaluate", dict), Evaluation)

    def _output(self, name: str, kind: Any) -> Any:
        step = self.run.finished(name)
        if step is None:
            raise RuntimeError(f"{name} has not run")
        return outputs.load(step.output, kind, self._kept)

    def _kind(self, name: str) -> Any:
        """The return annotation of the author's method."""
        method = getattr(type(self.pipeline), name)
        return typing.get_type_hints(method, include_extras=True).get("return", Any)

    def _data_kind(self, name: str) -> Any:
        """The same of steps that hand on what they got where the author did not write them."""
        if getattr(type(self.pipeline), name) is not getattr(Pipeline, name):
            return self._kind(name)
        return self._kind("extract") if name == "validate" else self._data_kind("validate")

    def _folder(self, name: str) -> _Folder:
        self._work.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _Folder(name, self._work)


class _Folder(tempfile.TemporaryDirectory[str]):
    """Gone when left; what a process that was killed left is the run's, and swept with it."""

    def __init__(self, name: str, below: Path) -> None:
        super().__init__(prefix=f"{name}-", dir=below)

    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())


def _metrics(told: Any) -> dict[str, float]:
    if not isinstance(told, Mapping):
        raise TypeError(f"evaluate returned a {type(told).__name__}: expected metrics by name")
    return {str(name): finite(str(name), value) for name, value in told.items()}


def _schema_name(schema: Any) -> str:
    columns = getattr(schema, "columns", None)
    name = getattr(schema, "name", None) or getattr(schema, "__name__", None) or "the schema"
    return f"{name} ({len(columns)} columns)" if isinstance(columns, dict) else str(name)


MOST_CASES = 5


def _readable(error: Exception) -> Exception:
    """pandera's report in a line a case; other errors as they are."""
    cases = getattr(error, "failure_cases", None)
    rows = getattr(cases, "iter_rows", None)
    if cases is None:
        return error
    if rows is not None:
        found = list(rows(named=True))
    elif hasattr(cases, "to_dict"):
        found = cases.to_dict("records")
    else:
        return DataInvalid(f"the data do not fit the schema: {cases}")
    found.sort(key=lambda case: [str(case.get(key)) for key in ("column", "check", "index")])
    lines = [
        f"{case['column'] or case['failure_case']}: {case['check']}"
        + (f", found {case['failure_case']}" if case["column"] else "")
        + (f" in row {case['index']}" if case.get("index") not in (None, "") else "")
        for case in found[:MOST_CASES]
    ]
    more = f"\nand {len(found) - MOST_CASES} more" if len(found) > MOST_CASES else ""
    return DataInvalid("the data do not fit the schema\n" + "\n".join(lines) + more)
