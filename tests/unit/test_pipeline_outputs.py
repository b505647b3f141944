"""What a step returned comes back as it was, from files that are what they were."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.pipeline import outputs
from headrace.pipeline.kept import Kept, Lost
from headrace.pipeline.outputs import Folder, OutputError


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "kept")


@dataclass
class Part:
    rows: np.ndarray
    name: str = "x"


@dataclass
class Split:
    train: Part
    test: Part | None
    names: list[str] = field(default_factory=list)
    pair: tuple[int, Part] | None = None


class Point(NamedTuple):
    x: float
    y: float


class Tree(msgspec.Struct):
    children: "list[Tree]"
    data: bytes = b""


def there_and_back(value: Any, kind: Any, kept: Kept) -> Any:
    return outputs.load(outputs.keep(value, kind, kept), kind, kept)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if outputs.fields(one) is not None:
        names = outputs.fields(one) or ()
        return type(one) is type(other) and all(
            same(getattr(one, n), getattr(other, n)) for n in names
        )
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3, Any),
        ({"a": [1, 2.5, None, True], "b": {"c": "ü"}}, Any),
        (b"\x00\xff", bytes),
        (np.arange(6, dtype=np.int16).reshape(2, 3), np.ndarray),
        (np.array(["a", "ü"]), Any),
        (Part(np.zeros(2)), Part),
        (Part(np.zeros(2)), Annotated[Part, "said"]),
        (Split(Part(np.zeros(2)), None, ["a"]), Split),
        (Point(1.0, 2.0), Point),
        (Tree([Tree([], b"a"), Tree([])]), Tree),
        ((1, "a"), tuple[int, str]),
        (Folder({"a/b": "0" * 64}), Folder),
    ],
)
def test_it_comes_back(value: Any, kind: Any, kept: Kept):
    assert same(there_and_back(value, kind, kept), value)


def test_records_inside(kept: Kept):
    split = Split(Part(np.ones(3)), Part(np.ones(1), "y"), pair=(3, Part(np.zeros(1))))
    back = there_and_back({"a": [split]}, dict[str, list[Split]], kept)
    assert same(back["a"][0].train, split.train) and same(back["a"][0].test, split.test)
    assert back["a"][0].pair[0] == 3 and same(back["a"][0].pair[1], split.pair[1])


_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
_json = st.recursive(
    _leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_json)
def test_all_json_comes_back(kept: Kept, value: Any):
    assert there_and_back(value, Any, kept) == value


def test_the_same_is_the_same_digest(kept: Kept):
    one, other = Part(np.arange(3)), Part(np.arange(3))
    assert outputs.keep(one, Part, kept) == outputs.keep(other, Part, kept)
    assert outputs.keep(one, Part, kept) != outputs.keep(Part(np.arange(4)), Part, kept)


@pytest.mark.parametrize(
    ("value", "kind", "why"),
    [
        (object(), Any, "it is a builtins.object, which cannot be kept"),
        ({"model": object()}, Any, "model is a builtins.object"),
        (Part(np.zeros(1)), Any, "it is a Part, and its annotation says .*Any"),
        (Part(np.array([object()])), Part, "rows is an array of object: expected numbers"),
        ({1: 2}, Any, "the key 1: expected text"),
        ([set()], list, r"\[0\] is a builtins.set"),
    ],
)
def test_what_cannot_be_kept_says_so(value: Any, kind: Any, why: str, kept: Kept):
    with pytest.raises(OutputError, match=why):
        outputs.keep(value, kind, kept)


def test_a_record_is_made_from_the_annotation_alone(kept: Kept):
    digest = outputs.keep(Part(np.zeros(1)), Part, kept)
    with pytest.raises(OutputError, match="expected the annotation of a record with rows, name"):
        outputs.load(digest, int, kept)


def test_what_is_said_of_it():
    assert outputs.note(Part(np.zeros((3, 2)))) == "rows: array of 3 x 2"
    assert outputs.note([1, 2]) == "2 items" and outputs.note(b"abc") == "3 bytes"
    assert outputs.note(3) == ""


# -- folders and files -----------------------------------------------------------------------------


def test_a_folder_comes_back(tmp_path: Path, kept: Kept):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "model.onnx").write_bytes(b"m")
    (tmp_path / "a" / "x.json").write_text("{}")
    folder = outputs.keep_folder(tmp_path / "a", kept)
    assert list(folder.files) == ["b/model.onnx", "x.json"]
    out = tmp_path / "out"
    out.mkdir()
    outputs.lay_out(folder, out, kept)
    assert (out / "b" / "model.onnx").read_bytes() == b"m"


def test_links_stay_out(tmp_path: Path, kept: Kept):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("/etc/passwd")
    with pytest.raises(OutputError, match="link: expected plain files"):
        outputs.keep_folder(tmp_path / "a", kept)


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out"])
def test_no_name_leads_out(name: str, tmp_path: Path, kept: Kept):
    digest = kept.put(b"x")
    with pytest.raises(OutputError, match="leads out"):
        outputs.lay_out(Folder({name: digest}), tmp_path, kept)


def test_what_was_changed_is_noticed_and_mended(tmp_path: Path, kept: Kept):
    digest = kept.put(b"abc")
    path = kept.path(digest)
    assert path.stat().st_mode & 0o777 == 0o400
    path.chmod(0o600)
    path.write_bytes(b"abd")
    with pytest.raises(Lost, match="was changed"):
        kept.get(digest)
    with pytest.raises(Lost, match="was changed"):
        kept.copy(digest, tmp_path / "out")
    assert kept.put(b"abc") == digest and kept.get(digest) == b"abc"
    path.unlink()
    with pytest.raises(Lost, match="No such file"):
        kept.get(digest)


def test_nothing_unfinished_is_left(tmp_path: Path, kept: Kept):
    (tmp_path / "f").write_bytes(b"abc")
    assert kept.put_file(tmp_path / "f") == kept.put(b"abc")
    files = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert len(files) == 1


@pytest.mark.parametrize("digest", ["", "..", "../" * 10, "A" * 64, "0" * 63])
def test_what_is_no_digest(digest: str, kept: Kept):
    with pytest.raises(Lost, match="is not a digest"):
        kept.get(digest)
