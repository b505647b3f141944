"""Files that are refused by their first bytes or by their names, each with its reason.

What runs code when it is read, what hides files in files, what is a program. The names are for
people, so that they hear why; what counts in the end is the list of what is allowed in `inspect`.
"""

from __future__ import annotations

from typing import NamedTuple

from headrace.registry.refusals import Rejected

RUNS = "runs code when it is read; export the model to ONNX or safetensors"
HIDES = "is an archive; give the files that are in it"
PROGRAM = "is a program"
OTHER = "is not what workers load; export the model to ONNX or safetensors"


class Magic(NamedTuple):
    """`at`: offsets at which the bytes would stand."""

    kind: str
    bytes: bytes
    why: str
    at: tuple[int, ...] = (0,)


MAGICS = (
    Magic("HDF5 (Keras)", b"\x89HDF\r\n\x1a\n", RUNS, (0, 512, 1024, 2048, 4096)),
    Magic("zip (PyTorch, Keras, npz)", b"PK\x03\x04", RUNS),
    Magic("empty zip", b"PK\x05\x06", HIDES),
    Magic("spanned zip", b"PK\x07\x08", HIDES),
    Magic("NumPy array", b"\x93NUMPY", "may hold pickled objects; use safetensors"),
    Magic("gzip", b"\x1f\x8b\x08", HIDES),
    Magic("bzip2", b"1AY&SY", HIDES, (4,)),
    Magic("xz", b"\xfd7zXZ\x00", HIDES),
    Magic("zstd", b"\x28\xb5\x2f\xfd", HIDES),
    Magic("lz4", b"\x04\x22\x4d\x18", HIDES),
    Magic("7z", b"7z\xbc\xaf\x27\x1c", HIDES),
    Magic("rar", b"Rar!\x1a\x07", HIDES),
    Magic("tar", b"ustar", HIDES, (257,)),
    Magic("ELF", b"\x7fELF", PROGRAM),
    Magic("Mach-O", b"\xcf\xfa\xed\xfe", PROGRAM),
    Magic("Mach-O", b"\xca\xfe\xba\xbe", PROGRAM),
    Magic("script", b"#!/", PROGRAM),
    Magic("GGUF", b"GGUF", OTHER),
    Magic("TensorFlow Lite", b"TFL3", OTHER, (4,)),
    Magic("ORT", b"ORTM", OTHER, (4,)),
)

ENDINGS = {
    **dict.fromkeys(
        ("pkl", "pickle", "p", "joblib", "dill", "cloudpickle", "pt", "pth", "ckpt", "mar", "torch",
         "h5", "hdf5", "keras", "npy", "npz", "skops", "sav", "model", "nemo"), RUNS
    ),
    **dict.fromkeys(
        ("zip", "tar", "gz", "tgz", "bz2", "xz", "zst", "lz4", "7z", "rar", "whl", "egg", "jar"),
        HIDES,
    ),
    **dict.fromkeys(
        ("so", "dll", "dylib", "exe", "pyd", "pyc", "pyo", "sh", "bat", "js", "wasm", "class"),
        PROGRAM,
    ),
    **dict.fromkeys(("pb", "tflite", "ort", "gguf", "bin", "caffemodel", "mlmodel", "engine",
                     "plan", "onnxtxt", "pbtxt", "msgpack", "xml", "yaml", "yml"), OTHER),
}  # fmt: skip

HEAD = max(at + len(magic.bytes) for magic in MAGICS for at in magic.at)


def check_magic(name: str, data: bytes | memoryview) -> None:
    """Raises Rejected for what no file of a version may begin with."""
    head = bytes(data[:HEAD])
    for magic in MAGICS:
        if any(head.startswith(magic.bytes, at) for at in magic.at):
            raise Rejected(f"{name}: {magic.kind} {magic.why}")
    if head.startswith(b"MZ") and b"PE\0\0" in head:
        raise Rejected(f"{name}: PE {PROGRAM}")


def why_not(name: str) -> str:
    """Of a name whose ending is not among those allowed."""
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    return ENDINGS.get(ending, "is of no kind that a version may have")
