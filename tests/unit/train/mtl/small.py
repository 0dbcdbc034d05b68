"""A small multi-task problem: two dense tasks on random images, encoders of two convolutions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from model.mtl.architectures import AOEMTL, CGC, HPS, STL, Architecture, MMoE
from model.mtl.encoders import PlainEncoder
from model.mtl.heads import to_image
from model.mtl.losses import depth_loss
from model.mtl.ple import PLE
from train.mtl.choices import WeightingConfig
from train.mtl.optim import OptimConfig
from train.mtl.tasks import MultiTask
from train.mtl.trainer import Trainer, TrainerSettings
from train.reporting import Reporting

IMAGE = (3, 8, 8)
EXPERTS: dict[type[Architecture], list[int] | None] = {
    AOEMTL: [1, 1],
    CGC: [1, 1],
    MMoE: [2],
    PLE: [1, 1],
    HPS: None,
    STL: None,
}


class MeanError:
    """A score with the interface of the real ones."""

    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        self.errors.append(float(np.abs(predicted - truth).mean()))

    def result(self) -> dict[str, float]:
        return {"error": float(np.mean(self.errors))}


TASKS = {name: MultiTask(depth_loss, MeanError, to_image) for name in ("near", "far")}


class Images(Dataset[Any]):
    """Images and targets that depend on the index."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.epoch = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = torch.rand(IMAGE, generator=torch.Generator().manual_seed(index))
        return image, {"near": image[:1] + 0.1, "far": 2 * image[1:2] + 0.1 * (self.epoch + 1)}


def encoder() -> nn.Module:
    return PlainEncoder((2, 3, 4, 4))


def heads() -> dict[str, nn.Module]:
    return {task: nn.Sequential(nn.Dropout(0.2), nn.Conv2d(4, 1, 1)) for task in TASKS}


def make_trainer(
    folder: Path,
    architecture: type[Architecture] = AOEMTL,
    weighting: str = "EW",
    optim: OptimConfig | None = None,
    accelerator: Accelerator | None = None,
    save_every: int = 2,
    config: dict[str, Any] | None = None,
) -> Trainer:
    torch.manual_seed(0)
    return Trainer(
        TASKS,
        WeightingConfig(weighting),
        architecture,
        encoder,
        heads(),
        TrainerSettings(optim or OptimConfig(lr=1e-2), train_batch=3, test_batch=2),
        arch_args={"num_experts": EXPERTS[architecture], "img_size": IMAGE},
        config=config,
        accelerator=accelerator or Accelerator(cpu=True),
        reporting=Reporting(folder, save_every=save_every, progress=False),
    )


def batch(indices: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
    rows = [Images(len(indices))[index] for index in indices]
    return torch.stack([row[0] for row in rows]), {
        task: torch.stack([row[1][task] for row in rows]) for task in TASKS
    }
