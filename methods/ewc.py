"""Elastic weight consolidation: what mattered to earlier tasks is held by springs.

Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, arXiv 1612.00796, with the Fisher
information summed over tasks and one centre, the expert that the task before left (F. Huszar, arXiv
1712.03847; Schwarz et al., arXiv 1805.06370, without decay):

    loss = NLL per answer token + ewc_lambda / 2 * sum_i F_i (theta_i - theta*_i)^2
    F_i = sum over tasks so far of the mean over questions of (d NLL of the answer / d theta_i)^2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from data.samples import Sample
from methods.base import Continued, check_weight
from model.moe.files import write_tensor_file
from model.tensor_files import read_tensors
from train.cells import Cell
from train.recipe import Extra, refuse_deepspeed

if TYPE_CHECKING:
    from train.workshop import Workshop

FISHER_SAMPLES = 512  # questions at most that F is estimated from, evenly spaced over the task's


@dataclass(frozen=True)
class EWC(Continued):
    """`expert_task_k.ewc.safetensors` holds F after task k, keys and shapes as in the expert file."""

    name: ClassVar[str] = "ewc"
    carries: ClassVar[str] = ".ewc.safetensors"

    ewc_lambda: float = field(default=1000.0, metadata={"help": "stiffness of EWC's springs (1000)"})

    def __post_init__(self) -> None:
        check_weight("ewc_lambda", self.ewc_lambda)

    def refuse(self, cell: Cell, shop: Workshop) -> None:
        refuse_deepspeed(cell, shop, "which cuts the parameters that the springs hold")
        if shop.config.precision == "fp16":
            raise ValueError(
                f"{cell.title}: squared gradients of single questions vanish in fp16; use --bf16 or neither"
            )

    @contextmanager
    def extra(self, cell: Cell, shop: Workshop) -> Iterator[Extra]:
        if cell.inherited is None:
            yield Extra()
        else:
            parameters = shop.bank.parameters_of(cell.task_id)
            yield Springs(parameters, read_tensors(cell.inherited), self.ewc_lambda)

    def finish(self, cell: Cell, shop: Workshop, samples: Sequence[Sample]) -> None:
        assert cell.carried is not None
        found = fisher(cell, shop, samples[:: -(-len(samples) // FISHER_SAMPLES)])
        if cell.inherited is not None:
            found = {key: before + found[key] for key, before in read_tensors(cell.inherited).items()}
        if shop.accelerator.is_main_process:
            write_tensor_file(cell.carried, found)


class Springs(Extra):
    """The penalty, centred where the parameters are now."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], fisher: Mapping[str, Tensor], stiffness: float
    ) -> None:
        assert set(parameters) == set(fisher)
        self.stiffness = stiffness
        self.springs = [
            (parameter, parameter.detach().clone(), fisher[key].to(parameter.device))
            for key, parameter in parameters.items()
        ]

    def penalty(self) -> Tensor:
        """`stiffness / 2 * sum_i F_i (theta_i - theta*_i)^2`."""
        parts = [(force * (now - centre).square()).sum() for now, centre, force in self.springs]
        return self.stiffness / 2 * torch.stack(parts).sum()


def fisher(cell: Cell, shop: Workshop, samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Diagonal of the empirical Fisher information of a stored expert: the mean over samples of the squared
    gradient of the answer's NLL (summed over its tokens), float32 on the CPU."""
    bank, ids = shop.bank, [cell.task_id]
    bank.load(cell.task_id, cell.expert)
    try:
        parameters = bank.train_only(cell.task_id)
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for sample in samples:
            batch = shop.inputs.batch([sample], with_answers=True, without_media=cell.without_media)
            with bank.use(ids), shop.accelerator.autocast():
                gradients = torch.autograd.grad(shop.model(batch, ids).sum, parameters)
            for total, gradient in zip(sums, gradients, strict=True):
                total.addcmul_(gradient, gradient, value=1 / len(samples))
        return {key: total.cpu() for key, total in zip(bank.expected_shapes(), sums, strict=True)}
    finally:
        bank.requires_grad_(False)
        bank.remove(cell.task_id)
