"""A short part of the fault harness; the long form is `python -m tests.faults` (docs/faults.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipe.studies import ROOT

pytestmark = [pytest.mark.recipe, pytest.mark.long]
SHORT = {
    "runs": ("kill,disk_full,damage", "--kills", "3", "--disks", "1", "--flips", "20"),
    "readers": ("fuzz", "--fuzz", "500"),
}


@pytest.mark.parametrize("part", SHORT)
def test_nothing_is_lost(part: str, tmp_path: Path) -> None:
    cases, *flags = SHORT[part]
    command = [sys.executable, "-m", "tests.faults", "--cases", cases, *flags, "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "undisturbed" in done.stdout or part == "readers"
