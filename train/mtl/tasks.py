"""What a trainer must know of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


class TaskScores(Protocol):
    """Scores accumulated over batches; those of evaluation/scoring/dense.py fit."""

    def update(self, predicted: Any, truth: Any) -> None:
        """Take in a batch of numpy arrays."""

    def result(self) -> dict[str, float]:
        """Name -> score."""


@dataclass(frozen=True)
class MultiTask:
    """One of the tasks that are learned together."""

    loss: Callable[[Tensor, Tensor], Tensor]  # (head output at the target's size, target) -> scalar
    scores: Callable[[], TaskScores]  # makes empty scores
    resize: Callable[[Tensor, tuple[int, int]], Tensor] | None = None  # head output to the image, if dense

    def prepare(self, output: Tensor, target: Tensor) -> Tensor:
        """The head's output in float32 (float64 stays), at the size of the target."""
        wide = output if output.dtype.itemsize >= 4 else output.float()
        if self.resize is None:
            return wide
        return self.resize(wide, (target.shape[-2], target.shape[-1]))
