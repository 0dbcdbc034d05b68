"""The flag --dry_run: works without any checkpoint, reads no weight, says what it assumes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from data.benchmark import read_benchmark
from data.command_line import add_backbone_flags, add_data_flags
from evaluation.arguments import add_generation_flags
from train import train_all
from train.arguments import add_config_flags
from train.dry_run import add_dry_run_flags, dry_run


def training_flags(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for add in (add_backbone_flags, add_data_flags, add_config_flags, add_dry_run_flags):
        add(parser)
    return parser.parse_args(flags)


def evaluation_flags(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for add in (add_backbone_flags, add_data_flags, add_generation_flags, add_dry_run_flags):
        add(parser)
    return parser.parse_args(flags)


def test_the_published_system_is_planned_without_its_files(tmp_path: Path, repo_root: Path) -> None:
    arguments = training_flags("--checkpoints", str(repo_root / "checkpoints"), "--gpus", "2")
    arguments.dry_run_json = tmp_path / "plan.json"
    benchmark = read_benchmark(repo_root / "data_sample" / "avqa.json")
    text = dry_run(arguments, benchmark.files("train"), benchmark.files("test"), benchmark)
    assert "by its known sizes" in text
    for shown in ("6,738.4", "2,164,260,864", "0.366", "0.353", "800 training questions in 4 tasks", "4 bit"):
        assert shown in text, text
    assert max(map(len, text.splitlines())) <= 110
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["parameters"]["llm"] == 6_738_415_616
    assert [row["gpus"] for row in plan["training"]] == [2] * len(plan["training"])
    assert plan["training"][0]["by_strategy"]["zero2"]["total"] > 1e10
    assert plan["runs"][0]["steps"] == 4 * 5 * -(-200 // 16)


def test_flags_change_the_plan(repo_root: Path) -> None:
    root = ("--checkpoints", str(repo_root / "checkpoints"))
    text = dry_run(training_flags(*root, "--llm_lora_enable", "False", "--bf16", "True"), [], [])
    assert "(mlp, bf16, plain, 1 GPU)" in text
    text = dry_run(training_flags(*root, "--expert_tokens", "answer"), [], [])
    assert "tokens: answer" in text and "gradient checkpointing off" in text
    text = dry_run(evaluation_flags(*root, "--batch_size", "3", "--load_in_4bit"), [], [])
    assert "3 questions at a time" in text
    with pytest.raises(ValueError, match="--bits 8: a full-MLP expert"):
        dry_run(training_flags(*root, "--load_in_8bit", "--expert_kind", "mlp"), [], [])
    with pytest.raises(ValueError, match="exclude each other"):
        dry_run(training_flags(*root, "--bf16", "True", "--fp16", "True"), [], [])


def test_methods_without_plain_experts_have_a_table_of_their_own(
    tmp_path: Path, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--benchmark", str(repo_root / "data_sample" / "avqa.json"), "--dry_run", "--moe_branches", "2"]
    flags += ["--checkpoints", str(repo_root / "checkpoints"), "--dry_run_json", str(tmp_path / "plan.json")]
    train_all.main(train_all.parser().parse_args([*flags, "--methods", "anchor_moe moe_lora l2p"]))
    assert "moe_lora: 2 branches of rank 8" in capsys.readouterr().out
    plan = json.loads((tmp_path / "plan.json").read_text())
    lora = plan["expert_parameters"]["lora"]
    gates = 16 * 2 * (4096 + 4096 + 11008)
    assert plan["methods"]["moe_lora"]["parameters"] == lora + gates
    assert plan["methods"]["moe_lora"]["memory"]["total"] > plan["memory"]["total"]
    assert plan["methods"]["l2p"]["parameters"] == 16 * (16 * 4096 + 4096 + 2 * 1024 + 768)
    train_all.main(train_all.parser().parse_args(flags))
    assert "moe_lora" not in capsys.readouterr().out


@pytest.mark.parametrize("how", [("--preset", "tiny"), ("--checkpoints", "checkpoints/tiny")])
def test_a_named_backbone_is_planned_from_its_configuration(
    how: tuple[str, str], repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo_root)
    text = dry_run(training_flags(*how), [Path("data_sample/train_Where.json")], [])
    assert "AVQACL-MoE-base" in text.splitlines()[0]
    assert "200 training questions in 1 tasks" in text


def test_weights_are_not_read(tmp_path: Path, repo_root: Path) -> None:
    """A folder with configuration files and a tokenizer is enough."""
    for path in (repo_root / "checkpoints" / "tiny").rglob("*"):
        kept = path.suffix == ".json" or path.name == "tokenizer.model" or path.name.startswith("BEATs")
        if path.is_file() and kept:
            copy = tmp_path / path.relative_to(repo_root / "checkpoints" / "tiny")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    text = dry_run(evaluation_flags("--checkpoints", str(tmp_path)), [], [])
    assert str(tmp_path) in text.splitlines()[0]


def test_an_incomplete_backbone_that_was_named_is_an_error(tmp_path: Path) -> None:
    flags = ("--model_name_or_path", str(tmp_path), "--vision_tower", str(tmp_path))
    with pytest.raises(ValueError, match="no such file|missing"):
        dry_run(training_flags(*flags, "--audio_tower", str(tmp_path / "beats.pt")), [], [])
