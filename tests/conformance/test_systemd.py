"""The units of deploy/, judged by systemd's own reader: `dev/need systemd-analyze` installs it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
UNITS = sorted(path.name for path in FOLDER.glob("*.service"))
PROGRAM = "/opt/headrace/bin/headrace"
EXPOSED_MOST = 2.5  # of 10, by systemd's own count; 9.6 is a unit that says nothing


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies whose program is one that is there."""
    made = tmp_path_factory.mktemp("units")
    for name in UNITS:
        text = (FOLDER / name).read_text()
        assert PROGRAM in text
        (made / name).write_text(text.replace(PROGRAM, "/bin/true"))
    return made


def test_units_are_read_without_a_complaint(units: Path) -> None:
    found = analyze(units, "verify", "--man=no", *UNITS)
    assert [line for line in found.stderr.splitlines() if "headrace" in line] == []
    assert found.returncode == 0


def test_a_wrong_key_is_found(units: Path) -> None:
    wrong = (units / UNITS[0]).read_text().replace("KillMode=", "KilMode=")
    (units / "headrace-wrong.service").write_text(wrong)
    found = analyze(units, "verify", "--man=no", "headrace-wrong.service")
    assert "Unknown key 'KilMode'" in found.stderr.replace('"', "'")


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_can_do_little_harm(units: Path, name: str) -> None:
    said = analyze(units, "security", "--offline=true", "--no-pager", name).stdout
    [level] = re.findall(r"exposure level for \S+: ([\d.]+)", said)
    assert float(level) <= EXPOSED_MOST
