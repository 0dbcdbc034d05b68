"""The published command line: two processes, plain or under ZeRO, learn what one learns at the same global
batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.moe.files import read_tensor_file
from tests.recipe.studies import ROOT

pytestmark = pytest.mark.recipe
TINY = ROOT / "checkpoints" / "tiny"
# What accelerate itself takes where it finds several GPUs; without --multi_gpu, or with --cpu, it starts one
# process whatever --num_processes says. Port 0 is any free one.
ACCELERATE = ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
LAUNCHERS = {
    "one": [sys.executable],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    "zero2": [sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port"],
    "zero3": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    "accelerate": [sys.executable, "-m", "accelerate.commands.launch", *ACCELERATE],
}
LONG = ("zero3", "accelerate")


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def train(launcher: str, data: Path, folder: Path, store: Path) -> dict[str, torch.Tensor]:
    """Train task 0 with the published command line, once; the expert's tensors."""
    if not (folder / "experts").exists():
        run(launcher, data, folder, store)
    expert = read_tensor_file(folder / "experts" / "expert_task_0.pt")
    return {key: value for key, value in expert.items() if isinstance(value, torch.Tensor)}


def run(launcher: str, data: Path, folder: Path, store: Path) -> None:
    """The command itself."""
    command = [*LAUNCHERS[launcher], *([free_port()] if launcher == "zero2" else [])]
    flags = {
        "model_name_or_path": TINY / "AVQACL-MoE-base",
        "vision_tower": TINY / "clip-vit-large-patch14-336",
        "audio_tower": TINY / "BEATs_iter3_plus_AS2M.pt",
        "data_path": data,
        "cur_task": 0,
        "output_dir": folder / "checkpoint",
        "anchor_save_path": folder / "anchors",
        "expert_weights_save_path": folder / "experts",
        "num_train_epochs": 3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2 if launcher == "one" else 1,
        "feature_store": store,
    }
    line = [*command, "train/train_anchor_moe.py", "--quiet"]
    line += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    line += ["--deepspeed", f"scripts/{launcher}.json"] if launcher.startswith("zero") else []
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, f"{launcher} failed:\n{done.stdout}\n{done.stderr}"


def losses(folder: Path) -> list[float]:
    """Of every step."""
    lines = (folder / "checkpoint" / "train_log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize(
    "launcher", ["torchrun", "zero2", *(pytest.param(name, marks=pytest.mark.long) for name in LONG)]
)
def test_two_processes_learn_what_one_learns(
    launcher: str, recipe_folder: Path, benchmark_file: Path
) -> None:
    data, store = benchmark_file.parent / "train_Come_From.json", recipe_folder / "feature_store"
    folders = [recipe_folder / "processes" / name for name in ("one", launcher)]
    one, two = train("one", data, folders[0], store), train(launcher, data, folders[1], store)
    assert one.keys() == two.keys()
    for key in one:
        if key.endswith("lora_B.weight"):  # the update: Adam moves A by noise where there is no gradient
            other = key.replace("lora_B", "lora_A")
            wanted, got = one[key] @ one[other], two[key] @ two[other]
            assert float((got - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max()), key
    assert losses(folders[1]) == pytest.approx(losses(folders[0]), abs=1e-4)
    for name in ("anchor_task_0.pt", "anchor_task_0.stats.safetensors"):
        first, second = (folder / "anchors" / name for folder in folders)
        assert first.read_bytes() == second.read_bytes(), f"{name} differs"
