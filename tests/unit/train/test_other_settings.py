"""A folder with the work of other settings is refused in words that the user of the command can follow."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from data.run_record import write_record
from evaluation import eval_all
from model.language_model.backbone import AUDIO, VISION
from tests.llm_folders import write_llm
from tests.recipe.studies import ROOT, small_benchmark
from train import train_all, train_anchor_moe, train_base

TINY = ROOT / "checkpoints" / "tiny"


def refusal(command: ModuleType, *flags: object) -> str:
    """Why a command does not run."""
    arguments = command.parser().parse_args([*map(str, flags), "--quiet"])
    with pytest.raises(ValueError) as caught:
        command.main(arguments)
    return str(caught.value)


@pytest.mark.parametrize("recorded", [False, True])
def test_of_experts(tmp_path: Path, recorded: bool) -> None:
    benchmark = small_benchmark(tmp_path / "data", train=2, test=1)
    expert = tmp_path / "experts" / "expert_task_0.pt"
    expert.parent.mkdir()
    expert.write_bytes(b"weights")
    if recorded:
        write_record(expert.with_suffix(".run.json"), {"seed": 9})
    common = ("--checkpoints", ROOT / "checkpoints", "--feature_store", tmp_path / "store")
    told = refusal(train_all, *common, "--benchmark", benchmark, "--output", tmp_path)
    assert f"{expert}" in told and "nothing was touched" in told
    assert "Add --overwrite to replace it, or choose another --output (OUTPUT of train_all_tasks.sh)" in told
    places = (
        "--expert_weights_save_path",
        expert.parent,
        "--output_dir",
        tmp_path / "c",
        "--anchor_save_path",
    )
    task = ("--data_path", tmp_path / "data" / "train_Come_From.json", "--cur_task", "0")
    told = refusal(train_anchor_moe, *common, *task, *places, tmp_path / "anchors")
    assert "choose another --expert_weights_save_path, --anchor_save_path and --output_dir" in told
    assert "OUTPUT" not in told


def test_of_a_base(tmp_path: Path) -> None:
    benchmark = small_benchmark(tmp_path / "data", train=2, test=1)
    write_record(tmp_path / "base" / "run.json", {"seed": 9})
    llm = write_llm(tmp_path / "llm", "qwen2")
    towers = (
        "--vision_tower",
        TINY / VISION,
        "--audio_tower",
        TINY / AUDIO,
        "--audio_window_seconds",
        "4.175",
    )
    flags = ("--data_path", benchmark.with_name("train_Come_From.json"), "--output_dir", tmp_path / "base")
    told = refusal(train_base, "--model_name_or_path", llm, *towers, *flags)
    assert "Add --overwrite to replace it, or choose another --output_dir. What differs" in told
    assert "OUTPUT" not in told


def test_nothing_to_evaluate(tmp_path: Path) -> None:
    benchmark = small_benchmark(tmp_path / "data", train=2, test=1)
    places = ("--output", tmp_path / "none", "--results", tmp_path / "r", "--feature_store", tmp_path / "s")
    flags = ("--checkpoints", ROOT / "checkpoints", "--benchmark", benchmark, "--methods", "anchor_moe")
    told = refusal(eval_all, *places, *flags)
    assert "train first, or correct --output or --experts (OUTPUT or EXPERTS of eval_all_tasks.sh)" in told
