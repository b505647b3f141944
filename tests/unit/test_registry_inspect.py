"""What may be a version and what is refused: files made for it (B45), none of them run."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import socket
import stat
import tarfile
import zipfile
from pathlib import Path

import joblib
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headrace.registry.inspect import _check_regular, inspect
from headrace.registry.onnx import inspect_onnx
from headrace.registry.pickles import is_pickle
from headrace.registry.refusals import Rejected
from headrace.registry.rules import Rules
from headrace.registry.safetensors import inspect_safetensors

ROOT = Path(__file__).resolve().parents[2]
RULES = Rules()
F32 = TensorProto.FLOAT


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def folder(tmp_path: Path, files: dict[str, bytes], format: str = "onnx", **said) -> Path:
    made = tmp_path / "version"
    made.mkdir(exist_ok=True)
    for name, data in files.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(data)
    manifest = {"model": "iris", "format": format} | said
    (made / "manifest.json").write_bytes(json.dumps(manifest).encode())
    return made


def graph(nodes=None, tensors=(), inputs=None, **more):
    nodes = [helper.make_node("Relu", ["x"], ["y"])] if nodes is None else nodes
    inputs = [helper.make_tensor_value_info("x", F32, [None, 4])] if inputs is None else inputs
    outputs = [helper.make_tensor_value_info("y", F32, [None, 4])]
    return helper.make_graph(nodes, "g", inputs, outputs, list(tensors), **more)


def model(*args, domains=(), functions=(), **kwargs):
    imports = [helper.make_opsetid(domain, 1) for domain in domains]
    return helper.make_model(
        graph(*args, **kwargs),
        opset_imports=[helper.make_opsetid("", 20), *imports],
        functions=list(functions),
    )


def onnx_bytes(*args, **kwargs) -> bytes:
    return model(*args, **kwargs).SerializeToString()


def outside(location: str, **more: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=F32, dims=[2, 2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(shape=(2,), dtype="F32", offsets=(0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


ONNX = onnx_bytes()
SAFE = safetensors({"w": tensor()}, bytes(8))


# -- what is taken ---------------------------------------------------------------------------------


def test_a_folder_is_what_its_files_are(tmp_path):
    files = {"model.onnx": ONNX, "a/notes.md": b"x", "golden/1.jpg": b"\xff\xd8\xff"}
    given = folder(tmp_path, files,
                   golden=[{"file": "golden/1.jpg", "output": 1}])  # fmt: skip
    found = inspect(given, RULES)
    assert [file.path for file in found.files] == [
        "a/notes.md", "golden/1.jpg", "manifest.json", "model.onnx",
    ]  # fmt: skip
    assert found.files[3].bytes == len(ONNX)
    assert found.manifest.model == "iris"


def test_the_model_of_the_quickstart_is_taken(tmp_path):
    data = (ROOT / "examples/quickstart/model.onnx").read_bytes()
    inspect(folder(tmp_path, {"model.onnx": data}), RULES)


def test_external_data_in_the_folder_are_taken(tmp_path):
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    whole = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [weights])
    made = folder(tmp_path, {})
    onnx.save(whole, made / "model.onnx", save_as_external_data=True, location="weights.data",
              size_threshold=16)  # fmt: skip
    found = inspect(made, RULES)
    assert [file.path for file in found.files][-1] == "weights.data"
    (made / "weights.data").write_bytes(bytes(16_383))
    with pytest.raises(Rejected, match="shorter"):
        inspect(made, RULES)


TENSORS = {
    "floats": helper.make_tensor("w", F32, [2, 2], [1, 2, 3, 4]),
    "raw": numpy_helper.from_array(np.arange(6, dtype=np.int64).reshape(2, 3), "w"),
    "empty": helper.make_tensor("w", F32, [0, 7], []),
    "single": helper.make_tensor("w", F32, [], [1.0]),
    "texts": helper.make_tensor("w", TensorProto.STRING, [2], [b"", b"a"]),
    "int4": helper.make_tensor("w", TensorProto.INT4, [3], [1, 2, 3]),
    "half": helper.make_tensor("w", TensorProto.FLOAT16, [2], [1, 2]),
    "complex": helper.make_tensor("w", TensorProto.COMPLEX64, [2], [1, 2]),
    "int64": helper.make_tensor("w", TensorProto.INT64, [2], [-1, 1 << 62]),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_of_all_forms_are_taken(kind):
    data = onnx_bytes(tensors=[TENSORS[kind]])
    assert inspect_onnx("m.onnx", memoryview(data), RULES) == []


def test_functions_that_a_model_brings_are_taken():
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 20)],
    )  # fmt: skip
    node = helper.make_node("Twice", ["x"], ["y"], domain="own")
    inspect_onnx(
        "m.onnx", memoryview(onnx_bytes([node], domains=["own"], functions=[function])), RULES
    )
    with pytest.raises(Rejected, match="'own'"):
        inspect_onnx("m.onnx", memoryview(onnx_bytes([node], domains=["own"])), RULES)


def test_what_the_settings_allow_is_taken():
    node = helper.make_node("FusedMatMul", ["x", "x"], ["y"], domain="com.microsoft")
    data = memoryview(onnx_bytes([node], domains=["com.microsoft"]))
    inspect_onnx("m.onnx", data, Rules(domains=("com.microsoft",)))
    with pytest.raises(Rejected, match=r"com\.microsoft"):
        inspect_onnx("m.onnx", data, RULES)


def test_code_is_taken_by_its_digest(tmp_path):
    code = b"class Iris: ...\n"
    made = folder(tmp_path, {"iris.py": code}, "code")
    with pytest.raises(Rejected, match="vouched") as raised:
        inspect(made, RULES)
    digest = str(raised.value).split("SHA-256 ")[1].split()[0]
    inspect(made, Rules(trusted={digest: "ann, 2026-11-20"}))
    (made / "iris.py").write_bytes(code + b"#")
    with pytest.raises(Rejected, match="vouched"):
        inspect(made, Rules(trusted={digest: "ann, 2026-11-20"}))


# -- pickles, archives, programs: by what they are, whatever they are called -----------------------


def packed(kind: str, payload: bytes) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
    else:
        with tarfile.open(fileobj=out, mode=kind) as archive:
            about = tarfile.TarInfo("data.pkl")
            about.size = len(payload)
            archive.addfile(about, io.BytesIO(payload))
    return out.getvalue()


def dumped(canary: object, compress: object) -> bytes:
    out = io.BytesIO()
    joblib.dump([canary, np.zeros(1000)], out, compress=compress)
    return out.getvalue()


EVIL = {
    **{f"pickle {n}": lambda c, n=n: pickle.dumps(c, n) for n in range(6)},
    **{f"pickled array {n}": lambda c, n=n: pickle.dumps([np.zeros(9), c], n) for n in range(6)},
    "torch, legacy": lambda c: pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(c, 2),
    "torch": lambda c: packed("zip", pickle.dumps(c)),
    "joblib": lambda c: dumped(c, 0),
    **{
        f"joblib {how}": lambda c, how=how: dumped(c, (how, 3))
        for how in ("zlib", "gzip", "bz2", "xz", "lzma")
    },
    "tar": lambda c: packed("w", pickle.dumps(c)),
    "tar.gz": lambda c: packed("w:gz", pickle.dumps(c)),
    "hdf5": lambda c: b"\x89HDF\r\n\x1a\n" + bytes(600),
    "hdf5 behind a block": lambda c: bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(600),
    "numpy": lambda c: b"\x93NUMPY\x01\x00" + bytes(120),
    "gzip": lambda c: gzip.compress(b"x"),
    "elf": lambda c: b"\x7fELF\x02\x01\x01" + bytes(100),
    "exe": lambda c: b"MZ" + bytes(126) + b"PE\0\0",
    "script": lambda c: b"#!/bin/sh\nrm -rf /\n",
    "gguf": lambda c: b"GGUF\x03\x00\x00\x00",
}
CALLED = (
    "model.onnx",
    "w.safetensors",
    "notes.txt",
    "data.json",
    "iris.py",
    "a.jpg",
    "w.data",
    "x",
)


@pytest.mark.parametrize("kind", EVIL)
def test_what_runs_code_is_refused_whatever_it_is_called(kind, tmp_path):
    canary = tmp_path / "canary"
    data = EVIL[kind](Canary(canary))
    for name in CALLED:
        files = {"good.onnx": onnx_bytes(tensors=[outside("w.data")]), "w.data": bytes(16)}
        made = folder(tmp_path, files | {name: data})
        with pytest.raises(Rejected):
            inspect(made, Rules(trusted={}))
        (made / name).unlink()
    assert not canary.exists()


@pytest.mark.parametrize("name", ["m.pkl", "m.PT", "m.joblib", "m.h5", "m.keras", "m.npy", "m.zip",
                                  "m.so", "m.pb", "m.pyc", "m.unknown", "noending"])  # fmt: skip
def test_other_kinds_of_files_are_refused_by_name(name, tmp_path):
    with pytest.raises(Rejected, match=name):
        inspect(folder(tmp_path, {"model.onnx": ONNX, name: b"harmless"}), RULES)


@pytest.mark.parametrize("text", [
    b"category,price\nfoo,1.5\n", b"category\nfoo\n1.5\n", b"index\nname\n.\n",
    b"(a) first\n(b) .\n",
    b"iris\nsetosa\n0.", b"}", b"c", b"\x80", b"", b"cos\nsystem\n.", b"\x08\x07\x12\x00",
])  # fmt: skip
def test_texts_are_no_pickles(text):
    assert not is_pickle(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_pickle_or_not(data):
    is_pickle(data)
    is_pickle(b"\x80\x04" + data)


# -- links, devices, names -------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/etc/passwd", "model.onnx", "..", "nowhere"])
def test_symbolic_links_are_refused(target, tmp_path):
    made = folder(tmp_path, {"model.onnx": ONNX})
    (made / "weights.data").symlink_to(target)
    with pytest.raises(Rejected, match=r"weights\.data: a symbolic link"):
        inspect(made, RULES)


def test_pipes_sockets_and_devices_are_refused_unread(tmp_path):
    made = folder(tmp_path, {"model.onnx": ONNX})
    os.mkfifo(made / "a.txt")
    with pytest.raises(Rejected, match="not a file"):
        inspect(made, RULES)
    (made / "a.txt").unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(made / "a.txt"))
        with pytest.raises(Rejected, match="not a file"):
            inspect(made, RULES)
    for mode in (stat.S_IFCHR, stat.S_IFBLK):
        with pytest.raises(Rejected, match="not a file"):
            _check_regular("a.txt", mode | 0o644)


@pytest.mark.parametrize("name", [".hidden.txt", "a b.txt", "-rf.txt", "é.txt", "a\\b.txt",
                                  "nul.txt", "COM1.txt", "a..", "x" * 120 + ".txt",
                                  "/".join("abcdefghi")])  # fmt: skip
def test_names_that_not_all_have_are_refused(name, tmp_path):
    with pytest.raises(Rejected, match="name"):
        inspect(folder(tmp_path, {"model.onnx": ONNX, name: b"x"}), RULES)


@pytest.mark.parametrize("more", [{"A.txt": b"x", "a.txt": b"x"}, {"Model.onnx": ONNX}])
def test_two_names_that_are_one_elsewhere_are_refused(more, tmp_path):
    with pytest.raises(Rejected, match="one name"):
        inspect(folder(tmp_path, {"model.onnx": ONNX} | more), RULES)


def test_size_and_number_have_limits(tmp_path):
    with pytest.raises(Rejected, match="at most 1,000"):
        inspect(folder(tmp_path, {"model.onnx": ONNX, "a.txt": bytes(1000)}), Rules(max_bytes=1000))
    many = {f"a{number}.txt": b"x" for number in range(256)}
    with pytest.raises(Rejected, match="more than 256"):
        inspect(folder(tmp_path, {"model.onnx": ONNX} | many), RULES)


@pytest.mark.parametrize(("files", "said", "why"), [
    ({}, {}, "no .onnx"),
    ({"model.onnx": b""}, {}, "empty"),
    ({"model.onnx": ONNX}, {"format": "safetensors"}, "no .safetensors"),
    ({"model.onnx": ONNX}, {"format": "pickle"}, "manifest.json"),
    ({"model.onnx": ONNX}, {"model": "../iris"}, "manifest.json"),
    ({"model.onnx": ONNX}, {"surprise": 1}, "surprise"),
    ({"model.onnx": ONNX}, {"golden": [{"file": "../x.jpg", "output": 1}]}, "no name"),
    ({"model.onnx": ONNX}, {"golden": [{"file": "x.jpg", "output": 1}]}, "not there"),
    ({"model.onnx": ONNX}, {"tags": {"a": "x" * 70_000}}, "at most 65536"),
    ({"model.onnx": ONNX, "a.json": b"{"}, {}, "not JSON"),
    ({"model.onnx": ONNX, "a.json": b"[" * 200_000}, {}, "not JSON"),
    ({"model.onnx": ONNX, "a.txt": b"\xff"}, {}, "UTF-8"),
    ({"model.onnx": ONNX, "a.txt": b"a\0"}, {}, "NUL"),
    ({"model.onnx": ONNX, "a.png": b"GIF89a"}, {}, "not the image"),
    ({"model.onnx": ONNX, "w.data": bytes(16)}, {}, "w.data"),
])  # fmt: skip
def test_what_does_not_belong_together_is_refused(files, said, why, tmp_path):
    with pytest.raises(Rejected, match=why):
        inspect(folder(tmp_path, files, **({"format": "onnx"} | said)), RULES)


def test_a_folder_without_manifest_is_refused(tmp_path):
    made = folder(tmp_path, {"model.onnx": ONNX})
    (made / "manifest.json").unlink()
    with pytest.raises(Rejected, match=r"no manifest\.json"):
        inspect(made, RULES)


# -- ONNX ------------------------------------------------------------------------------------------


def within(tensor: TensorProto, where: str) -> bytes:
    """A model with the tensor at a place of which there are many."""
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    body = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("w", F32, [2, 2])])
    if where == "initializer":
        return onnx_bytes(tensors=[tensor])
    if where == "constant":
        return onnx_bytes([constant])
    if where == "branch":
        node = helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)
        return onnx_bytes([node])
    if where == "function":
        own = helper.make_function("own", "F", [], ["w"], [constant], [helper.make_opsetid("", 20)])
        return onnx_bytes(functions=[own])
    if where == "list of tensors":
        node = helper.make_node("Relu", ["x"], ["y"])
        node.attribute.add(name="t", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
        return onnx_bytes([node])
    if where == "sparse":
        made = graph()
        made.sparse_initializer.add(dims=[4]).values.CopyFrom(tensor)
        return helper.make_model(made).SerializeToString()
    assert where == "training"
    whole = model()
    whole.training_info.add().algorithm.initializer.append(tensor)
    return whole.SerializeToString()


PLACES = ("initializer", "constant", "branch", "function", "list of tensors", "sparse", "training")


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("location", [
    "/etc/passwd", "../../etc/passwd", "a/../../x", "..", ".", "", "~/x", "file:///etc/passwd",
    "C:\\x", "*/_ORT_MEM_ADDR_/*", "a\0b", ".hidden", "x" * 300,
])  # fmt: skip
def test_external_data_stay_inside(location, where):
    with pytest.raises(Rejected, match="external data"):
        inspect_onnx("m.onnx", memoryview(within(outside(location), where)), RULES)


@pytest.mark.parametrize("where", PLACES)
def test_external_data_are_seen_wherever_they_are(where):
    found = inspect_onnx("a/m.onnx", memoryview(within(outside("w.data"), where)), RULES)
    assert {one.path for one in found} == {"a/w.data"}


@pytest.mark.parametrize(("said", "why"), [
    ({"offset": "-1"}, "offset"), ({"offset": "9" * 30}, "offset"), ({"length": "1e3"}, "length"),
    ({"length": "17"}, "of 17"), ({"offset": "1"}, "shorter"), ({"offset": "99"}, "shorter"),
])  # fmt: skip
def test_external_data_are_as_long_as_they_say(said, why, tmp_path):
    files = {"model.onnx": onnx_bytes(tensors=[outside("w.data", **said)]), "w.data": bytes(16)}
    with pytest.raises(Rejected, match=why):
        inspect(folder(tmp_path, files), RULES)


def test_external_data_are_no_other_file_of_the_version(tmp_path):
    for name in ("manifest.json", "model.onnx", "nowhere.data"):
        with pytest.raises(Rejected, match=name):
            inspect(folder(tmp_path, {"model.onnx": onnx_bytes(tensors=[outside(name)])}), RULES)


def test_what_another_reader_might_take_is_looked_at_too():
    """Of a field that comes twice some take the last: here it is the harmless one."""
    twice = outside("/etc/passwd")
    twice.external_data.add(key="location", value="w.data")
    entry = b"\x0a\x08location\x12\x06w.data\x12\x0b/etc/passwd"
    tensor = b"\x08\x02\x10\x01\x70\x01\x6a" + bytes([len(entry)]) + entry + b"\x70\x00"
    inner = b"\x2a" + bytes([len(tensor)]) + tensor
    two_graphs = b"\x08\x08\x3a" + bytes([len(inner)]) + inner + ONNX
    for data in (onnx_bytes(tensors=[twice]), two_graphs):
        with pytest.raises(Rejected, match="external data says a thing twice"):
            inspect_onnx("m.onnx", memoryview(data), RULES)


@pytest.mark.parametrize("domain", ["evil", "ai.onnx.contrib", "com.microsoft", "ai.onnx.ml.x"])
def test_operators_of_other_domains_are_refused(domain):
    node = helper.make_node("Run", ["x"], ["y"], domain=domain)
    body = helper.make_graph([node], "b", [], [])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)
    for data in (onnx_bytes([node]), onnx_bytes([branch]), onnx_bytes(domains=[domain])):
        with pytest.raises(Rejected, match="domain"):
            inspect_onnx("m.onnx", memoryview(data), RULES)


def test_operators_that_name_files_are_refused_in_any_domain():
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
    data = memoryview(onnx_bytes([node], domains=["com.microsoft"]))
    with pytest.raises(Rejected, match="EPContext"):
        inspect_onnx("m.onnx", data, Rules(domains=("com.microsoft",)))


def lying(**said) -> TensorProto:
    return TensorProto(name="w", **({"data_type": F32, "dims": [2]} | said))


@pytest.mark.parametrize("tensor", [
    lying(raw_data=bytes(7)), lying(raw_data=bytes(9)), lying(dims=[1 << 62, 4], raw_data=bytes(8)),
    lying(dims=[1 << 40]), lying(dims=[1 << 40], float_data=[1.0]), lying(dims=[-1]), lying(),
    lying(dims=[-2, -1], raw_data=bytes(8)), lying(dims=[1] * 40, raw_data=bytes(4)),
    lying(dims=[0, 1 << 50]), lying(data_type=99, raw_data=bytes(8)),
    lying(data_type=TensorProto.STRING, raw_data=bytes(8)),
])  # fmt: skip
def test_tensors_have_the_data_that_they_say(tensor):
    with pytest.raises(Rejected):
        inspect_onnx("m.onnx", memoryview(onnx_bytes(tensors=[tensor])), RULES)


def test_shapes_are_sane():
    huge = helper.make_tensor_value_info("x", F32, [1 << 30, 4])
    with pytest.raises(Rejected, match="too large"):
        inspect_onnx("m.onnx", memoryview(onnx_bytes(inputs=[huge])), RULES)
    made = graph()
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    made.sparse_initializer.add(dims=[1 << 40]).values.CopyFrom(values)
    with pytest.raises(Rejected, match="sparse"):
        inspect_onnx("m.onnx", memoryview(helper.make_model(made).SerializeToString()), RULES)
    unknown = helper.make_tensor_value_info("x", F32, [-1, 0, "batch", 4])
    inspect_onnx("m.onnx", memoryview(onnx_bytes(inputs=[unknown])), RULES)


def test_nesting_has_an_end():
    body = graph()
    for _ in range(30):
        node = helper.make_node("If", ["x"], ["y"], then_branch=body)
        body = helper.make_graph([node], "b", [], [])
    with pytest.raises(Rejected, match="deep"):
        inspect_onnx("m.onnx", memoryview(helper.make_model(body).SerializeToString()), RULES)


@pytest.mark.parametrize("data", [
    b"\x00", b"\x08", b"\xff" * 20, b"\x0b\x08\x01\x0c", b"\x3a\xff\xff\xff\xff\x0f", b"\x08\x08",
    b"\x3a\x02\x0a", b"\x38\x01", ONNX[:-1], b"<html>", b"hello, world",
])  # fmt: skip
def test_what_is_no_model_is_refused(data):
    with pytest.raises(Rejected):
        inspect_onnx("m.onnx", memoryview(data), RULES)


def locations(message: object) -> set[str]:
    """All that the library of ONNX finds in a model, at whatever depth."""
    found: set[str] = set()
    for field, value in message.ListFields():  # type: ignore[attr-defined]
        if field.message_type is not None:
            for one in value if field.is_repeated else [value]:
                if field.message_type.name == "TensorProto":
                    found |= {e.value for e in one.external_data if e.key == "location"}
                found |= locations(one)
    return found


RICH = within(outside("w.data", offset="0", length="16"), "branch")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(RICH) - 1), st.integers(0, 255)), max_size=4),
       st.integers(0, len(RICH)), st.binary(max_size=6))  # fmt: skip
def test_we_see_what_the_library_sees(changes, at, inserted):
    """Of a model with some bytes changed: refused, or each location that the library finds is among
    those that we found. Nothing else is raised."""
    data = bytearray(RICH)
    for place, byte in changes:
        data[place] = byte
    data[at:at] = inserted
    try:
        ours = {one.path for one in inspect_onnx("m.onnx", memoryview(bytes(data)), RULES)}
    except Rejected:
        return
    try:
        theirs = onnx.ModelProto.FromString(bytes(data))
    except Exception:
        return
    assert locations(theirs) <= ours


# -- safetensors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [
    SAFE,
    safetensors({}),
    safetensors({"__metadata__": {"format": "np"}, "w": tensor()}, bytes(8)),
    safetensors({"b": tensor((1,), "F64", (8, 16)), "a": tensor()}, bytes(16)),
    safetensors({"e": tensor((0, 3), "I8", (0, 0)), "s": tensor((), "BF16", (0, 2))}, bytes(2)),
    safetensors(json.dumps({"w": tensor()}).encode() + b"   ", bytes(8)),
])  # fmt: skip
def test_safetensors_are_taken(data):
    inspect_safetensors("w.safetensors", memoryview(data))


@pytest.mark.parametrize("data", [
    b"", bytes(7), bytes(8), safetensors({}, length=1 << 62), safetensors({}, length=200_000_000),
    safetensors({"w": tensor()}, bytes(8), length=3), safetensors(b"[]"), safetensors(b"\xff{}"),
    safetensors(b" {}"), safetensors(b'{"w": 1, "w": 2}'), safetensors(b"{" + b'"a":{' * 100_000),
    safetensors({"__metadata__": {"a": 1}}), safetensors({"w": 3}, bytes(8)),
    safetensors({"w": tensor()}, bytes(7)), safetensors({"w": tensor()}, bytes(9)),
    safetensors({"w": tensor((3,))}, bytes(8)), safetensors({"w": tensor((-2,))}, bytes(8)),
    safetensors({"w": tensor((2.0,))}, bytes(8)), safetensors({"w": tensor((True, 2))}, bytes(8)),
    safetensors({"w": tensor(dtype="F99")}, bytes(8)),
    safetensors({"w": tensor(offsets=(8, 0))}, bytes(8)),
    safetensors({"w": tensor(offsets=(1, 9))}, bytes(9)),
    safetensors({"w": tensor(offsets=(-8, 0))}, bytes(8)),
    safetensors({"w": tensor((1 << 62, 8), offsets=(0, 8))}, bytes(8)),
    safetensors({"a": tensor(), "b": tensor()}, bytes(8)),
    safetensors({"a": tensor(), "b": tensor(offsets=(4, 12))}, bytes(12)),
    safetensors({"w": tensor((1,) * 40, "F32", (0, 4))}, bytes(4)),
    safetensors({"w": tensor() | {"more": 1}}, bytes(8)), safetensors({"a\0": tensor()}, bytes(8)),
])  # fmt: skip
def test_safetensors_whose_header_lies_are_refused(data):
    with pytest.raises(Rejected):
        inspect_safetensors("w.safetensors", memoryview(data))
