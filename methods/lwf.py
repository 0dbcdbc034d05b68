"""Learning without forgetting: the new expert also imitates the one before, on the new task's questions.

Li and Hoiem, Learning without Forgetting, arXiv 1606.09282; temperature and its square as in Hinton et al.,
arXiv 1503.02531. Over the next-token distributions at the answer positions:

    loss = NLL per answer token + lwf_lambda * T^2 * KL(p_before^(1/T) || p_now^(1/T)) per answer token, T = 2
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Continued, check_weight
from model.language_model.anchor_lm import AnchorLM
from model.language_model.splice import PromptBatch
from train.cells import Cell
from train.recipe import Extra, refuse_deepspeed

if TYPE_CHECKING:
    from train.workshop import Workshop

TEMPERATURE = 2.0


@dataclass(frozen=True)
class LwF(Continued):
    """Keeps no question and no statistics: the teacher is the expert file of the task before."""

    name: ClassVar[str] = "lwf"

    lwf_lambda: float = field(default=4.0, metadata={"help": "weight of LwF's distillation (4)"})

    def __post_init__(self) -> None:
        check_weight("lwf_lambda", self.lwf_lambda)

    def refuse(self, cell: Cell, shop: Workshop) -> None:
        refuse_deepspeed(cell, shop, "which would not put the teacher's tensors together")

    @contextmanager
    def extra(self, cell: Cell, shop: Workshop) -> Iterator[Extra]:
        if cell.start_from is None:
            yield Extra()
            return
        teacher = max(shop.bank.task_ids) + 1
        shop.bank.add(teacher, init=shop.bank.state(cell.task_id))  # which starts as the expert before
        try:
            yield Distillation(shop.model, teacher, self.lwf_lambda)
        finally:
            shop.bank.remove(teacher)


class Distillation(Extra):
    """The second term, with an expert of the model's bank as teacher."""

    def __init__(self, model: AnchorLM, teacher: int, weight: float) -> None:
        self.model, self.teacher, self.weight = model, teacher, weight

    @torch.no_grad()
    def _taught(self, batch: PromptBatch) -> Tensor:
        """The teacher's logits (A, V), without dropout."""
        assert self.model.bank is not None
        with self.model.bank.dropping(0.0):
            logits: Tensor = self.model(batch, [self.teacher] * len(batch)).logits
        return logits

    def of_answers(self, batch: PromptBatch, logits_AV: Tensor) -> Tensor:
        return self.weight * distillation(logits_AV, self._taught(batch))


def distillation(now_AV: Tensor, before_AV: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """`T^2 KL(softmax(before / T) || softmax(now / T))` summed over the A positions, in nats; a scalar."""
    now, before = (F.log_softmax(logits / temperature, -1) for logits in (now_AV, before_AV))
    return temperature**2 * F.kl_div(now, before, reduction="sum", log_target=True)
