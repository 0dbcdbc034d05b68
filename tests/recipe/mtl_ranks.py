"""Trains a small multi-task model without batch normalisation, of which every process would see its own part;
run by test_mtl_processes.py with one process and with two.

    PYTHONPATH=. python tests/recipe/mtl_ranks.py FOLDER WEIGHTING EPOCHS_THEN_STOP
"""

import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from model.mtl.architectures import AOEMTL
from tests.unit.train.mtl.small import TASKS, Images
from train.mtl.choices import WeightingConfig
from train.mtl.optim import OptimConfig
from train.mtl.trainer import Trainer, TrainerSettings
from train.reporting import Reporting

GLOBAL_BATCH, EPOCHS = 4, 3


def encoder() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1))


def main(folder: Path, weighting: str, stop_after: int) -> None:
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    trainer = Trainer(
        TASKS,
        WeightingConfig(weighting),
        AOEMTL,
        encoder,
        {task: nn.Conv2d(4, 1, 1) for task in TASKS},
        TrainerSettings(OptimConfig(optim="sgd", lr=0.1), GLOBAL_BATCH // accelerator.num_processes, 2),
        arch_args={"num_experts": [1, 1]},
        config={"weighting": weighting},
        accelerator=accelerator,
        reporting=Reporting(folder, save_every=1, progress=False),
    )
    step, done = trainer.backward.__call__, 0

    def until_killed(*arguments):  # type: ignore[no-untyped-def]
        nonlocal done
        if done == stop_after:
            os._exit(9)  # as a SIGKILL: nothing is cleaned up
        done += 1
        return step(*arguments)

    trainer.backward = until_killed  # type: ignore[assignment]
    trainer.train(Images(18), EPOCHS, range(16), (Images(18), [16, 17]))
    if accelerator.is_main_process:
        torch.save(trainer.model.state_dict(), folder / "model.pt")
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
