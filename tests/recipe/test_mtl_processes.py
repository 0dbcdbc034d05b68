"""Two processes of the multi-task trainer learn what one learns at the same global batch, also after a kill;
the command runs under torchrun.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data.dense.rooms import write_rooms

pytestmark = [pytest.mark.recipe, pytest.mark.long]
ONE = (sys.executable,)
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
NEVER = 1000


def run(root: Path, launcher: tuple[str, ...], *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(root),
    }
    line = [*launcher, *map(str, arguments)]
    return subprocess.run(line, cwd=root, env=environment, capture_output=True, text=True, timeout=500)


@pytest.mark.parametrize("weighting", ["EW", "UW", "PCGrad"])
def test_two_processes_learn_what_one_learns(weighting: str, repo_root: Path, tmp_path: Path) -> None:
    script = "tests/recipe/mtl_ranks.py"
    models = {}
    for name, launcher in (("one", ONE), ("two", TWO)):
        (tmp_path / name).mkdir()
        if name == "two" and weighting == "EW":
            killed = run(repo_root, launcher, script, tmp_path / name, weighting, 7)
            assert killed.returncode and not (tmp_path / name / "model.pt").exists()
        done = run(repo_root, launcher, script, tmp_path / name, weighting, NEVER)
        assert done.returncode == 0, done.stderr
        models[name] = torch.load(tmp_path / name / "model.pt")
    for key, value in models["one"].items():
        torch.testing.assert_close(models["two"][key], value, rtol=1e-4, atol=1e-6, msg=key)
    histories = [json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "two")]
    for ours, theirs in zip(*histories, strict=True):
        assert ours["train_losses"] == pytest.approx(theirs["train_losses"], rel=1e-5)


def test_the_command_with_two_processes(repo_root: Path, tmp_path: Path) -> None:
    rooms = write_rooms(tmp_path / "rooms", 6, 2, 24, 32)
    line = "--arch AOEMTL --encoder plain --width 4 --head_width 8 --img_size 3 24 32 --train_bs 2 --epochs 1"
    flags = [*line.split(), "--quiet", "--dataset_path", rooms, "--save_path", tmp_path / "run"]
    for _ in range(2):  # the second finds a finished run
        done = run(repo_root, TWO, "examples/nyu/main.py", *flags)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("best epoch 1 of 1") == 1
    assert json.loads((tmp_path / "run" / "result.json").read_text())["samples"] == 2
