"""Losses and scores of a model on a dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from model.mtl.architectures import Architecture
from train.mtl.batches import Batch, to_device
from train.mtl.tasks import MultiTask


@dataclass(frozen=True)
class Evaluation:
    """Results over all samples."""

    losses: dict[str, float]  # task -> mean over the batches, weighted with their sizes
    scores: dict[str, dict[str, float | None]]  # task -> name -> score, None where no pixel counted
    samples: int


@torch.no_grad()
def evaluate(
    model: Architecture, tasks: Mapping[str, MultiTask], batches: Iterable[Batch], accelerator: Accelerator
) -> Evaluation:
    """Every process evaluates all batches, so that all take the same decisions."""
    was_training = model.training
    model.eval()
    sums = dict.fromkeys(tasks, 0.0)
    scores = {task: rule.scores() for task, rule in tasks.items()}
    samples = 0
    for batch in batches:
        inputs, targets = to_device(batch, accelerator.device)
        with accelerator.autocast():
            outputs = model(inputs)
        for task, rule in tasks.items():
            predicted = rule.prepare(outputs[task], targets[task])
            sums[task] += float(rule.loss(predicted, targets[task])) * len(inputs)
            scores[task].update(predicted.cpu().numpy(), targets[task].cpu().numpy())
        samples += len(inputs)
    model.train(was_training)
    losses = {task: total / max(samples, 1) for task, total in sums.items()}
    results = {task: {n: finite(v) for n, v in score.result().items()} for task, score in scores.items()}
    return Evaluation(losses, results, samples)


def finite(value: float) -> float | None:
    """The value, None where it is not defined: JSON has no NaN."""
    return value if math.isfinite(value) else None
