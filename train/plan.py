"""Which questions go into which optimiser step, on which process: a pure function of sizes, seed and epoch.

Nothing here depends on the number of processes but the last cut, so that one process and two see the same
steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

GROUP = 8  # steps whose questions are sorted by length together: little padding, still random


def epoch_steps(lengths: Sequence[int], step_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of every optimiser step of one epoch; each sample occurs once, the last step may be short.

    Args:
        lengths: prompt length of every sample in tokens; samples of like length share a step.
        step_size: samples in a step over all processes and micro-batches.
        seed: run seed. epoch: number of the epoch, from 0.
    """
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    steps: list[list[int]] = []
    for start in range(0, len(order), step_size * GROUP):
        group = sorted(order[start : start + step_size * GROUP], key=lambda index: lengths[index])
        steps += [group[at : at + step_size] for at in range(0, len(group), step_size)]
    return [steps[at] for at in torch.randperm(len(steps), generator=generator).tolist()]


def micro_batches(step: Sequence[int], size: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """This process's micro-batches of one step, in order; every process gets the same number, some may be
    empty."""
    pieces = [list(step[at : at + size]) for at in range(0, len(step), size)]
    rounds = -(-len(pieces) // world)
    return [
        pieces[turn * world + rank] if turn * world + rank < len(pieces) else [] for turn in range(rounds)
    ]


def count_steps(samples: int, step_size: int, epochs: int) -> int:
    """Optimiser steps of a whole run."""
    return epochs * -(-samples // step_size)
