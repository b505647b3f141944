"""The model process's part of a batch, without the process."""

import re
import sys
import time

import msgspec
import pytest
from msgspec import structs

from headrace import Batching, ItemError, Model
from headrace.errors import Problem
from headrace.jobs import Form
from headrace.model import kebab
from headrace.registry.version import Golden
from headrace.worker.child import ModelNotFound, Runner, find
from headrace.worker.frames import Start
from headrace.worker.golden import GoldenFailed, prove, warm

pack = msgspec.msgpack.encode


class Shaky(Model):
    """Doubles; fails in every way a model can."""

    batching = Batching(max_size=8)
    seen: list[list[int]]

    def load(self, files):
        self.seen = []

    def golden(self):
        return 2, 4

    def predict(self, items: list[int]) -> list[float]:
        self.seen.append(list(items))
        if 13 in items:
            raise RuntimeError("secret path /etc/x")
        if 14 in items:
            return []
        return [ItemError("odd", "no odd numbers") if i % 2 else float(i * 2) for i in items]


@pytest.fixture
def runner():
    return Runner(Start(f"{__name__}:Shaky", "", ".", "cpu", 0, 8))


def run(runner, *bodies):
    return runner.run([(Form.JSON, pack(body)) for body in bodies])


def test_one_and_many_come_out_alike(runner):
    many = run(runner, 2, 3, 4)
    assert many == [run(runner, 2)[0], run(runner, 3)[0], run(runner, 4)[0]]
    assert many[0] == b"4.0"
    assert many[1].code == "odd" and many[1].status == 422


def test_a_body_of_the_wrong_type_fails_alone_and_never_reaches_predict(runner):
    good, bad = run(runner, 2, "two")
    assert good == b"4.0"
    assert isinstance(bad, Problem) and bad.code == "validation-failed"
    assert runner.model.seen == [[2]]


@pytest.mark.parametrize("culprit", [13, 14])
def test_one_bad_item_among_good_ones_fails_alone(runner, culprit):
    outcomes = run(runner, 2, 4, culprit, 6, 8, 10, 12)
    assert [o for o in outcomes if isinstance(o, bytes)] == [
        b"4.0", b"8.0", b"12.0", b"16.0", b"20.0", b"24.0",
    ]  # fmt: skip
    failed = outcomes[2]
    assert failed.code == "model-failed" and failed.status == 500
    assert "secret" not in failed.detail
    assert runner.model.seen.count([culprit]) == 2, "a single is tried once more"


def test_golden_and_warm(runner):
    assert prove(runner)
    assert [size for size, _ in warm(runner, 8)] == [1, 8]
    runner.model.predict = lambda items: time.sleep(0.15) or [1.0] * len(items)
    assert [size for size, _ in warm(runner, 8)] == [1], "a slow model is ready without"
    del runner.model.predict
    runner.model.golden = lambda: (2, 5)
    with pytest.raises(GoldenFailed, match=r"got 4\.0, expected 5"):
        prove(runner)
    runner.model.golden = lambda: (2, lambda result: result > 100)
    with pytest.raises(GoldenFailed):
        prove(runner)
    runner.model.golden = lambda: (3, 6.0)
    with pytest.raises(GoldenFailed, match="odd"):
        prove(runner)


class Known(Shaky):
    """Without a golden call of its own."""

    def golden(self):
        return None


def known(*calls, files="."):
    return Runner(Start(f"{__name__}:Known", "", files, "cpu", 0, 8, known=list(calls)))


def test_the_golden_calls_of_a_version(tmp_path):
    (tmp_path / "in.json").write_text("4")
    right = [Golden(input=2, output=4), Golden(file="in.json", output=8.0001)]
    proven = known(*right, files=str(tmp_path))
    assert prove(proven)
    assert [size for size, _ in warm(proven, 8)] == [1, 8], "with the first one's input"
    assert not prove(known())
    assert warm(known(), 8) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (Golden(input=2, output=5), "golden call 2 of the version: got 4.0, expected 5"),
        (Golden(input=2, output=4.1, tolerance=1e-2), "got 4.0, expected 4.1"),
        (Golden(input=3, output=6), "odd"),
        (Golden(input="two", output=4), "not one of this class"),
        (Golden(file="away.json", output=4), "not one of this class"),
    ],
)
def test_a_golden_call_of_the_version_that_comes_out_wrong(call, message):
    with pytest.raises(GoldenFailed, match=re.escape(message)):
        prove(known(Golden(input=2, output=4), call))


def test_a_version_with_code_of_its_own(tmp_path):
    for name, version in (("beside", 1), ("within", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "coded.py").write_text(
            "import headrace\n"
            "class Coded(headrace.Model):\n"
            f"    version = '{version}'\n"
            "    def predict(self, items: list[int]) -> list[int]: return items\n"
        )
    start = Start("coded:Coded", str(tmp_path / "beside"), str(tmp_path / "within"), "cpu", 0, 8)
    folders = list(sys.path)
    try:
        assert Runner(structs.replace(start, code=True)).card.version == "2"
    finally:
        sys.path[:] = folders
        sys.modules.pop("coded", None)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere:Model", "no module 'nowhere'"),
        (f"{__name__}:Nobody", "has no headrace.Model Nobody"),
        (f"{__name__}:pack", "has no headrace.Model pack"),
        ("plain", 'expected "module:Class"'),
    ],
)
def test_a_class_that_is_not_there(target, message):
    with pytest.raises(ModelNotFound, match=message):
        find(target, "")


def test_names():
    assert kebab("FaceMatch") == "face-match"
    assert kebab("OCRPage") == "ocr-page"
    assert Shaky.name == "shaky"
    with pytest.raises(ValueError, match="expected 1 to 63"):
        type("Bad", (Model,), {"name": "Not A Name"})
