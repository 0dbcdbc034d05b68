"""Experts trained side by side have the bytes of those trained one after another; methods whose files are no
plain experts, made again and answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recipe.studies import Study, small_benchmark

pytestmark = pytest.mark.recipe
FLAGS = ("--num_train_epochs", "1", "--jobs", "2", "--moe_branches", "2")
FLAGS += ("--l2p_prompts", "6", "--l2p_length", "4")
BOTH = "moe_lora l2p"


def two_tasks(folder: Path, train: int, test: int) -> Path:
    """The first two tasks of the small benchmark."""
    benchmark = small_benchmark(folder, train, test)
    content = json.loads(benchmark.read_text())
    benchmark.write_text(json.dumps({**content, "tasks": content["tasks"][:2]}))
    return benchmark


def test_side_by_side_has_the_bytes_of_one_after_another(tmp_path: Path) -> None:
    benchmark = two_tasks(tmp_path / "data", train=4, test=1)
    flags = ("--num_train_epochs", "2", "--expert_init", "scratch", "--methods", "anchor_moe")
    trained = []
    for name, *jobs in (("after", "--jobs", "0"), ("beside", "--parallel", "2")):
        study = Study(tmp_path / name, benchmark)
        study.train(*flags, *jobs)
        output = study.folder / "output"
        files = sorted([*output.glob("experts/*.pt"), *output.glob("anchors/anchor_task_*")])
        trained.append({path.name: path.read_bytes() for path in files})
    assert len(trained[0]) == 6  # expert, anchor and statistics of two tasks
    assert trained[1] == trained[0]


def test_gated_experts_and_prompt_pools(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", two_tasks(tmp_path / "data", train=6, test=3))
    study.train(*FLAGS, "--methods", BOTH)
    comparisons = study.folder / "output" / "comparisons"
    files = sorted(comparisons.glob("*/experts/expert_task_*.pt"))
    assert len(files) == 4
    contents = [path.read_bytes() for path in files]

    for method in BOTH.split():  # as if killed just before the end
        lost = comparisons / method / "experts" / "expert_task_1.pt"
        lost.unlink()
        lost.with_suffix(".run.json").unlink()
    again = study.train(*FLAGS, "--methods", BOTH)
    assert "2 trained, 2 skipped" in again.stdout + again.stderr
    assert [path.read_bytes() for path in files] == contents

    study.evaluate("--methods", "l2p zero_shot moe_lora")
    methods = json.loads((study.folder / "results" / "summary.json").read_text())["methods"]
    assert set(methods) == {"l2p", "zero_shot", "moe_lora"}
    for entry in methods.values():
        assert all(value is not None for row in entry["matrix"] for value in row)
