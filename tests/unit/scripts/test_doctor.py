"""The command: sections, verdict, next command, exit status, JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scripts.doctor import main, parser, run_command
from train.arguments import add_config_flags


@pytest.fixture
def small(repo_root: Path, tmp_path: Path) -> Path:
    """A benchmark of two tasks with two questions each from the sample data."""
    tasks = []
    for name in ("Where", "Which"):
        files = {}
        for split in ("train", "test"):
            items = json.loads((repo_root / "data_sample" / f"{split}_{name}.json").read_text())[:2]
            files[split] = f"{split}_{name}.json"
            (tmp_path / files[split]).write_text(json.dumps(items))
        tasks.append({"name": name, **files})
    path = tmp_path / "small.json"
    root = str(repo_root / "data_sample")
    path.write_text(json.dumps({"name": "Small", "media_root": root, "tasks": tasks}))
    return path


def examine(capsys: pytest.CaptureFixture[str], folder: Path, *words: object) -> tuple[str, int]:
    """What the doctor prints, and its exit status; it writes below `folder` only."""
    store = ["--feature_store", str(folder / "store"), "--output", str(folder / "out"), "--quiet"]
    status = 0
    try:
        main(parser().parse_args([*map(str, words), *store]))
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    return capsys.readouterr().out, status


def test_nothing_in_the_way(
    capsys: pytest.CaptureFixture[str], repo_root: Path, small: Path, tmp_path: Path
) -> None:
    json_file = tmp_path / "report.json"
    checkpoints = repo_root / "checkpoints"
    said, status = examine(
        capsys, tmp_path, "--checkpoints", checkpoints, "--benchmark", small, "--json", json_file
    )
    assert status == 0, said
    verdict, command = said.strip().splitlines()[-2:]
    assert verdict.startswith("Verdict: nothing stands in the way")
    assert f"BENCHMARK={small}" in command and "bash train_all_tasks.sh" in command
    report = json.loads(json_file.read_text())
    assert [section["title"].split(":")[0].split(",")[0] for section in report["sections"]] == [
        "Backbone",
        "Questions",
        "Media",
        "Training needs",
    ]
    needs = report["sections"][-1]["facts"]
    assert needs["clips_to_encode"] == needs["clips"] > 0
    assert needs["experts"] == 7, "four methods on two tasks, joint trains one"
    assert not (tmp_path / "out").exists(), "the doctor makes nothing"


def test_problems_end_with_status_1(
    capsys: pytest.CaptureFixture[str], repo_root: Path, small: Path, tmp_path: Path
) -> None:
    items = json.loads((tmp_path / "test_Where.json").read_text())
    items[0]["video"] = ["gone.jpg"]
    (tmp_path / "test_Where.json").write_text(json.dumps(items))
    (tmp_path / "checkpoints").mkdir()
    shutil.copytree(repo_root / "checkpoints" / "tiny" / "AVQACL-MoE-base", tmp_path / "checkpoints" / "base")
    said, status = examine(capsys, tmp_path, "--checkpoints", tmp_path / "checkpoints", "--benchmark", small)
    assert status == 1
    assert "base: is a base LLM folder (7 x 192) under another name; rename it to AVQACL-MoE-base" in said
    assert "gone.jpg: no such file" in said
    assert "Training needs" not in said, "nothing is said about what cannot be known"
    assert said.strip().splitlines()[-1].startswith("Next:    mend the problems, then again: python")


def test_given_experts_are_evaluated(
    capsys: pytest.CaptureFixture[str], repo_root: Path, small: Path, tmp_path: Path, parity_root: Path
) -> None:
    set_ = parity_root / "avqacl_moe"
    if not (set_ / "experts").is_dir():
        pytest.skip("the recorded set has no experts")
    parts = set_ / "checkpoints"
    given = ["--model_name_or_path", parts / "base", "--vision_tower", parts / "clip"]
    given += ["--audio_tower", parts / "beats.pt", "--audio_qformer", parts / "qformer_sizes.json"]
    said, status = examine(capsys, tmp_path, "--benchmark", small, "--experts", set_, *given, "--sample", 1)
    assert status == 0, said
    command = said.strip().splitlines()[-1]
    assert command.startswith(f"Next:    EXPERTS={set_} BENCHMARK={small}")
    assert "bash eval_all_tasks.sh" in command and f"--audio_tower {parts / 'beats.pt'}" in command
    assert command.endswith("--metric raw --modality_weights equal --text_feature prompt")
    assert "Evaluation needs" in said and "at most" in said


def test_the_next_command_hands_on_what_was_given() -> None:
    words = ["--seeds", "0 1", "--bf16", "True", "--num_frames", "4", "--media_root", "/a b", "--sample", "9"]
    arguments = parser().parse_args(words)
    assert run_command("train_all_tasks.sh", arguments, add_config_flags) == (
        "SEEDS='0 1' bash train_all_tasks.sh --num_frames 4 --media_root '/a b' --bf16 True"
    )
    assert run_command("eval_all_tasks.sh", arguments) == (
        "SEEDS='0 1' bash eval_all_tasks.sh --num_frames 4 --media_root '/a b'"
    )


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="--sample: got 0"):
        main(parser().parse_args(["--sample", "0"]))


@pytest.mark.parametrize("experts", [False, True])
def test_the_time_of_a_backbone_that_is_not_the_tiny_one(
    capsys: pytest.CaptureFixture[str], repo_root: Path, small: Path, tmp_path: Path, experts: bool
) -> None:
    shutil.copytree(repo_root / "checkpoints" / "tiny", tmp_path / "large")
    words = ["--checkpoints", tmp_path / "large", "--benchmark", small, "--gpus", "2", "--mfu", "0.5"]
    (tmp_path / "given").mkdir()
    words += ["--experts", tmp_path / "given"] if experts else []
    text, _ = examine(capsys, tmp_path, *words)
    [line] = [line for line in text.splitlines() if "time:" in line]
    assert ("h to train one seed" in line) == (not experts)
    assert "h to encode" in line and "h to evaluate, on 2 GPUs at 50% of 312 TFLOP/s" in line
