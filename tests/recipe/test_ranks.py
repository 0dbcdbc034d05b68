"""Two processes learn what one learns at the same global batch: in float32, in float64 and under ZeRO, LoRA
and full-MLP experts; each is interrupted and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.recipe.studies import ROOT
from tests.recipe.training_ranks import FULL, TASKS
from tests.unit.train.small_training import CONFIG, small_model

pytestmark = [pytest.mark.recipe, pytest.mark.long]
PROGRAM = str(ROOT / "tests" / "recipe" / "training_ranks.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process and two have written."""
    made = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for name, launcher in (("one", [sys.executable]), ("two", TORCHRUN)):
        done = subprocess.run(
            [*launcher, PROGRAM, str(made / name)], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return made


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "train_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("way", "tolerance"),
    [
        ("plain", 1e-3),
        ("double", 1e-8),
        ("bf16", 1e-3),
        ("zero2", 1e-3),
        ("zero3", 1e-3),
        ("zero3_offload", 1e-3),
        ("zero3-bf16", 1e-3),
        ("plain-mlp", 1e-3),
        ("zero2-mlp", 1e-3),
        ("zero3-mlp", 1e-3),
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_learn_what_one_learns(root: Path, way: str, tolerance: float, task: int) -> None:
    full = way.endswith("mlp")
    plain = "plain-mlp" if full else "plain"
    alone = root / "one" / {"double": "double", "bf16": "bf16", "zero3-bf16": "bf16"}.get(way, plain)
    wanted = torch.load(alone / f"expert_{task}.pt")
    got = torch.load(root / "two" / way / f"expert_{task}.pt")
    bank = small_model(replace(CONFIG, expert=FULL) if full else CONFIG).bank
    assert bank is not None
    bank.add(task, generator=torch.Generator().manual_seed(1 + task))
    start = bank.state(task)
    largest = max(float((wanted[key] - start[key]).abs().max()) for key in start)
    for key, value in wanted.items():
        assert got[key].shape == value.shape, key
        assert float((got[key] - value).abs().max()) <= tolerance * largest, key
    expected = losses(alone / f"task{task}")
    assert len(expected) == 4
    assert losses(root / "two" / way / f"task{task}") == pytest.approx(expected, abs=1e-4)
