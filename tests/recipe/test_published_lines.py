"""The published command lines, word for word, on a miniature of the published layout."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.moe.files import read_tensor_file
from tests.recipe.studies import ROOT

pytestmark = pytest.mark.recipe
TRAIN = (
    "train_anchor_moe.py --deepspeed ./scripts/zero2.json --model_name_or_path checkpoints/AVQACL-MoE-base"
    " --version v1 --data_path data_sample/train_Come_From.json"
    " --output_dir output/AVQA/AVQACL-MoE_task0_ckpt"
    " --vision_tower checkpoints/clip-vit-large-patch14-336"
    " --audio_tower checkpoints/BEATs_iter3_plus_AS2M.pt --freeze_backbone True"
    " --tune_mm_mlp_adapter False --tune_mm_audio_projector False --mm_projector_type mlp2x_gelu"
    " --mm_vision_select_layer -2 --mm_use_im_start_end False --mm_use_im_patch_token False"
    " --num_train_epochs 5 --per_device_train_batch_size 2 --per_device_eval_batch_size 2"
    " --gradient_accumulation_steps 4 --evaluation_strategy no --save_strategy steps --save_steps 1000"
    " --save_total_limit 5 --learning_rate 4e-5 --weight_decay 0. --warmup_ratio 0.03"
    " --lr_scheduler_type cosine --logging_steps 1 --tf32 True --model_max_length 2048"
    " --gradient_checkpointing True --dataloader_num_workers 3 --lazy_preprocess True --report_to none"
    " --llm_lora_enable False --mix_va True --moe_training_mode anchor"
    " --anchor_save_path output/AVQA/anchors --expert_weights_save_path output/AVQA/experts --cur_task 0"
)
EVALUATE = (
    "eval_anchor.py --data_path data_sample/test_Come_From.json"
    " --output eval_results/AVQA/task0_come_results.json --data_type vqa"
    " --model_path checkpoints/AVQACL-MoE-base --num_experts 4 --anchor_save_path output/AVQA/anchors"
    " --expert_weights_save_path output/AVQA/experts --use_anchor_mode"
)
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def layout(recipe_folder: Path, benchmark_file: Path) -> Path:
    """A folder with the published checkpoints' names, a few questions, and full-MLP experts of all tasks."""
    folder = recipe_folder / "published"
    shutil.copytree(
        ROOT / "checkpoints" / "tiny", folder / "checkpoints"
    )  # by name it is the tiny one no more
    (folder / "scripts").symlink_to(ROOT / "scripts")
    (folder / "data_sample").symlink_to(benchmark_file.parent)
    run(
        folder,
        "train/train_all.py --benchmark data_sample/avqa.json --methods anchor_moe --preset published"
        " --llm_lora_enable False --num_train_epochs 1 --anchor_statistics published --quiet",
    )
    for file in (folder / "output" / "AVQA").rglob("*_task_0.*"):
        file.unlink()
    return folder


def run(folder: Path, line: str) -> str:
    """Run a command line in `folder`; what it printed."""
    script, *flags = shlex.split(line)
    places = [ROOT / script, ROOT / "train" / script]
    file = next(place for place in places if place.is_file())
    done = subprocess.run(
        [sys.executable, str(file), *flags],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_the_published_lines_run_as_they_stand(layout: Path) -> None:
    said = run(layout, TRAIN)
    assert said.count("flags without effect here") == 1
    output = layout / "output" / "AVQA"
    expert = read_tensor_file(output / "experts" / "expert_task_0.pt")
    layers = json.loads((layout / "checkpoints" / "AVQACL-MoE-base" / "config.json").read_text())
    wanted = {
        f"model.layers.{layer}.mlp.{projection}.weight"
        for layer in range(0, layers["num_hidden_layers"], 2)
        for projection in PROJECTIONS
    }
    assert {key for key in expert if key.startswith("model.")} == wanted
    record = json.loads((output / "experts" / "expert_task_0.run.json").read_text())
    assert record["training"]["steps"] == 5  # 8 questions make one step of 2 x 4, five epochs
    assert record["identity"]["config"]["learning_rate"] == 4e-5

    run(layout, EVALUATE)
    asked = json.loads((layout / "data_sample" / "test_Come_From.json").read_text())
    answered = json.loads((layout / "eval_results" / "AVQA" / "task0_come_results.json").read_text())
    assert [sample["id"] for sample in answered] == [sample["id"] for sample in asked]
    assert all("text" in sample for sample in answered)


def test_anchors_of_the_published_kind_have_no_statistics_and_say_so(layout: Path) -> None:
    anchors = layout / "output" / "AVQA" / "anchors"
    assert not (anchors / "anchor_task_1.stats.safetensors").exists()
    assert set(read_tensor_file(anchors / "anchor_task_1.pt")) == {"audio", "text", "video"}
