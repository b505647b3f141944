"""`headrace check`: good models have nothing wrong, and of each bad one the right thing is said."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from headrace.cli import app
from headrace.cli.examine import Finding, Wanted, examine

MODELS = '''
from dataclasses import dataclass
from typing import Annotated

import numpy as np

import headrace
from headrace import Image, ItemError

Row = Annotated[np.ndarray, headrace.Tensor("float32", (4,))]


@dataclass
class Pair:
    left: Image
    right: Image


class Doc(headrace.Model):
    """A model."""

    batching = headrace.Batching(max_size=4)


class Good(Doc):
    """Adds up."""

    def golden(self):
        return [1.0, 2.0], 3.0

    def predict(self, rows: list[list[float]]) -> list[float]:
        return [sum(row) for row in rows]


class GoodArrays(Doc):
    """Adds up."""

    def golden(self):
        return np.ones(4, "float32"), lambda result: result == 4

    def predict(self, rows: list[Row]) -> list[float]:
        return list(np.stack(rows).sum(axis=1))


class GoodPairs(Doc):
    """Compares."""

    def predict(self, pairs: list[Pair]) -> list[float | ItemError]:
        return [float(p.left.array().mean() - p.right.array().mean()) for p in pairs]


class OneByOne(headrace.Model):
    """Takes one."""

    def predict(self, items: list[int]) -> list[int]:
        [item] = items
        return [item]


class Picky(Doc):
    """Refuses."""

    def predict(self, images: list[Image]) -> list[float | ItemError]:
        return [ItemError("no-face", "there is no face") for _ in images]


class NoTypes(Doc):
    """No."""

    def predict(self, items):
        return items


class OddType(Doc):
    """No."""

    def predict(self, items: list[type]) -> list[int]:
        return items


class LoadFails(Doc):
    """No."""

    def load(self, files):
        raise OSError("no weights here")

    def predict(self, items: list[int]) -> list[int]:
        return items


class GoldenWrong(Doc):
    """No."""

    def golden(self):
        return 1, 3

    def predict(self, items: list[int]) -> list[int]:
        return items


class GoldenNoPair(Doc):
    """No."""

    def golden(self):
        return 1

    def predict(self, items: list[int]) -> list[int]:
        return items


class GoldenOnlyHere(Doc):
    """The golden input is a list; a caller's is an array."""

    def golden(self):
        return [1.0, 1.0, 1.0, 1.0], 4.0

    def predict(self, rows: list[Row]) -> list[float]:
        return [4.0 if isinstance(row, list) else 0.0 for row in rows]


class WrongType(Doc):
    """No."""

    def predict(self, items: list[int]) -> list[int]:
        return [str(item) for item in items]


class WrongLength(Doc):
    """No."""

    def predict(self, items: list[int]) -> list[int]:
        return items[:1]


class NoList(Doc):
    """No."""

    def predict(self, items: list[int]) -> list[int]:
        return np.array(items)


class Mixed(Doc):
    """Normalises over the batch."""

    def predict(self, rows: list[Row]) -> list[float]:
        stacked = np.stack(rows)
        return [float(total) for total in (stacked / stacked.max()).sum(axis=1)]


class Backwards(Doc):
    """No."""

    def predict(self, items: list[int]) -> list[int]:
        return items[::-1]


class Counting(Doc):
    """Never the same."""

    def load(self, files):
        self.calls = 0

    def predict(self, items: list[int]) -> list[int]:
        self.calls += 1
        return [self.calls for _ in items]


class NotANumber(Doc):
    """No."""

    def predict(self, items: list[float]) -> list[float]:
        return [float("nan") for _ in items]


class NoJson(Doc):
    """No."""

    def predict(self, items: list[int]) -> list[int]:
        return [object() for _ in items]


class Raises(Doc):
    """No."""

    def predict(self, items: list[int]) -> list[int]:
        return [item // 0 for item in items]


class OnlySingles(Doc):
    """No."""

    def predict(self, items: list[int]) -> list[int]:
        if len(items) > 1:
            raise ValueError("shape")
        return items


class RaisesRefusal(Doc):
    """No."""

    def predict(self, items: list[int]) -> list[int]:
        if 2 in items:
            raise ItemError("two", "no two")
        return items


class Empty(Doc):
    """Forgets the empty list."""

    def predict(self, rows: list[list[float]]) -> list[float]:
        return [max(row) for row in rows]


class Spoils(Doc):
    """Changes its input after a short batch was seen: neighbours of a refused item suffer."""

    def load(self, files):
        self.spoiled = False

    def predict(self, items: list[int]) -> list[int]:
        if len(items) == 3:
            self.spoiled = True
        return [item + 100 * self.spoiled for item in items]


class NoDoc(headrace.Model):
    def predict(self, items: list[int]) -> list[int]:
        return items
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("models")
    (path / "checked_models.py").write_text(MODELS)
    (path / "checked_broken.py").write_text("1 / 0\n")
    (path / "checked_needs.py").write_text("import a_library_that_is_not_there\n")
    before = list(sys.path)
    yield str(path)
    sys.path[:] = before
    for name in [name for name in sys.modules if name.startswith("checked_")]:
        del sys.modules[name]


def findings(folder: str, name: str, *inputs: bytes, batch: int | None = None) -> list[Finding]:
    target = name if ":" in name else f"checked_models:{name}"
    return list(examine(Wanted(target, folder, folder, list(inputs), batch)))


def of_mark(found: list[Finding], mark: str) -> list[str]:
    return [f"{finding.what}: {finding.detail}" for finding in found if finding.mark == mark]


@pytest.mark.parametrize("name", ["Good", "GoodArrays", "GoodPairs", "OneByOne", "Picky"])
def test_a_good_model_has_nothing_wrong(folder: str, name: str) -> None:
    found = findings(folder, name)
    assert of_mark(found, "wrong") == []
    assert found[-1].what == "at the edges"


@pytest.mark.parametrize(
    ("name", "what", "detail"),
    [
        ("checked_nothing:X", "class", "no module 'checked_nothing'"),
        ("checked_models:Nope", "class", "has no headrace.Model Nope"),
        ("checked_models:Pair", "class", "has no headrace.Model Pair"),
        ("checked_broken:X", "class", "ZeroDivisionError: division by zero (checked_broken.py:1)"),
        ("checked_needs:X", "class", "a_library_that_is_not_there"),
        ("NoTypes", "types", "expected one parameter annotated list[Input]"),
        ("OddType", "types", "is not a type that Headrace can document"),
        ("LoadFails", "load", "raised OSError: no weights here (checked_models.py:"),
        ("GoldenWrong", "golden call", "got 1, expected 3"),
        ("GoldenNoPair", "golden call", "raised TypeError"),
        ("GoldenOnlyHere", "golden call as JSON", "0.0"),
        ("WrongType", "result of made-up input", "Expected `int`, got `str`"),
        ("WrongLength", "in a batch", "was given 4 items and returned 1 results"),
        ("NoList", "made-up input", "returned ndarray"),
        ("Mixed", "in a batch", "item 0 of 4 gave"),
        ("Backwards", "in a batch", "item 0 of 4 gave 4, alone 1"),
        ("NotANumber", "result of made-up input", "NaN or infinity"),
        ("NoJson", "result of made-up input", "which has no JSON form"),
        ("Raises", "made-up input", "predict raised ZeroDivisionError"),
        ("OnlySingles", "in a batch", "of 4: predict raised ValueError: shape"),
        ("Spoils", "beside an item of the wrong type", "its neighbour gave 101, alone 1"),
    ],
)
def test_what_is_wrong_is_said(folder: str, name: str, what: str, detail: str) -> None:
    [first, *_] = of_mark(findings(folder, name), "wrong")
    assert first.startswith(f"{what}: ") and detail in first


@pytest.mark.parametrize(
    ("name", "what", "detail"),
    [
        ("NoDoc", "docstring", "none"),
        ("GoodPairs", "golden call", "none"),
        ("Picky", "made-up input", "no-face: there is no face"),
        ("Counting", "repeatable", "another result the second time"),
        ("RaisesRefusal", "in a batch", "ItemError two: no two"),
        ("Empty", "at the edges", "[]: ValueError: max() "),
    ],
)
def test_advice_is_given(folder: str, name: str, what: str, detail: str) -> None:
    found = findings(folder, name)
    assert of_mark(found, "wrong") == []
    assert any(a.startswith(f"{what}: ") and detail in a for a in of_mark(found, "advice"))


def test_neighbours_are_tried(folder: str) -> None:
    whats = [finding.what for finding in findings(folder, "GoodPairs")]
    assert "beside an item of the wrong type" in whats
    assert "beside an image that is cut short" in whats
    assert "beside an item that makes predict raise" in whats


def test_inputs_of_ones_own(folder: str) -> None:
    out = io.BytesIO()
    Pillow.new("RGB", (32, 32)).save(out, "PNG")
    found = findings(folder, "Picky", out.getvalue())
    assert any("input 1: refused: no-face" in line for line in of_mark(found, "advice"))
    found = findings(folder, "Good", b"[1, 2]", b'["x"]')
    assert of_mark(found, "wrong") == ["input 2: refused: validation-failed: Expected `float`, "
                                       "got `str` at /0"]  # fmt: skip


def test_the_batch_may_be_chosen(folder: str) -> None:
    found = findings(folder, "OneByOne", batch=3)
    assert any("in a batch: of 3: predict raised ValueError" in f for f in of_mark(found, "wrong"))


def test_the_command(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    good = CliRunner().invoke(app, ["check", "checked_models:Good", "-i", "[1, 2]"])
    assert good.exit_code == 0, good.output
    assert "✓ golden call" in good.output and "nothing wrong" in good.output
    bad = CliRunner().invoke(app, ["check", "checked_models:GoldenWrong"])
    assert bad.exit_code == 1
    assert "✗ golden call: got 1, expected 3" in bad.output and "1 wrong" in bad.output
    as_json = CliRunner().invoke(app, ["check", "checked_models:Good", "--json"])
    found = [Finding(**finding) for finding in msgspec.json.decode(as_json.stdout)]
    assert {finding.mark for finding in found} == {"ok"}


def test_an_input_file(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("row.json").write_text("[4, 5]")
    found = CliRunner().invoke(app, ["check", "checked_models:Good", "-i", "@row.json"])
    assert found.exit_code == 0
    missing = CliRunner().invoke(app, ["check", "checked_models:Good", "-i", "@none.json"])
    assert missing.exit_code == 2 and "none.json: No such file" in missing.output


def test_what_the_model_prints_on_stderr_does_not_disturb(
    folder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    findings(folder, "Raises")
    assert capfd.readouterr().err == ""
