"""Both drivers plan the published system without its files, in little memory, and leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.recipe.studies import ROOT, Study

pytestmark = pytest.mark.recipe
LIMIT = 2 * 10**9  # bytes


@pytest.mark.parametrize("script", ["train_all_tasks.sh", "eval_all_tasks.sh"])
def test_a_driver_plans_in_less_than_two_gigabytes(script: str, tmp_path: Path) -> None:
    study = Study(tmp_path / "study", ROOT / "data_sample" / "avqa.json")
    plan = tmp_path / "plan.json"
    process = subprocess.Popen(
        study.command(script, "--dry_run", "--dry_run_json", str(plan)),
        env=study.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as printed:
        text = printed.read()
    _, status, used = os.wait4(process.pid, 0)  # of the largest process below the shell too
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert used.ru_maxrss * 1024 < LIMIT
    assert "by its known sizes" in text
    assert "800 training questions in 4 tasks" in text
    assert json.loads(plan.read_text())["expert_parameters"]["mlp"] == 2_164_260_864
    assert not (study.folder / "output").exists() and not (study.folder / "results").exists()
