"""Which samples go into which batch: a function of seed and epoch alone, so that a run can go on anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Batch = tuple[Tensor, dict[str, Tensor]]


def shuffled(indices: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of `size` in a random order; a last, smaller one is left out, as normalisation needs full ones.

    Raises:
        ValueError: fewer samples than one batch has.
    """
    if len(indices) < size:
        raise ValueError(
            f"{len(indices)} training samples are less than one batch of {size} (over all processes); use a "
            "smaller --train_bs"
        )
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = [indices[place] for place in torch.randperm(len(indices), generator=generator)]
    return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]


def in_order(indices: Sequence[int], size: int) -> list[list[int]]:
    """All samples, the last batch as it comes."""
    return [list(indices[start : start + size]) for start in range(0, len(indices), size)]


def load(dataset: Dataset[Any], batches: Sequence[Sequence[int]], workers: int) -> Iterator[Batch]:
    """The batches, read by worker processes (0: by this one)."""
    yield from DataLoader(dataset, batch_sampler=list(batches), num_workers=workers)  # type: ignore[arg-type]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch."""
    inputs, targets = batch
    return inputs.to(device), {task: target.to(device) for task, target in targets.items()}
