"""Numbers of experts, and experts that must not start alike.

Two experts that start from equal weights and see the same input get the same gradient for ever: under norm
fusion both have the same share, so `2 2` is `1 1` at twice the cost. That happens as soon as the encoders
are loaded from one file of pretrained weights. `break_symmetry` therefore moves all but the first of equal
experts a little; `NOISE` is small enough to keep what the pretrained weights know (tests/unit/model/mtl).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

NOISE = 0.05  # of each weight's own standard deviation
PUBLISHED, BROKEN = "published", "broken"
SYMMETRIES = (BROKEN, PUBLISHED)


@dataclass(frozen=True)
class ExpertCounts:
    """How many experts there are."""

    shared: int
    specific: tuple[int, ...]  # one number per task

    @classmethod
    def parse(cls, numbers: Sequence[int] | None, task_names: Sequence[str]) -> ExpertCounts:
        """`S` (shared only), `S P` (P for every task) or `S P1 .. PT` (task by task).

        Raises:
            ValueError: another count of numbers, a negative one, or a task without any expert.
        """
        numbers = list(numbers or ())
        shared, rest = (numbers[0], numbers[1:]) if numbers else (0, [])
        if len(rest) <= 1:
            rest = (rest or [0]) * len(task_names)
        form = "give S (shared), S P (P per task) or one number for the shared and one for each task"
        if not numbers or len(rest) != len(task_names):
            raise ValueError(f"num_experts {numbers} for {len(task_names)} tasks; {form}")
        if min(shared, *rest) < 0 or shared + min(rest) < 1:
            raise ValueError(f"num_experts {numbers}: every task needs at least one expert; {form}")
        return cls(shared, tuple(rest))


def break_symmetry(experts: Sequence[nn.Module], generator: torch.Generator | None = None) -> int:
    """Move those experts that are equal to an earlier one; returns how many were.

    `W <- W + NOISE std(W) n`, n standard normal, for every weight of two or more dimensions; biases and
    normalisation layers stay. Experts that differ already (random initialisation) are left alone.
    """
    moved = 0
    for place, expert in enumerate(experts):
        if not any(equal(expert, earlier) for earlier in experts[:place]):
            continue
        moved += 1
        with torch.no_grad():
            for parameter in expert.parameters():
                if parameter.ndim >= 2:
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
                    parameter.add_(NOISE * parameter.std() * noise.to(parameter))
    return moved


def equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two experts have the same parameters, bit for bit."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return one is not other and all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)
