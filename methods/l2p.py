"""Learning to Prompt: a pool of prompts, of which every question takes the nearest by key.

Z. Wang et al., Learning to Prompt for Continual Learning, arXiv 2112.08654; the pool itself, its queries and
the choice are in model/language_model/prompt_pool.py. The loss of an optimiser step is

    sum over samples of (NLL of the answer + l2p_pull * answer tokens * mean distance to the chosen keys)
    / number of answer tokens

so that it does not depend on how the step is cut into micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from data.samples import Sample
from evaluation.expert_loading import POOLS
from methods.base import Continued, check_weight
from model.language_model.anchor_lm import AnchorLM
from model.language_model.prompt_pool import PoolConfig, PromptPool, load_pool
from model.language_model.splice import IGNORE, PromptBatch
from model.moe.experts import NO_EXPERT
from train.cells import Cell
from train.checkpoints import CheckpointFolder
from train.loop import Training
from train.recipe import refuse_deepspeed
from train.reporting import Reporting

if TYPE_CHECKING:
    from train.run_cell import Workshop


@dataclass(frozen=True)
class LearningToPrompt(Continued):
    """No experts: `expert_task_k.pt` holds the pool after task k."""

    name: ClassVar[str] = "l2p"
    make: ClassVar[str] = POOLS
    has_experts: ClassVar[bool] = False

    l2p_prompts: int = field(default=16, metadata={"help": "prompts in the pool of l2p (16)"})
    l2p_length: int = field(default=16, metadata={"help": "soft tokens of a prompt (16)"})
    l2p_top: int = field(default=4, metadata={"help": "prompts that a question takes (4)"})
    l2p_place: str = field(
        default="answer",
        metadata={"help": "where they go: text, before the question; answer, after it (answer)"},
    )
    l2p_pull: float = field(default=0.5, metadata={"help": "weight of the keys' distances in the loss (0.5)"})
    l2p_learning_rate: float = field(
        default=0.3, metadata={"help": "in place of --learning_rate, which is that of experts (0.3)"}
    )

    def __post_init__(self) -> None:
        _ = self.pool
        for name in ("l2p_pull", "l2p_learning_rate"):
            check_weight(name, getattr(self, name))

    @property
    def pool(self) -> PoolConfig:
        """The pool's sizes. Raises ValueError for impossible ones."""
        return PoolConfig(self.l2p_prompts, self.l2p_length, self.l2p_top, self.l2p_place)  # type: ignore[arg-type]

    def plain(self, cell: Cell) -> bool:
        """No plain expert is trained like it."""
        return False

    def refuse(self, cell: Cell, shop: Workshop) -> None:
        refuse_deepspeed(cell, shop, "which knows nothing of prompts")

    def learn(
        self,
        cell: Cell,
        shop: Workshop,
        samples: Sequence[Sample],
        checkpoint: CheckpointFolder,
        reporting: Reporting,
    ) -> dict[str, Any]:
        features = shop.inputs.routing(samples)
        if cell.start_from is None:
            widths = shop.inputs.encoder.routing_widths | {"text": features.values["text"].shape[1]}
            pool = PromptPool(self.pool, widths, shop.inputs.embedding.embedding_dim)
            pool.start(shop.inputs.embedding, torch.Generator().manual_seed(shop.config.seed))
        else:
            pool, _ = load_pool(cell.start_from, shop.inputs.base_identity)
        pool, query = pool.to(shop.accelerator.device), pool.query(features)
        summary = PoolTraining(self, pool, query, shop, samples, checkpoint, reporting).run()
        pool.count(pool.choose(query, learning=True))
        if shop.accelerator.is_main_process:
            pool.save(cell.expert, cell.task_id, shop.inputs.base_identity)
        return summary


class PromptNLL(nn.Module):
    """The module that is wrapped for distributed training: prompts and queries in, summed loss out."""

    def __init__(self, model: AnchorLM, pool: PromptPool, label_smoothing: float, pull: float) -> None:
        super().__init__()
        self.model, self.pool, self.label_smoothing, self.weight = model, pool, label_smoothing, pull

    def forward(self, batch: PromptBatch, query: Tensor) -> Tensor:
        """NLL summed over answer tokens, and for each of them the distance of its query to the keys.

        query: (B, Q).
        """
        chosen = self.pool.choose(query, learning=True)
        prompted = self.pool.prompted(batch, chosen)
        loss = self.model(prompted, [NO_EXPERT] * len(batch), self.label_smoothing).sum
        assert batch.labels is not None
        tokens = torch.tensor([int((row != IGNORE).sum()) for row in batch.labels], device=loss.device)
        return loss + self.weight * (self.pool.pull(query, chosen) * tokens).sum()


class PoolTraining(Training):
    """Training of a pool's prompts and keys."""

    def __init__(
        self,
        method: LearningToPrompt,
        pool: PromptPool,
        query: Tensor,
        shop: Workshop,
        samples: Sequence[Sample],
        checkpoint: CheckpointFolder,
        reporting: Reporting,
    ) -> None:
        """query: one row per sample. (N, Q)"""
        self.pool, self.query, self.inputs = pool, query, shop.inputs
        config = replace(shop.config, learning_rate=method.l2p_learning_rate)
        shop.model.requires_grad_(False)
        soft = pool.config.top * pool.config.length
        super().__init__(
            PromptNLL(shop.model, pool, config.label_smoothing, method.l2p_pull),
            list(pool.requires_grad_(True).parameters()),
            samples,
            [shop.inputs.prompt_length(sample) + soft for sample in samples],
            [shop.inputs.answer_length(sample) for sample in samples],
            config,
            shop.accelerator,
            checkpoint,
            reporting,
        )

    def _backward(self, piece: Sequence[int], weight: float, place: tuple[int, int]) -> Tensor:
        batch = self.inputs.batch([self.samples[index] for index in piece], with_answers=True)
        loss: Tensor = self.wrapped(batch, self.query[list(piece)])
        self._differentiate(loss * weight)
        return loss.detach()

    def _state(self) -> dict[str, Tensor]:
        return self.pool.state()

    def _load_state(self, state: dict[str, Tensor]) -> None:
        self.pool.load_state(state)
