"""O-LoRA: every task learns in a low-rank subspace of its own, orthogonal to the earlier ones.

Wang et al., Orthogonal Subspace Learning for Language Model Continual Learning, arXiv 2310.14152. The rank of
one LoRA expert is divided among the tasks, so that the budget is that of the other rows: task t of T learns
rows `t R / T` to `(t + 1) R / T` of every A and the same columns of every B; all others stay as they are, bit
for bit. Its own columns of B are zero when it begins, so the file after task t is an ordinary expert that
sums all subspaces so far. With A_old the rows of earlier tasks and A_new the task's own:

    loss = NLL per answer token + olora_lambda * sum over layers of sum |A_old A_new^T|
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from methods.base import Continued, check_weight
from train.cells import Cell
from train.recipe import Extra, refuse_deepspeed

if TYPE_CHECKING:
    from train.workshop import Workshop


@dataclass(frozen=True)
class OLoRA(Continued):
    """The number of tasks must be known when the first one is learned."""

    name: ClassVar[str] = "olora"

    olora_lambda: float = field(default=5.0, metadata={"help": "weight of O-LoRA's orthogonality (5)"})

    def __post_init__(self) -> None:
        check_weight("olora_lambda", self.olora_lambda)

    def settings(self, cell: Cell) -> dict[str, Any]:
        return {**super().settings(cell), "tasks": len(cell.tasks)}

    def plain(self, cell: Cell) -> bool:
        """Even the first task has a part of the rank only."""
        return False

    def refuse(self, cell: Cell, shop: Workshop) -> None:
        refuse_deepspeed(cell, shop, "which cuts the tensors that are to stay in part")
        expert = shop.config.expert
        if expert.kind != "lora" or expert.rank < len(cell.tasks):
            raise ValueError(
                f"{cell.title}: {len(cell.tasks)} tasks share the rank, got {expert.kind} experts of rank "
                f"{expert.rank}; take LoRA experts with --expert_rank {len(cell.tasks)} or more"
            )

    @contextmanager
    def extra(self, cell: Cell, shop: Workshop) -> Iterator[Extra]:
        place = share(cell.tasks.index(cell.task_id), len(cell.tasks), shop.config.expert.rank)
        yield Subspace(shop.bank.parameters_of(cell.task_id), *place, self.olora_lambda)


def share(place: int, tasks: int, rank: int) -> tuple[int, int]:
    """First rank of a task, and the one after its last."""
    return place * rank // tasks, (place + 1) * rank // tasks


class Subspace(Extra):
    """Ranks `start` to `stop` of a LoRA expert learn.

    The others get no gradient, so that clipping and moments see the task's own alone, and are put back after
    every step: weight decay asks for no gradient.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], start: int, stop: int, weight: float) -> None:
        self.start, self.stop, self.weight = start, stop, weight
        self.by_rank = [  # ranks are the rows of A and the columns of B
            (parameter, 0 if key.endswith(".lora_A.weight") else 1) for key, parameter in parameters.items()
        ]
        self.before = [parameter.detach().clone() for parameter, _ in self.by_rank]

    def _others(self, tensor: Tensor, axis: int) -> list[Tensor]:
        """Views of the ranks that are not the task's."""
        ends = ((0, self.start), (self.stop, tensor.shape[axis]))
        return [tensor.narrow(axis, start, stop - start) for start, stop in ends]

    def penalty(self) -> Tensor | None:
        """`weight * sum |A_old A_new^T|` over all layers; None for the first task."""
        if not self.start or not self.weight:
            return None
        rows = [a for a, axis in self.by_rank if axis == 0]
        overlaps = [a[: self.start].detach() @ a[self.start : self.stop].T for a in rows]
        return self.weight * torch.stack([overlap.abs().sum() for overlap in overlaps]).sum()

    def before_step(self) -> None:
        for parameter, axis in self.by_rank:
            assert parameter.grad is not None
            for part in self._others(parameter.grad, axis):
                part.zero_()

    @torch.no_grad()
    def after_step(self) -> None:
        for (parameter, axis), before in zip(self.by_rank, self.before, strict=True):
            for part, was in zip(self._others(parameter, axis), self._others(before, axis), strict=True):
                part.copy_(was)
