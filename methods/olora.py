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

    olora_lambda: float = field(default=0.5, metadata={"help": "weight of O-LoRA's orthogonality (0.5)"})

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
        own = Subspace(
            shop.bank.parameters_of(cell.task_id),
            *share(cell.tasks.index(cell.task_id), len(cell.tasks), shop.config.expert.rank),
            self.olora_lambda,
        )
        try:
            yield own
        finally:
            own.release()


def share(place: int, tasks: int, rank: int) -> tuple[int, int]:
    """First rank of a task, and the one after its last."""
    return place * rank // tasks, (place + 1) * rank // tasks


class Subspace(Extra):
    """Ranks `start` to `stop` of a LoRA expert learn, the others are put back after every step: a gradient of
    zero alone would leave them to weight decay."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], start: int, stop: int, weight: float) -> None:
        self.start, self.stop, self.weight = start, stop, weight
        self.by_rank = [  # ranks come first: the rows of A, the columns of B
            (parameter, 0 if key.endswith(".lora_A.weight") else 1) for key, parameter in parameters.items()
        ]
        self.before = [parameter.detach().clone() for parameter, _ in self.by_rank]
        self.hooks = [
            parameter.register_hook(lambda gradient, axis=axis: self._own(gradient, axis))
            for parameter, axis in self.by_rank
        ]

    def _own(self, gradient: Tensor, axis: int) -> Tensor:
        """The gradient, zero outside the task's ranks: clipping and moments see these alone."""
        kept = torch.zeros_like(gradient)
        place = (axis, self.start, self.stop - self.start)
        kept.narrow(*place).copy_(gradient.narrow(*place))
        return kept

    def penalty(self) -> Tensor | None:
        """`weight * sum |A_old A_new^T|` over all layers; None for the first task."""
        if not self.start or not self.weight:
            return None
        pairs = [
            (a[: self.start].detach(), a[self.start : self.stop]) for a, axis in self.by_rank if axis == 0
        ]
        return self.weight * torch.stack([(old @ new.T).abs().sum() for old, new in pairs]).sum()

    @torch.no_grad()
    def after_step(self) -> None:
        for (parameter, axis), before in zip(self.by_rank, self.before, strict=True):
            rank = parameter.shape[axis]
            for start, stop in ((0, self.start), (self.stop, rank)):
                parameter.narrow(axis, start, stop - start).copy_(before.narrow(axis, start, stop - start))

    def release(self) -> None:
        """The parameters learn freely again."""
        for hook in self.hooks:
            hook.remove()
