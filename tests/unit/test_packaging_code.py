"""Which of the author's files an image gets, and which libraries."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.packaging import needs
from headrace.packaging.code import trace
from headrace.packaging.needs import Pin
from headrace.packaging.unbuildable import Unbuildable


def write(folder: Path, **files: str) -> Path:
    """`a_py`: a.py; `a__b_py`: a/b.py."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names(folder: Path, target: str = "models:M", **more) -> list[str]:
    return [path.as_posix() for path in trace(target, folder, **more).files]


def test_a_module_takes_what_it_imports_and_nothing_else(tmp_path: Path) -> None:
    write(
        tmp_path,
        models_py="import helpers\ndef f():\n    from late import x",
        helpers_py="import json, numpy as np\nfrom onnxruntime import InferenceSession",
        late_py="import models",
        train_py="import sklearn",
        notes_txt="of mine",
    )
    traced = trace("models:M", tmp_path)
    assert [str(path) for path in traced.files] == ["helpers.py", "late.py", "models.py"]
    assert traced.imports == {"numpy", "onnxruntime"} and not traced.optional


def test_a_package_is_taken_whole_with_its_data_but_no_secret(tmp_path: Path) -> None:
    write(
        tmp_path,
        models_py="from wines.inner import x",
        wines__inner_py="import numpy.linalg",
        wines__table_csv="a,b",
    )
    (tmp_path / "wines" / "__init__.py").write_text("")
    (tmp_path / "wines" / ".env").write_text("TOKEN=1")
    (tmp_path / "wines" / "tls.key").write_text("key")
    (tmp_path / "wines" / "__pycache__").mkdir(exist_ok=True)
    (tmp_path / "wines" / "__pycache__" / "inner.cpython-311.pyc").write_bytes(b"")
    found = trace("models:M", tmp_path)
    assert {path.name for path in found.files} == {
        "models.py", "__init__.py", "inner.py", "table_csv",
    }  # fmt: skip
    assert found.imports == {"numpy"}


def test_what_code_can_do_without_is_optional_and_what_types_need_is_not_taken(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        models_py="""
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import pandas
try:
    import uvloop
except ImportError:
    uvloop = None
try:
    import numpy
finally:
    pass
""",
    )
    traced = trace("models:M", tmp_path)
    assert traced.imports == {"uvloop", "numpy"} and traced.optional == {"uvloop"}


@pytest.mark.parametrize(
    ("code", "extras"),
    [
        ("import headrace\ndef f(x: headrace.Image): ...", {"images"}),
        ("from headrace import Model, Tensor", {"arrays"}),
        ("import headrace\nclass M(headrace.Model): ...", set()),
    ],
)
def test_images_and_tensors_bring_their_extra(code: str, extras: set[str], tmp_path: Path) -> None:
    assert trace("models:M", write(tmp_path, models_py=code)).extras == extras


def test_code_of_the_version_comes_before_that_of_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "folder", models_py="import sklearn", shared_py="")
    own = write(tmp_path / "own", models_py="import shared, numpy")
    traced = trace("models:M", folder, own=own)
    assert [str(path) for path in traced.files] == ["shared.py"]  # the rest is in the version
    assert traced.imports == {"numpy"}


def test_more_files_where_they_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", models_py="", data__a_txt="", data__b_txt="")
    (tmp_path / "outside").write_text("")
    assert names(folder, include=("data/*",)) == ["data/a_txt", "data/b_txt", "models.py"]
    (folder / "id.pem").write_text("")
    for pattern, why in (("none/*", "no file"), ("../outside", "outside"), ("*.pem", "secret")):
        with pytest.raises(Unbuildable, match=why):
            trace("models:M", folder, (pattern,))


@pytest.mark.parametrize(
    ("target", "why"), [("gone:M", "no module 'gone'"), ("broken:M", "read as Python")]
)
def test_what_cannot_be_read_is_said(target: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(Unbuildable, match=why):
        trace(target, write(tmp_path, broken_py="def"))


def test_an_image_has_what_a_worker_imports_and_not_what_its_house_needs(tmp_path: Path) -> None:
    folder = write(tmp_path, models_py="import onnxruntime")
    found = {pin.name for pin in needs.pins(trace("models:M", folder), ())}
    assert {"msgspec", "sqlalchemy", "uvloop", "onnxruntime", "numpy", "protobuf"} <= found
    assert not found & (needs.NOT_A_WORKERS | {"headrace", "click", "pygments", "mako", "pillow"})


def test_what_is_left_out_is_something_that_headrace_asks_for() -> None:
    asked = {name for name, _ in needs._needed(needs.distribution("headrace"), frozenset())}
    assert asked > needs.NOT_A_WORKERS


def test_extras_are_added_with_what_they_need(tmp_path: Path) -> None:
    traced = trace("models:M", write(tmp_path, models_py=""))
    plain = {pin.name for pin in needs.pins(traced, ())}
    more = {pin.name for pin in needs.pins(traced, ("postgresql", "rabbitmq"))}
    assert {"asyncpg", "pamqp"} <= more - plain


def test_an_import_that_nobody_provides_is_said(tmp_path: Path) -> None:
    traced = trace("models:M", write(tmp_path, models_py="import nowhere_at_all"))
    with pytest.raises(Unbuildable, match="imports nowhere_at_all"):
        needs.pins(traced, ())


A, B = "a" * 64, "b" * 64


def test_a_lock_is_read_and_written(tmp_path: Path) -> None:
    text = (
        f"# a lock\nflask==3.0 \\\n    --hash=sha256:{A} \\\n    --hash=sha256:{B}\n    # via me\n"
        f"typing_extensions==4.16.0 ; python_version < '3.13' \\\n    --hash=sha256:{A}\n"
    )
    found = needs.read_lock(text)
    assert found["flask"] == Pin("flask", "3.0", (A, B))
    assert found["typing-extensions"] == Pin("typing-extensions", "4.16.0", (A,))
    assert needs.read_lock(needs.requirements(found.values())) == found


def test_a_lock_without_hashes_or_without_a_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unbuildable, match="flask without a hash"):
        needs.read_lock("flask==3.0\n")
    traced = trace("models:M", write(tmp_path, models_py=""))
    with pytest.raises(Unbuildable, match=r"the lock does not have .*msgspec"):
        needs.pins(traced, (), f"flask==3.0 \\\n    --hash=sha256:{A}\n")
