"""The commands of examples/nyu as they are typed, from its own folder and from the root."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.recipe

SMALL = (
    "--img_size 3 24 32 --encoder plain --width 4 --head_width 8 --train_bs 2 --test_bs 2 --epochs 1 --quiet"
)
PUBLISHED = "--weighting EW --arch AOEMTL --num_experts 2 2 --gpu_id 0 --scheduler step"


def python(root: Path, folder: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=root / folder, capture_output=True, text=True, check=False
    )


def test_rooms_training_and_test(repo_root: Path, tmp_path: Path) -> None:
    rooms, run = tmp_path / "rooms", tmp_path / "run"
    done = python(
        repo_root, "examples/nyu", "make_rooms.py", rooms, "--train", 6, "--val", 2, "--size", 24, 32
    )
    assert done.returncode == 0, done.stderr
    relative = os.path.relpath(rooms, repo_root / "examples" / "nyu")
    flags = [*PUBLISHED.split(), *SMALL.split(), "--dataset_path", relative, "--save_path", run]
    done = python(repo_root, "examples/nyu", "main.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "GiB predicted for a step" in done.stdout
    assert "mIoU" in done.stdout and "<11.25" in done.stdout
    flags = ["--mode", "test", "--load_path", run / "best.pt", "--save_path", tmp_path / "test"]
    done = python(repo_root, ".", "examples/nyu/main.py", *flags)
    assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("run", "test")]
    assert results[0]["test"] == results[1]["test"]
