"""Archives: what comes out lies inside, is plain, and has an end (faults.md B45)."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from headrace.registry.refusals import Rejected
from headrace.registry.rules import Rules
from headrace.registry.unpack import unpack

FILES = {"manifest.json": b"{}", "a/b/weights.safetensors": bytes(3_000_000)}
RULES = Rules(max_bytes=4_000_000)


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = ""
) -> tarfile.TarInfo:
    about = tarfile.TarInfo(name)
    about.type, about.size, about.linkname = kind, size, link
    return about


def tarred(path: Path, members, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for about, data in members:
            archive.addfile(about, io.BytesIO(data))
    return path


def zipped(path: Path, members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for about, data in members:
            archive.writestr(about, data)
    return path


def plain(files):
    return [(entry(name, size=len(data)), data) for name, data in files.items()]


def read(folder: Path):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_unpacked(mode, tmp_path):
    members = [(entry("a", tarfile.DIRTYPE), b""), *plain(FILES)]
    unpack(tarred(tmp_path / "v.tar", members, mode), tmp_path / "out", RULES)
    assert read(tmp_path / "out") == FILES


def test_a_zip_is_unpacked(tmp_path):
    unpack(zipped(tmp_path / "v.zip", [("a/", b""), *FILES.items()]), tmp_path / "out", RULES)
    assert read(tmp_path / "out") == FILES


def refused(archive: Path, tmp_path: Path, why: str = "") -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Rejected, match=why):
        unpack(archive, tmp_path / "out", RULES)
    assert sorted(tmp_path.rglob("*")) == before, "something was left"


NAMES = ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "..", ".", "./a.txt", ".bashrc",
         "a\\b", "C:evil", "a//b", "x" * 300, "nul"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_outside_are_refused(name, tmp_path):
    refused(tarred(tmp_path / "v.tar", plain({name: b"x"})), tmp_path, "name")
    refused(zipped(tmp_path / "v.zip", [(name, b"x")]), tmp_path, "name")


@pytest.mark.parametrize(("kind", "link"), [
    (tarfile.SYMTYPE, "/etc/passwd"), (tarfile.SYMTYPE, "manifest.json"), (tarfile.LNKTYPE, "a"),
    (tarfile.CHRTYPE, ""), (tarfile.BLKTYPE, ""), (tarfile.FIFOTYPE, ""), (b"Z", ""),
])  # fmt: skip
def test_links_and_devices_are_refused(kind, link, tmp_path):
    members = [*plain({"a": b"x"}), (entry("weights.data", kind, link=link), b"")]
    refused(tarred(tmp_path / "v.tar", members), tmp_path, "link, a device")


def test_a_link_in_a_zip_is_refused(tmp_path):
    about = zipfile.ZipInfo("weights.data")
    about.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(zipped(tmp_path / "v.zip", [(about, b"/etc/passwd")]), tmp_path, "link")


def test_a_bomb_is_refused(tmp_path):
    bomb = {"a.data": bytes(6_000_000)}
    for mode in ("w", "w:gz", "w:xz"):
        refused(tarred(tmp_path / f"v{mode[2:]}.tar", plain(bomb), mode), tmp_path, "4,000,000")
    small = zipped(tmp_path / "v.zip", bomb.items())
    assert small.stat().st_size < 100_000
    refused(small, tmp_path, "4,000,000")


def test_a_header_has_an_end(tmp_path):
    about = tarfile.TarInfo("a")
    about.pax_headers = {"comment": "x" * 6_000_000}
    refused(tarred(tmp_path / "v.tar", [(about, b"")], "w:gz"), tmp_path, "header")


def test_many_and_twice_are_refused(tmp_path):
    many = {f"a{number}": b"" for number in range(1025)}
    refused(tarred(tmp_path / "many.tar", plain(many)), tmp_path, "members")
    refused(
        tarred(tmp_path / "two.tar", [*plain({"a": b"1"}), *plain({"A": b"2"})]), tmp_path, "twice"
    )


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"BZh9", b"hello" * 500,
                                  b"\xfd7zXZ\x00" + bytes(50)])  # fmt: skip
def test_what_is_no_archive_is_refused(data, tmp_path):
    (tmp_path / "v.tar").write_bytes(data)
    refused(tmp_path / "v.tar", tmp_path, "cannot be read|can be read|no file")


def test_a_cut_one_is_refused(tmp_path):
    for archive in (
        tarred(tmp_path / "v.tgz", plain(FILES), "w:gz"),
        zipped(tmp_path / "v.zip", FILES.items()),
    ):
        archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
        refused(archive, tmp_path, "can be read")
