"""`headrace check` without its printing: runs a model in this process as a worker would, and finds
what is wrong with it.

class -> types -> load -> golden call -> inputs alone -> together -> beside bad ones -> at the edges
"""

from __future__ import annotations

import base64
import contextlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from headrace.cli.describe import type_of
from headrace.cli.synthesize import CannotSynthesize, edges, photo, synthesize
from headrace.cli.verdict import (
    is_finite,
    judged,
    milliseconds,
    problem_words,
    same,
    short,
    told,
    told_outcome,
)
from headrace.errors import ModelFailed, Problem, Refusal
from headrace.images import Image
from headrace.jobs import Form
from headrace.schema import Reader
from headrace.signature import Signature, SignatureError
from headrace.worker.child import ModelNotFound, Runner, find
from headrace.worker.frames import Start
from headrace.worker.golden import GoldenFailed, prove

ONE_EACH = "predict returns a list with one result, or one ItemError, per item"
CUT = 0.75  # of an image: the header is whole, the picture is not
ENOUGH = 8  # inputs to try together, where the model takes more
_canonical = msgspec.msgpack.Encoder().encode


class Finding(NamedTuple):
    """`mark`: "wrong" fails the check, "advice" does not. `hint`: what to do about it."""

    mark: Literal["ok", "advice", "wrong"]
    what: str
    detail: str = ""
    hint: str = ""


@dataclass
class Wanted:
    """What to examine. `inputs`: JSON, or the bytes of images; `batch`: how many together."""

    target: str
    folder: str = "."
    files: str = "."
    inputs: list[bytes] = field(default_factory=list)
    batch: int | None = None


def examine(wanted: Wanted) -> Iterator[Finding]:
    """Findings as they are made. What the model prints on stderr meanwhile is dropped."""
    findings = _stages(wanted)
    while True:
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                finding = next(findings)
            except StopIteration:
                return
        yield finding


def _stages(wanted: Wanted) -> Iterator[Finding]:
    exam = _Exam(wanted)
    for stage in (
        exam.find, exam.read_types, exam.load, exam.golden, exam.collect, exam.alone,
        exam.together, exam.beside_bad_items, exam.beside_a_crash, exam.at_the_edges,
    ):  # fmt: skip
        for finding in stage():
            yield finding
            if finding.mark == "wrong" and stage in (exam.find, exam.read_types, exam.load):
                return
        if stage in (exam.collect, exam.alone) and not exam.items:
            return
        if stage == exam.together and not exam.batches_well:
            return  # what it does to neighbours says nothing more


class _Recorded:
    """The model's `predict`, watched: what it returned last, and what went wrong first."""

    def __init__(self, predict: Callable[[list[Any]], Any]) -> None:
        self._predict = predict
        self.results: Any = None
        self.trap: Any = None  # an input that is made to raise
        self.reset()

    def reset(self) -> None:
        self.error: Exception | None = None
        self.misfit = ""  # "was given 4 items and returned 3 results"

    def __call__(self, items: list[Any]) -> Any:
        if self.trap is not None and any(item is self.trap for item in items):
            raise RuntimeError("made by headrace check")
        try:
            results = self.results = self._predict(items)
        except Exception as error:
            self.error = self.error or error
            raise
        if not isinstance(results, list) or len(results) != len(items):
            got = f"{len(results)} results" if isinstance(results, list) else type(results).__name__
            self.misfit = self.misfit or f"was given {len(items)} items and returned {got}"
        return results


class _Item(NamedTuple):
    """One input as it comes from the gateway. `made_up`: by us, not by the model's author."""

    name: str
    body: bytes
    made_up: bool = False


class _Exam:
    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.items: list[_Item] = []
        self.singles: list[bytes | Problem] = []
        self.repeatable = True
        self.batches_well = True

    # -- what it is ----------------------------------------------------------------------------

    def find(self) -> Iterator[Finding]:
        try:
            self.kind = find(self.wanted.target, self.wanted.folder)
        except ModelNotFound as error:
            yield Finding("wrong", "class", str(error).removeprefix("class = "))
            return
        except Exception as error:
            yield Finding("wrong", "class", f"its module raised {told(error)}")
            return
        detail = f"{self.kind.__name__}, served as {self.kind.name!r}, version {self.kind.version}"
        yield Finding("ok", "class", detail)
        if "__doc__" not in self.kind.__dict__ or not self.kind.__doc__:
            yield Finding(
                "advice", "docstring", "none", "its first line becomes the API's description"
            )

    def read_types(self) -> Iterator[Finding]:
        try:
            signature = Signature(self.kind)
            self.reader = Reader(signature.input_schema)
        except SignatureError as error:
            yield Finding("wrong", "types", str(error))
            return
        except Exception as error:
            yield Finding("wrong", "types", told(error))
            return
        words = f"{type_of(signature.input_schema)} -> {type_of(signature.output_schema)}"
        yield Finding("ok", "types", words)

    def load(self) -> Iterator[Finding]:
        wanted, began = self.wanted, time.perf_counter()
        try:
            self.runner = Runner(
                Start(
                    model=wanted.target,
                    folder=wanted.folder,
                    files=wanted.files,
                    device="cpu",
                    slot=0,
                    max_size=wanted.batch or 0,
                )
            )
        except Exception as error:
            hint = (
                "" if Path(wanted.files).is_dir() else f"{wanted.files} is no folder: see --files"
            )
            yield Finding("wrong", "load", f"raised {told(error)}", hint)
            return
        self.recorded = _Recorded(self.runner.model.predict)
        self.runner.model.predict = self.recorded  # type: ignore[method-assign]
        self.signature = self.runner.signature
        yield Finding("ok", "load", f"took {milliseconds(time.perf_counter() - began)}")

    def golden(self) -> Iterator[Finding]:
        try:
            given = self.runner.model.golden()
        except Exception as error:
            yield Finding("wrong", "golden call", f"golden() raised {told(error)}")
            return
        if given is None:
            hint = "golden() gives one input and its right output: readiness is proven with it"
            yield Finding("advice", "golden call", "none", hint)
            return
        began = time.perf_counter()
        try:
            prove(self.runner)
        except GoldenFailed as error:
            detail = str(error).removeprefix("golden call: ")
            if self.recorded.error:
                detail = f"predict raised {self._raised()}"
            yield Finding("wrong", "golden call", detail)
            return
        except Exception as error:
            hint = "golden() returns (input, expected output), or (input, function that judges)"
            yield Finding("wrong", "golden call", f"raised {told(error)}", hint)
            return
        yield Finding(
            "ok", "golden call", f"came out right in {milliseconds(time.perf_counter() - began)}"
        )
        yield from self._golden_over_the_wire(given[0], given[1])

    def _golden_over_the_wire(self, given: Any, expected: Any) -> Iterator[Finding]:
        """The golden input never left this process; a caller's comes as JSON."""
        try:
            body = self.reader.json(self.signature.encode(given, Form.JSON))
            [result] = self.runner.predict([self.signature.decode(body)])
        except (Refusal, TypeError) as error:
            hint = "the golden input must be of predict's input type"
            yield Finding("wrong", "golden call as JSON", told(error), hint)
            return
        right = judged(expected, result)
        if right:
            yield Finding("ok", "golden call as JSON", "comes out the same")
            self.items.append(_Item("golden input", body))
        else:
            detail = f"predict raised {self._raised()}" if self.recorded.error else short(result)
            hint = "after JSON the input is of the declared type: is the golden one, too?"
            yield Finding("wrong", "golden call as JSON", detail, hint)

    # -- inputs --------------------------------------------------------------------------------

    def collect(self) -> Iterator[Finding]:
        for number, given in enumerate(self.wanted.inputs, 1):
            name = f"input {number}"
            try:
                self.items.append(_Item(name, self._read(given)))
            except Refusal as refusal:
                yield Finding("wrong", name, f"refused: {problem_words(refusal.problem())}")
        authors = len(self.items)
        wished = max(self._batch(), 2)
        try:
            for variant in range(wished if authors < wished else 0):
                made = msgspec.json.encode(synthesize(self.reader.schema, variant))
                self.items.append(_Item("made-up input", self.reader.json(made), made_up=True))
        except (CannotSynthesize, Refusal) as error:
            if not authors:
                hint = "give one with --input, or write a golden call"
                yield Finding("wrong", "inputs", f"none could be made up: {error}", hint)
            return
        if not authors:
            yield Finding("ok", "inputs", f"{len(self.items)} made up from the types")

    def _read(self, given: bytes) -> bytes:
        """JSON, or an image, as the gateway would read it."""
        with contextlib.suppress(Refusal):
            Image(given)
            if self.reader.is_image:
                return _canonical(given)
        return self.reader.json(given)

    def _batch(self) -> int:
        return self.wanted.batch or min(self.runner.card.max_size, ENOUGH)

    def alone(self) -> Iterator[Finding]:
        """Each input by itself; made-up ones that the model cannot take are put aside."""
        authors = any(not item.made_up for item in self.items)
        kept, took_s = [], []
        for item in self.items:
            began = time.perf_counter()
            outcome = self._run([item.body])[0]
            took_s.append(time.perf_counter() - began)
            problem = self._judge(item, outcome)
            if problem is None:
                kept.append(item)
                self.singles.append(outcome)
            elif not (item.made_up and authors):
                yield problem
                self.items = []
                return
        self.items = kept
        answered = sum(isinstance(outcome, bytes) for outcome in self.singles)
        detail = f"{answered} of {len(kept)} answered, {milliseconds(min(took_s))} each"
        yield Finding("ok", "one at a time", detail)
        yield from self._refused()
        if any(
            not same(self._run([item.body])[0], single)
            for item, single in zip(kept, self.singles, strict=True)
        ):
            detail = "the same input gave another result the second time"
            hint = "no test can then show that a batch gives what singles give"
            yield Finding("advice", "repeatable", detail, hint)
            self.repeatable = False

    def _refused(self) -> Iterator[Finding]:
        for item, outcome in zip(self.items, self.singles, strict=True):
            if isinstance(outcome, Problem):
                hint = "" if not item.made_up else "give one that it takes with --input @FILE"
                yield Finding("advice", item.name, f"refused: {problem_words(outcome)}", hint)
                return

    def _judge(self, item: _Item, outcome: bytes | Problem) -> Finding | None:
        """What is wrong with the outcome of one input by itself."""
        if isinstance(outcome, Problem):
            if outcome.code != ModelFailed.default_code:
                return None  # the author's ItemError, which is an answer
            hint = "return an ItemError for an item that cannot be answered"
            if "cannot be written" in outcome.detail:
                hint = "a result must be of a type that has a JSON form: see predict's annotation"
                return Finding("wrong", f"result of {item.name}", self._unwritable(), hint)
            if self.recorded.misfit:
                return Finding("wrong", item.name, f"predict {self.recorded.misfit}", ONE_EACH)
            return Finding("wrong", item.name, f"predict raised {self._raised()}", hint)
        [result] = self.recorded.results
        try:
            self.signature.conforms(result)
            self.signature.encode(result, Form.CANONICAL)
        except (msgspec.ValidationError, NotImplementedError, TypeError, Refusal) as error:
            detail = f"{short(result)} is not {type_of(self.signature.output_schema)}: {error}"
            return Finding("wrong", f"result of {item.name}", detail, "see predict's annotation")
        if not is_finite(result):
            detail = f"{short(result)}: JSON knows no NaN or infinity and writes null"
            hint = "return an ItemError, or a number"
            return Finding("wrong", f"result of {item.name}", detail, hint)
        return None

    def _unwritable(self) -> str:
        try:
            self.signature.encode(self.recorded.results[0], Form.JSON)
        except Exception as error:
            return str(error)
        return "cannot be written"

    # -- together ------------------------------------------------------------------------------

    def _company(self, size: int) -> tuple[list[_Item], list[bytes | Problem]]:
        """`size` inputs with the outcome that each has by itself; they repeat where few are."""
        places = [place % len(self.items) for place in range(size)]
        return [self.items[p] for p in places], [self.singles[p] for p in places]

    def together(self) -> Iterator[Finding]:
        size = self._batch()
        if size < 2:
            yield Finding("ok", "in a batch", "not needed: Batching max_size = 1")
            return
        items, singles = self._company(size)
        began = time.perf_counter()
        outcomes = self._run([item.body for item in items])
        took_s = time.perf_counter() - began
        self.batches_well = False
        if self.recorded.misfit:
            yield Finding("wrong", "in a batch", f"predict {self.recorded.misfit}", ONE_EACH)
            return
        if isinstance(self.recorded.error, Refusal):
            hint = "return it in its item's place: a batch that raises is halved and run again"
            yield Finding("advice", "in a batch", f"predict raised {self._raised()}", hint)
        elif self.recorded.error is not None:
            yield Finding("wrong", "in a batch", f"of {size}: predict raised {self._raised()}")
            return
        for place, (got, alone) in enumerate(zip(outcomes, singles, strict=True)):
            if not self._agree(got, alone):
                detail = f"item {place} of {size} gave {told_outcome(got)}"
                hint = "predict must give the same whatever else is in the batch, in the same order"
                yield Finding("wrong", "in a batch", f"{detail}, alone {told_outcome(alone)}", hint)
                return
        self.batches_well = True
        given = "give what they give alone" if self.repeatable else "are answered"
        detail = f"{size} together {given}, in {milliseconds(took_s)}"
        yield Finding("ok", "in a batch", detail)

    def beside_bad_items(self) -> Iterator[Finding]:
        for name, body in self._bad_bodies():
            items, singles = self._company(max(1, self._batch() - 1))
            bodies = [item.body for item in items]
            outcomes = self._run([*bodies[:1], body, *bodies[1:]])
            yield self._beside(name, outcomes, singles)

    def beside_a_crash(self) -> Iterator[Finding]:
        items, singles = self._company(max(1, self._batch() - 1))
        decoded = [self.signature.decode(item.body) for item in items]
        bad = self.signature.decode(items[0].body)
        if bad is None or isinstance(bad, bool | int | float | str | bytes):
            bad = _Marked()
        self.recorded.trap = bad
        results = []
        for batch in self._batches([*decoded[:1], bad, *decoded[1:]]):
            results += self.runner.predict(batch)
        self.recorded.trap = None
        outcomes = [self._outcome(result) for result in results]
        yield self._beside("an item that makes predict raise", outcomes, singles)

    def _beside(
        self, name: str, outcomes: list[bytes | Problem], singles: list[bytes | Problem]
    ) -> Finding:
        """The one in second place must be refused, and its neighbours right."""
        what = f"beside {name}"
        bad = outcomes.pop(1)
        if isinstance(bad, bytes):
            return Finding("wrong", what, f"it was answered: {told_outcome(bad)}")
        for got, alone in zip(outcomes, singles, strict=True):
            if not self._agree(got, alone):
                detail = f"its neighbour gave {told_outcome(got)}, alone {told_outcome(alone)}"
                hint = "does predict keep something from the call before, or change its input?"
                return Finding("wrong", what, detail, hint)
        return Finding("ok", what, "it alone is refused, the others are right")

    def _agree(self, got: bytes | Problem, alone: bytes | Problem) -> bool:
        """Of a model that never says the same twice, that it answered must be enough."""
        return same(got, alone) if self.repeatable else isinstance(got, bytes)

    def _bad_bodies(self) -> Iterator[tuple[str, bytes]]:
        """What the gateway would let pass, or an older one did, and the model's types refuse."""
        for wrong in (None, "text", 1, {"no such field": 1}, [[["deep"]]]):
            body = _canonical(wrong)
            try:
                self.signature.decode(body)
            except Refusal:
                yield "an item of the wrong type", body
                break
        with contextlib.suppress(CannotSynthesize, Refusal):
            made = msgspec.json.encode(synthesize(self.reader.schema))
            whole = photo()
            cut = made.replace(
                base64.b64encode(whole), base64.b64encode(whole[: int(len(whole) * CUT)])
            )
            if cut != made:
                yield "an image that is cut short", self.reader.json(cut)

    # -- edges ---------------------------------------------------------------------------------

    def at_the_edges(self) -> Iterator[Finding]:
        """Inputs that the schema allows, but that authors forget: empty, zero, negative, huge."""
        failed = []
        for edge in edges(self.reader.schema):
            shown = msgspec.json.encode(edge).decode()
            try:
                body = self.reader.json(shown.encode())
            except Refusal:
                continue  # the types rule it out: well done
            outcome = self._run([body])[0]
            if isinstance(outcome, Problem) and outcome.code == ModelFailed.default_code:
                failed.append(f"{short(shown, 60)}: {self._raised() or outcome.detail}")
            elif isinstance(outcome, bytes) and not is_finite(self.recorded.results):
                failed.append(f"{short(shown, 60)}: NaN or infinity")
        if failed:
            hint = (
                "narrow the types (a Tensor's shape, msgspec.Meta limits), or return an ItemError"
            )
            yield Finding("advice", "at the edges", failed[0], hint)
        else:
            yield Finding("ok", "at the edges", "empty, zero, negative and huge inputs do no harm")

    # -- running -------------------------------------------------------------------------------

    def _run(self, bodies: list[bytes]) -> list[bytes | Problem]:
        """As the model process runs them, in batches that are no larger than its own."""
        self.recorded.reset()
        outcomes: list[bytes | Problem] = []
        for batch in self._batches(bodies):
            outcomes += self.runner.run([(Form.JSON, body) for body in batch])
        return outcomes

    def _batches(self, things: list[Any]) -> Iterator[list[Any]]:
        size = self._batch()
        return (things[at : at + size] for at in range(0, len(things), size))

    def _outcome(self, result: Any) -> bytes | Problem:
        if isinstance(result, Refusal):
            return result.problem()
        if isinstance(result, Exception):
            return ModelFailed(type(result).__name__).problem()
        return self.signature.encode(result, Form.JSON)

    def _raised(self) -> str:
        """What predict raised first, and where."""
        return told(self.recorded.error) if self.recorded.error else ""


class _Marked:
    """Stands for an item that makes predict raise, where its type has no identity of its own."""
