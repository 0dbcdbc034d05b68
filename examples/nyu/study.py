"""From a configuration to data, model and results; what main.py and compare.py share."""

from __future__ import annotations

import copy
import logging
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from torch import nn
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from data.dense.folder import LAYOUTS, DenseFolder, split_validation
from data.dense.rooms import write_rooms
from data.files import write_json_atomic
from data.run_record import provenance
from evaluation.scoring.dense import DepthScores, NormalScores, SegmentationScores
from examples.nyu.config import ARCHITECTURES, ROOMS, StudyConfig
from model.mtl.architectures import Architecture
from model.mtl.encoders import DilatedResNet50, PlainEncoder
from model.mtl.heads import deeplab_head, to_image
from model.mtl.losses import depth_loss, normal_loss, segmentation_loss
from model.tensor_files import read_plain
from train.mtl.memory import check_memory, predict
from train.mtl.pretrained import encoder_weights
from train.mtl.tasks import MultiTask
from train.mtl.trainer import Trainer, TrainerSettings
from train.reporting import Reporting

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
ROOMS_SIZE, ROOMS_TRAIN, ROOMS_VAL = (72, 96), 160, 40
OUTPUTS = {"depth": 1, "normal": 3}  # of segmentation: the classes


def tasks_of(config: StudyConfig) -> dict[str, MultiTask]:
    """Losses and scores of the dataset's tasks."""
    layout = LAYOUTS[config.dataset]
    known = {
        "segmentation": MultiTask(segmentation_loss, partial(SegmentationScores, layout.classes), to_image),
        "depth": MultiTask(depth_loss, DepthScores, to_image),
        "normal": MultiTask(normal_loss, NormalScores, to_image),
    }
    return {task: known[task] for task in layout.tasks}


def dataset_folder(config: StudyConfig) -> Path:
    """The data; `rooms` are made on first use, small, and resized to --img_size."""
    if config.dataset_path != ROOMS:
        return Path(config.dataset_path)
    with PartialState().local_main_process_first():  # of several processes one makes them
        return make_rooms()


def make_rooms() -> Path:
    """The small rooms, made unless they are there; that takes about a minute."""
    folder = ROOT / "output" / f"rooms_{ROOMS_SIZE[0]}x{ROOMS_SIZE[1]}"
    return write_rooms(folder, ROOMS_TRAIN, ROOMS_VAL, *ROOMS_SIZE)


def open_part(config: StudyConfig, part: str, seed: int | None = None) -> DenseFolder:
    """`train` or `val`; seed: of the augmentation."""
    size = (config.img_size[1], config.img_size[2])
    return DenseFolder(dataset_folder(config), part, LAYOUTS[config.dataset], size, seed)


def make_trainer(
    config: StudyConfig, accelerator: Accelerator, reporting: Reporting, workers: int = 0, load: bool = False
) -> Trainer:
    """Model and trainer of a configuration; load: weights come from a checkpoint alone."""
    torch.manual_seed(config.seed)
    layout = LAYOUTS[config.dataset]
    state = None if load else encoder_weights(config.pretrained, config.encoder)
    widths = (config.width, config.width, 2 * config.width, 4 * config.width)
    encoder: Any = partial(PlainEncoder, widths, state)
    channels = widths[-1]
    if config.encoder == "resnet50":
        encoder, channels = partial(DilatedResNet50, state), DilatedResNet50.out_channels
    outputs = {"segmentation": layout.classes, **OUTPUTS}
    heads: dict[str, nn.Module] = {
        task: deeplab_head(channels, outputs[task], config.head_width) for task in layout.tasks
    }
    return Trainer(
        tasks_of(config),
        config.weighting,
        ARCHITECTURES[config.arch],
        encoder,
        heads,
        TrainerSettings(
            config.optim, config.train_bs, config.test_bs, config.seed, workers, config.recompute
        ),
        arch_args={
            "num_experts": config.num_experts,
            "img_size": config.img_size,
            "symmetry": config.symmetry,
        },
        config=config.as_dict(),
        accelerator=accelerator,
        reporting=reporting,
    )


def train(config: StudyConfig, trainer: Trainer, ignore_memory: bool = False) -> dict[str, Any]:
    """Train on nine tenths of `train/`, choose on the seeded other tenth; returns the best epoch's entry."""
    train_set = open_part(config, "train", config.seed if config.aug else None)
    plain_set = open_part(config, "train")
    indices, held_out = split_validation(len(train_set), config.seed)
    log.info("%d images to train on, %d to choose the best epoch on", len(indices), len(held_out))

    def before() -> None:
        shape = (config.train_bs, *config.img_size)
        half = config.precision != "no"
        need = predict(trainer.model, shape, config.optim, half, trainer.weighting)
        if ignore_memory:
            log.info("memory: %.2f GiB predicted for a step, not checked", need.total / 2**30)
        else:
            beside = int(os.environ.get("LOCAL_WORLD_SIZE", trainer.accelerator.num_processes))
            log.info(check_memory(need, trainer.accelerator.device, beside))

    return trainer.train(train_set, config.epochs, indices, (plain_set, held_out), before)


def load_best(path: Path) -> tuple[StudyConfig, dict[str, Any]]:
    """Configuration and content of a checkpoint. Raises ValueError for a file of another kind."""
    path = path / "best.pt" if path.is_dir() else path
    content = read_plain(path)
    if not isinstance(content, dict) or not {"config", "model", "entry"} <= set(content):
        raise ValueError(
            f"{path}: holds no configuration; expected a best.pt written by --mode train of this version"
        )
    return StudyConfig.from_dict(content["config"]), content


def restore(trainer: Trainer, content: dict[str, Any], path: Path) -> None:
    """Load the weights; nothing may be missing or left over."""
    try:
        trainer.model.load_state_dict(content["model"], strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path}: the weights do not fit its own configuration ({error})") from error


def test(config: StudyConfig, trainer: Trainer, content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Score on `val/`, write result.json; returns what is in it."""
    started = time.monotonic()
    found = trainer.test(open_part(config, "val"))
    result = {
        "config": config.as_dict(),
        "best_epoch": content["entry"]["epoch"],
        "validation": content["entry"].get("val_scores"),
        "test": found.scores,
        "test_losses": found.losses,
        "samples": found.samples,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "flops": count_flops(trainer.model, config.img_size),
        "provenance": provenance(round(time.monotonic() - started, 2)),
    }
    if trainer.accelerator.is_main_process:
        write_json_atomic(folder / "result.json", result)
    return result


@torch.no_grad()
def count_flops(model: Architecture, img_size: tuple[int, ...]) -> int:
    """Floating point operations of one image, forward: two per multiplication that is carried out."""
    ghost = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        ghost(torch.empty(1, *img_size, device="meta"))
    return int(counter.get_total_flops())


def make_accelerator(config: StudyConfig, gpu: str = "0") -> Accelerator:
    """The accelerator; without a GPU the CPU, saying so. Raises ValueError for fp16 on a CPU."""
    if "LOCAL_RANK" not in os.environ:
        visible = os.environ.setdefault("CUDA_VISIBLE_DEVICES", gpu)
        if visible != gpu:
            log.info("CUDA_VISIBLE_DEVICES is %r already: --gpu_id %s is left aside", visible, gpu)
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        log.info("no GPU here: --gpu_id %s is left aside, running on the CPU", gpu)
        if config.precision == "fp16":
            raise ValueError("fp16 needs a GPU, and there is none here; use --bf16, or --fp32 to leave it")
    return Accelerator(cpu=on_cpu, mixed_precision=config.precision)


def sample_predictions(trainer: Trainer, dataset: Dataset[Any], indices: list[int]) -> list[dict[str, Any]]:
    """Image, targets and predictions of some samples as numpy arrays, for the panel."""
    trainer.model.eval()
    found = []
    for index in indices:
        image, targets = dataset[index]
        with torch.no_grad(), trainer.accelerator.autocast():
            outputs = trainer.model(image[None].to(trainer.accelerator.device))
        predicted = {
            task: rule.prepare(outputs[task], targets[task])[0].cpu().numpy()
            for task, rule in trainer.tasks.items()
        }
        found.append(
            {
                "image": image.numpy(),
                "targets": {task: target.numpy() for task, target in targets.items()},
                "predicted": predicted,
            }
        )
    return found
