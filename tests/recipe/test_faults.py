"""Parts of the fault harness; the whole is `python -m tests.faults` (docs/faults.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipe.studies import ROOT

pytestmark = pytest.mark.recipe
ALWAYS = {
    "runs": ("kill,disk_full", "--tasks", "1", "--kills", "4", "--disks", "1"),
    "readers": ("fuzz", "--fuzz", "200"),
}
LONG = {
    "runs": ("kill,disk_full,damage", "--kills", "3", "--disks", "1", "--flips", "20"),
    "readers": ("fuzz", "--fuzz", "500"),
}


def check_nothing_is_lost(part: str, cases: str, flags: list[str], folder: Path) -> None:
    command = [sys.executable, "-m", "tests.faults", "--cases", cases, *flags, "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "undisturbed" in done.stdout or part == "readers"


@pytest.mark.parametrize("part", ALWAYS)
def test_a_kill_in_each_phase_a_full_disk_and_some_hostile_files(part: str, tmp_path: Path) -> None:
    cases, *flags = ALWAYS[part]
    check_nothing_is_lost(part, cases, flags, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("part", LONG)
def test_nothing_is_lost(part: str, tmp_path: Path) -> None:
    cases, *flags = LONG[part]
    check_nothing_is_lost(part, cases, flags, tmp_path)
