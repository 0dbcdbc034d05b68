"""The trainer of multi-task models, in the manner of LibMTL's.

    trainer = Trainer(task_dict, weighting, architecture, encoder_class, decoders, settings, config=...)
    trainer.train(train_set, epochs)
    scores = trainer.test(test_set)

Any device and any number of processes of accelerate; gradients are averaged over the processes by hand, since
they come task by task. A run that was interrupted goes on from its last checkpoint and ends with the same
numbers: order, augmentation and dropout depend on seed, epoch and step only.

Files in the run's folder: `best.pt` (weights, the whole configuration, validation scores), `state.pt` and
`identity.json` (to resume), `history.json` (an entry per epoch), `train_log.jsonl`, TensorBoard files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from model.mtl.architectures import Architecture, EncoderClass
from model.mtl.encoders import set_recompute
from train.mtl.backward import TaskwiseBackward
from train.mtl.batches import in_order, load
from train.mtl.choices import WeightingConfig, make_weighting
from train.mtl.evaluate import Evaluation, evaluate
from train.mtl.optim import OptimConfig
from train.mtl.run import Run, Validation
from train.mtl.tasks import MultiTask
from train.reporting import Reporting


@dataclass(frozen=True)
class TrainerSettings:
    """How to train; all that decides the result beside the model and the data."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    train_batch: int = 8  # per process
    test_batch: int = 8
    seed: int = 0
    workers: int = 0  # processes that read data
    recompute: bool = (
        True  # of large batches keep results of dear convolutions only: less memory, same result
    )

    def __post_init__(self) -> None:
        if self.train_batch < 2 or self.test_batch < 1:
            raise ValueError(
                f"batches of {self.train_batch} and {self.test_batch}; training needs at least 2 (batch "
                "normalisation over pooled features), testing at least 1"
            )


class Trainer:
    """Trains and tests one multi-task model.

    Args:
        task_dict: task -> loss, scores, resizing.
        weighting: which, and its settings.
        architecture: subclass of model.mtl's `Architecture`.
        encoder_class: makes one encoder.
        decoders: one head per task.
        arch_args: further arguments of the architecture, such as num_experts and img_size.
        config: what else is needed to build the model again, such as of encoder and heads; JSON values.
            Stored in `best.pt` and `identity.json` together with what the trainer knows itself:
            architecture, arch_args, weighting, settings.
        reporting: folder of the run, logs.
    """

    def __init__(
        self,
        task_dict: Mapping[str, MultiTask],
        weighting: WeightingConfig,
        architecture: type[Architecture],
        encoder_class: EncoderClass,
        decoders: Mapping[str, nn.Module],
        settings: TrainerSettings | None = None,
        *,
        arch_args: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        accelerator: Accelerator | None = None,
        reporting: Reporting | None = None,
    ) -> None:
        self.tasks = dict(task_dict)
        self.settings = settings or TrainerSettings()
        self.accelerator = accelerator or Accelerator()
        self.reporting = reporting or Reporting()
        self.config = dict(config or {}) | known(architecture, arch_args or {}, weighting, self.settings)
        names, device = list(self.tasks), self.accelerator.device
        self.model = architecture(names, encoder_class, decoders, device=device, **dict(arch_args or {}))
        self.model.to(device)
        if self.accelerator.mixed_precision != "no":  # the layout that 16-bit convolutions are fast in
            self.model.to(memory_format=torch.channels_last)
        self.weighting = make_weighting(weighting, len(names))
        set_recompute(self.model, self.settings.recompute)
        self.backward = TaskwiseBackward(self.model, self.weighting, self.tasks, self.accelerator)
        self.history: list[dict[str, Any]] = []

    def train(
        self,
        train_set: Dataset[Any],
        epochs: int,
        train_indices: Sequence[int] | None = None,
        validation: Validation | None = None,
        before_first_step: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Train to the end, from the last checkpoint if there is one; returns the best epoch's entry.

        train_indices: which samples of train_set, None for all. validation: on which samples the best epoch
        is chosen; without it the last epoch counts as best. before_first_step: what may still refuse a run
        that has steps left; nothing is loaded, and a new folder not taken yet.

        Raises:
            ValueError: a loss that is not finite, too few samples, a folder of a run with other settings.
        """
        run = Run(self, train_set, epochs, train_indices, validation)
        if not run.finished() and before_first_step is not None:
            before_first_step()
        run.resume()
        return run.to_the_end()

    def test(self, dataset: Dataset[Any], indices: Sequence[int] | None = None) -> Evaluation:
        """Losses and scores on all or the chosen samples."""
        chosen = in_order(indices if indices is not None else range(len(dataset)), self.settings.test_batch)  # type: ignore[arg-type]
        batches = load(dataset, chosen, self.settings.workers)
        return evaluate(self.model, self.tasks, batches, self.accelerator)

    @property
    def best_path(self) -> Path:
        """The best checkpoint of the run."""
        return self.reporting.folder / "best.pt"


def known(
    architecture: type[Architecture],
    arch_args: Mapping[str, Any],
    weighting: WeightingConfig,
    settings: TrainerSettings,
) -> dict[str, Any]:
    """What decides a result and can be told apart without the caller, as JSON values by the names that
    main.py stores; of an argument that is no JSON value, its type.
    """
    values = {
        "arch": architecture.__name__,
        **arch_args,
        "weighting": asdict(weighting),
        "optim": asdict(settings.optim),
        "train_bs": settings.train_batch,
        "test_bs": settings.test_batch,
        "seed": settings.seed,
        "recompute": settings.recompute,
    }
    return json.loads(json.dumps(values, default=lambda value: type(value).__name__))
