"""Run by test_ranks.py under torchrun: the same small trainings on one process, or on two in several ways.

    torchrun --nproc_per_node 2 tests/recipe/training_ranks.py FOLDER

Writes FOLDER/WAY/expert_K.pt (whole tensors) and the training logs.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn

from data.files import write_json_atomic
from model.language_model.anchor_lm import AnchorLM
from model.moe.experts import ExpertBank, ExpertConfig
from tests.unit.train.small_training import CONFIG, small_model, training
from train.config import TrainConfig
from train.loop import Training
from train.workshop import make_accelerator

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SAMPLES = 13  # neither steps nor micro-batches come out even
TASKS = (0, 1)
FULL = ExpertConfig(kind="mlp", layers="all")


class DoubleBank(ExpertBank):
    """Experts learn in float64, so that only the order of sums is left to differ."""

    def train_only(self, task_id: int) -> list[nn.Parameter]:
        parameters = super().train_only(task_id)
        self.active.experts[task_id].double()
        return parameters


def start_anew(settings: TrainConfig, way: str, folder: Path) -> Accelerator:
    """An accelerator as the commands make it, whatever this process had before."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return make_accelerator(settings, Namespace(deepspeed=zero_file(way, folder) if "zero" in way else None))


def zero_file(way: str, folder: Path) -> Path:
    """The shipped configuration; stage 3 without its threshold, below which nothing here would be cut."""
    name = way.removesuffix("-bf16").removesuffix("-mlp")
    settings = json.loads((SCRIPTS / f"{name}.json").read_text())
    if settings["zero_optimization"]["stage"] == 3:
        settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    path = folder / f"{way}.{os.environ['RANK']}.json"
    write_json_atomic(path, settings)
    return path


def learn(folder: Path, settings: TrainConfig, accelerator: Accelerator, model: AnchorLM) -> None:
    """Two experts one after the other on one model, each interrupted after two steps and resumed."""
    bank = model.bank
    assert bank is not None
    for task_id in TASKS:
        for stop in (2, None):
            made, _ = training(
                folder / f"task{task_id}",
                settings,
                count=SAMPLES,
                model=model,
                task_id=task_id,
                accelerator=accelerator,
            )
            made.steps = stop or made.steps
            if stop is None and made.zero:
                refuse_damaged_shares(made, accelerator)
            made.run()
            if stop is None and accelerator.is_main_process:
                torch.save(bank.state(task_id), folder / f"expert_{task_id}.pt")
            bank.remove(task_id)


def refuse_damaged_shares(made: Training, accelerator: Accelerator) -> None:
    """A changed byte in any process's share of the checkpoint is found by every process."""
    shares = sorted((made.checkpoint.folder / "deepspeed").rglob("*.pt"))
    assert len(shares) >= accelerator.num_processes
    good = shares[-1].read_bytes()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shares[-1].write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    accelerator.wait_for_everyone()
    try:
        made._resume()
    except ValueError as error:
        assert str(shares[-1]) in str(error) and "damaged checkpoint" in str(error)
    else:
        raise AssertionError(f"{shares[-1]}: used in silence")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shares[-1].write_bytes(good)
    accelerator.wait_for_everyone()


def main(root: Path) -> None:
    """One process learns in float32, float64 and bf16, several also under every ZeRO configuration; LoRA
    experts, and in float32 full-MLP ones."""
    processes = start_anew(CONFIG, "plain", root).num_processes
    ways = ["double", "plain", "bf16", "plain-mlp"]
    if processes > 1:
        ways += ["zero2", "zero3", "zero3_offload", "zero3-bf16", "zero2-mlp", "zero3-mlp"]
    for way in ways:
        settings = replace(
            CONFIG,
            accumulation=4 // processes,  # the same global batch
            precision="bf16" if way.endswith("bf16") else "fp32",
            expert=FULL if way.endswith("mlp") else CONFIG.expert,
        )
        model = small_model(settings, DoubleBank if way == "double" else ExpertBank)
        if way == "double":
            model.llm.double()
        model.enable_gradient_checkpointing()
        before = {name: value.clone() for name, value in model.llm.state_dict().items()}
        learn(root / way, settings, start_anew(settings, way, root), model)
        after = model.llm.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items()), f"{way}: backbone"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
