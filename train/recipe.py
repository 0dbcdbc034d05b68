"""What a method may change in the training of one expert: its questions, its loss, what it hands on.

A recipe is part of a cell. The one here changes nothing, which is how most experts are trained; those of the
comparison methods are in `methods/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from data.samples import Sample
from model.language_model.prompt_pool import PoolConfig
from model.language_model.splice import PromptBatch
from model.moe.expert_sites import ExpertConfig

if TYPE_CHECKING:
    from train.cells import Cell
    from train.checkpoints import CheckpointFolder
    from train.reporting import Reporting
    from train.workshop import Workshop


class Extra:
    """What is added to the loss of one cell while it trains; this one adds nothing.

    The loss of an optimiser step is `NLL per answer token + of_answers per answer token + penalty`.
    """

    def of_answers(self, batch: PromptBatch, logits_AV: Tensor) -> Tensor | None:
        """Summed over the answer tokens of a micro-batch, as their NLL is; a scalar.

        logits_AV: the learning expert's at the A answer positions, in order of rows, float32.
        """
        return None

    def penalty(self) -> Tensor | None:
        """Of the learning parameters alone, once an optimiser step; a scalar."""
        return None

    def before_step(self) -> None:
        """Called when the gradients of an optimiser step are whole, before they are clipped."""

    def after_step(self) -> None:
        """Called after every optimiser step."""


@dataclass(frozen=True)
class Recipe:
    """How the cells of a method are trained. The fields of a subclass are the settings of its method."""

    carries: ClassVar[str] = ""  # suffix of a file beside the expert that the next task's cell needs
    has_experts: ClassVar[bool] = True  # whether its cells train experts; otherwise `learn` does it all

    def settings(self, cell: Cell) -> dict[str, Any]:
        """The method's own settings, for the identity of a cell of its."""
        return asdict(self)

    def refuse(self, cell: Cell, shop: Workshop) -> None:
        """Raise ValueError, before any work, where a cell cannot be trained so."""

    def plain(self, cell: Cell) -> bool:
        """Whether a cell is trained as if there were no recipe, and may take over such an expert."""
        return True

    def expert(self, config: ExpertConfig) -> ExpertConfig:
        """What the method's experts are made of, where plain ones are as configured. Raises ValueError where
        there is nothing to make them of."""
        return config

    @property
    def pool(self) -> PoolConfig | None:
        """The prompts that it trains where it has no experts, for planning."""
        return None

    def questions(self, cell: Cell, counts: Mapping[Path, int]) -> int:
        """How many questions an epoch has; counts: those of every training file."""
        return sum(counts.get(path, 0) for path in cell.data)

    def choose(self, cell: Cell, samples: Sequence[Sample]) -> list[Sample]:
        """The questions to train on, of those of `cell.files` in order."""
        return list(samples)

    @contextmanager
    def extra(self, cell: Cell, shop: Workshop) -> Iterator[Extra]:
        """Around the training of a cell, whose expert is in the bank at its starting point."""
        yield Extra()

    def learn(
        self,
        cell: Cell,
        shop: Workshop,
        samples: Sequence[Sample],
        checkpoint: CheckpointFolder,
        reporting: Reporting,
    ) -> dict[str, Any]:
        """Train what a method without experts has in their place and write it as the expert file.

        Returns what `Training.run` does.
        """
        raise NotImplementedError

    def finish(self, cell: Cell, shop: Workshop, samples: Sequence[Sample]) -> None:
        """Write the file that `carries` names; the expert's own is there. All processes call it, the main
        one writes.

        samples: what the cell was trained on.
        """


def refuse_deepspeed(cell: Cell, shop: Workshop, why: str) -> None:
    """Raise ValueError if DeepSpeed drives the training."""
    if shop.accelerator.distributed_type.value == "DEEPSPEED":
        raise ValueError(
            f"{cell.title}: not under DeepSpeed, {why}; leave --deepspeed out (torchrun alone averages "
            "gradients over processes), or leave the method out of --methods"
        )
